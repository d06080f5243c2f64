//! What `--pod` and `--container` ask for. Pure.

use super::Names;
use crate::text::glob::{Glob, GlobError};

/// Shortest beginning of an id that counts as one: what `docker ps` and `crictl ps` show has 12 and 13 digits.
const SHORTEST_ID: usize = 6;

/// A name, with `*` for any part of it; before it, where a pod is meant, its namespace and a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    text: String,
    namespace: Option<Glob>,
    name: Glob,
}

/// Why a pattern was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or a slash too many.
    #[error("{0:?} is no name: give {1}")]
    Form(String, &'static str),
    /// The part between slashes.
    #[error(transparent)]
    Glob(#[from] GlobError),
}

impl NamePattern {
    /// `NAME` or `NAMESPACE/NAME` of a pod, or its uid.
    ///
    /// # Errors
    /// Of any other form.
    pub fn pod(text: &str) -> Result<NamePattern, NameError> {
        match text.split_once('/') {
            None => NamePattern::new(text, None, text, "NAME or NAMESPACE/NAME"),
            Some((namespace, name)) => NamePattern::new(text, Some(namespace), name, "NAME or NAMESPACE/NAME"),
        }
    }

    /// Name of a container, or the beginning of its id.
    ///
    /// # Errors
    /// Of any other form.
    pub fn container(text: &str) -> Result<NamePattern, NameError> {
        NamePattern::new(text, None, text, "the name of a container or the beginning of its id")
    }

    fn new(text: &str, namespace: Option<&str>, name: &str, form: &'static str) -> Result<NamePattern, NameError> {
        let one = |part: &str| {
            if part.is_empty() || part.contains('/') {
                return Err(NameError::Form(text.to_owned(), form));
            }
            Ok(Glob::parse(&format!("/{part}"))?)
        };
        Ok(NamePattern { text: text.to_owned(), namespace: namespace.map(one).transpose()?, name: one(name)? })
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a cgroup with these names is of that pod; `None` while its names are not known and its uid does not tell.
    #[must_use]
    pub fn takes_pod(&self, names: &Names) -> Option<bool> {
        if names.pod_uid.as_deref() == Some(self.text.as_str()) {
            return Some(true);
        }
        let Some(pod) = &names.named.pod else { return if names.pod_uid.is_some() { None } else { Some(false) } };
        let of_namespace = |glob: &Glob| names.named.namespace.as_ref().is_some_and(|namespace| matches(glob, namespace));
        Some(matches(&self.name, pod) && self.namespace.as_ref().is_none_or(of_namespace))
    }

    /// Whether a cgroup with these names is of that container; `None` while its name is not known and its id does not tell.
    #[must_use]
    pub fn takes_container(&self, names: &Names) -> Option<bool> {
        let Some(id) = &names.container else { return Some(false) };
        if self.text.len() >= SHORTEST_ID && id.starts_with(&self.text) {
            return Some(true);
        }
        names.named.name.as_ref().map(|name| matches(&self.name, name))
    }
}

fn matches(glob: &Glob, name: &str) -> bool {
    // A name from a label may hold a slash, which no pattern means.
    !name.contains('/') && glob.matches_itself(&format!("/{name}"))
}

/// Whether any of the patterns takes it, or there is none: yes as soon as one does, no when all say so.
#[must_use]
pub fn any(patterns: &[NamePattern], takes: impl Fn(&NamePattern) -> Option<bool>) -> Option<bool> {
    if patterns.is_empty() {
        return Some(true);
    }
    let mut all = Some(false);
    for pattern in patterns {
        match takes(pattern) {
            Some(true) => return Some(true),
            Some(false) => {}
            None => all = None,
        }
    }
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::containers::Named;

    fn names(container: Option<&str>, name: Option<&str>, pod: Option<&str>) -> Names {
        let named = Named { name: name.map(Into::into), pod: pod.map(Into::into), namespace: Some("shop".into()), ..Named::default() };
        Names { pod_uid: Some("6b21aa11-0c1d".into()), container: container.map(Into::into), runtime: None, named }
    }

    #[test]
    fn pods_by_name_namespace_and_uid() {
        let cart = names(None, None, Some("cart-7"));
        for (pattern, takes) in [
            ("cart-7", true),
            ("cart-*", true),
            ("shop/cart-7", true),
            ("*/cart-7", true),
            ("6b21aa11-0c1d", true),
            ("cart", false),
            ("x/cart-7", false),
        ] {
            assert_eq!(NamePattern::pod(pattern).unwrap().takes_pod(&cart), Some(takes), "{pattern}");
        }
        let unnamed = names(None, None, None);
        assert_eq!(NamePattern::pod("cart-7").unwrap().takes_pod(&unnamed), None);
        assert_eq!(NamePattern::pod("6b21aa11-0c1d").unwrap().takes_pod(&unnamed), Some(true));
        assert_eq!(NamePattern::pod("cart-7").unwrap().takes_pod(&Names::default()), Some(false), "it is of no pod");
    }

    #[test]
    fn containers_by_name_and_by_the_beginning_of_their_id() {
        let web = names(Some("9f8c2e0c4c6a5d3f"), Some("web"), Some("cart-7"));
        for (pattern, takes) in [("web", true), ("w*", true), ("9f8c2e0c4c6a", true), ("9f8c2", false), ("we", false)] {
            assert_eq!(NamePattern::container(pattern).unwrap().takes_container(&web), Some(takes), "{pattern}");
        }
        let unnamed = names(Some("9f8c2e0c4c6a5d3f"), None, None);
        assert_eq!(NamePattern::container("web").unwrap().takes_container(&unnamed), None);
        assert_eq!(NamePattern::container("web").unwrap().takes_container(&names(None, None, Some("cart-7"))), Some(false));
    }

    #[test]
    fn one_yes_is_enough_and_no_takes_all() {
        let web = names(Some("9f8c2e0c4c6a5d3f"), Some("web"), None);
        let patterns: Vec<NamePattern> = ["db", "web"].iter().map(|text| NamePattern::container(text).unwrap()).collect();
        assert_eq!(any(&patterns, |pattern| pattern.takes_container(&web)), Some(true));
        assert_eq!(any(&patterns[..1], |pattern| pattern.takes_container(&web)), Some(false));
        assert_eq!(any(&[], |_| None), Some(true));
        assert_eq!(any(&patterns, |_| None), None);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in ["", "a/b/c", "/a", "a/", ".", "a/.."] {
            assert!(NamePattern::pod(bad).is_err(), "{bad}");
        }
        assert!(NamePattern::container("a/b").is_err());
    }
}
