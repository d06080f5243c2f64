//! Who may ask. Pure: what a request says of itself in, a refusal out.
//!
//! A page in somebody's browser can send requests to a server on the same host, also under a name of its own that resolves to it: so the name
//! that is asked for must be one of ours, and what a browser says of where a request comes from must not be another site.

use hyper::{HeaderMap, Method, StatusCode, header};
use std::net::IpAddr;

/// Who may ask a listener.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Names and addresses by which it may be asked, besides those of loopback; `None` for a Unix socket, where the file's mode says who may.
    pub hosts: Option<Vec<String>>,
    /// What must be shown, if anything.
    pub token: Option<String>,
}

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the answer.
    pub status: StatusCode,
    /// One line.
    pub text: &'static str,
}

const fn refusal(status: StatusCode, text: &'static str) -> Refusal {
    Refusal { status, text }
}

/// Names that loopback has everywhere.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Says whether a request may be answered. `is_open` is what needs no token.
///
/// # Errors
/// Why it may not.
pub fn check(rules: &Rules, method: &Method, authority: Option<&str>, headers: &HeaderMap, is_open: bool) -> Result<(), Refusal> {
    if method != Method::GET && method != Method::HEAD {
        return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "nothing can be changed here: GET only"));
    }
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    if has_body {
        return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, "a question has no body here"));
    }
    if let Some(hosts) = &rules.hosts {
        // The request's own address stands above the header (RFC 9112, 3.2.2).
        let host = authority.or_else(|| headers.get(header::HOST)?.to_str().ok());
        let is_known = |host: &str| {
            let name = without_port(host);
            LOOPBACK.iter().any(|known| name.eq_ignore_ascii_case(known)) || hosts.iter().any(|known| name.eq_ignore_ascii_case(known))
        };
        if headers.get_all(header::HOST).iter().count() > 1 || !host.is_some_and(is_known) {
            return Err(refusal(StatusCode::MISDIRECTED_REQUEST, "asked for under a name that is not this server's: see --allow-host"));
        }
    }
    if headers.contains_key(header::ORIGIN) || headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes() == b"cross-site") {
        return Err(refusal(StatusCode::FORBIDDEN, "asked for by another site's page"));
    }
    if let Some(token) = rules.token.as_deref().filter(|_| !is_open) {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if !shown.is_some_and(|shown| is_equal(shown, token.as_bytes())) {
            return Err(refusal(StatusCode::UNAUTHORIZED, "the token is missing or wrong: Authorization: Bearer TOKEN"));
        }
    }
    Ok(())
}

/// `host:port` without the port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    }
}

/// Compares in the same time wherever they differ; the length is no secret.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differing) == 0
}

/// Whether only this host reaches an address.
#[must_use]
pub fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => address.is_loopback() || address.to_ipv4_mapped().is_some_and(|address| address.is_loopback()),
    }
}

/// Reads a token: one line of visible characters, in a file that no other user can read.
///
/// # Errors
/// In one line, what is wrong with the file.
pub fn read_token(path: &std::path::Path) -> Result<String, String> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!("{}: others may read it (mode {:03o}): chmod 600", path.display(), mode & 0o777));
    }
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(file, 4096), &mut text).map_err(failed)?;
    let token = text.trim_end_matches(['\n', '\r']);
    if token.len() < 16 || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{}: a token is one line of at least 16 visible characters", path.display()));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn status(rules: &Rules, pairs: &[(&'static str, &str)]) -> u16 {
        check(rules, &Method::GET, None, &headers(pairs), false).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn only_names_of_ours_are_answered() {
        let rules = Rules { hosts: Some(vec!["node1.example".to_owned(), "10.0.0.7".to_owned()]), token: None };
        for (host, expected) in [
            ("localhost", 200),
            ("LOCALHOST:9774", 200),
            ("127.0.0.1:1", 200),
            ("[::1]:9774", 200),
            ("[::1]", 200),
            ("node1.example:80", 200),
            ("10.0.0.7", 200),
            ("evil.example", 421),
            ("evil.example:9774", 421),
            ("localhost.evil.example", 421),
            ("127.0.0.1.evil.example:80", 421),
            ("localhost:9774@evil", 421),
            ("::1", 421),
            ("", 421),
        ] {
            assert_eq!(status(&rules, &[("host", host)]), expected, "{host}");
        }
        assert_eq!(status(&rules, &[]), 421);
        assert_eq!(status(&rules, &[("host", "localhost"), ("host", "evil")]), 421);
        // Who can open the socket may ask under any name.
        assert_eq!(status(&Rules::default(), &[]), 200);
        let of_authority = |authority| check(&rules, &Method::GET, Some(authority), &headers(&[("host", "localhost")]), false).is_ok();
        assert!(of_authority("127.0.0.1:9774") && !of_authority("evil"));
    }

    #[test]
    fn other_sites_pages_bodies_and_changes_are_refused() {
        let rules = Rules::default();
        assert_eq!(status(&rules, &[("origin", "http://evil")]), 403);
        assert_eq!(status(&rules, &[("origin", "null")]), 403);
        assert_eq!(status(&rules, &[("sec-fetch-site", "cross-site")]), 403);
        assert_eq!(status(&rules, &[("sec-fetch-site", "same-origin")]), 200);
        assert_eq!(status(&rules, &[("content-length", "0")]), 200);
        assert_eq!(status(&rules, &[("content-length", "1")]), 413);
        assert_eq!(status(&rules, &[("transfer-encoding", "chunked")]), 413);
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::CONNECT] {
            assert_eq!(check(&rules, &method, None, &HeaderMap::new(), false).unwrap_err().status, 405, "{method}");
        }
    }

    #[test]
    fn a_token_is_compared_whole() {
        let rules = Rules { hosts: None, token: Some("0123456789abcdef".to_owned()) };
        let shown = |value: &str| status(&rules, &[("authorization", value)]);
        assert_eq!(shown("Bearer 0123456789abcdef"), 200);
        for wrong in [
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Bearer 0123456789abcdeg",
            "Bearer ",
            "0123456789abcdef",
            "Basic 0123456789abcdef",
        ] {
            assert_eq!(shown(wrong), 401, "{wrong}");
        }
        assert_eq!(status(&rules, &[]), 401);
        assert!(check(&rules, &Method::GET, None, &HeaderMap::new(), true).is_ok(), "what is open needs none");
    }

    #[test]
    fn a_tokens_file_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let read = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read_token(&path)
        };
        assert_eq!(read("0123456789abcdef\n", 0o600).unwrap(), "0123456789abcdef");
        assert!(read("0123456789abcdef\n", 0o640).unwrap_err().contains("chmod 600"));
        for bad in ["", "short\n", "0123456789abcdef\nmore\n", "0123456789 abcdef"] {
            assert!(read(bad, 0o600).is_err(), "{bad:?}");
        }
        assert!(read_token(&folder.path().join("none")).unwrap_err().contains("none"));
    }

    #[test]
    fn loopback_is_what_only_this_host_reaches() {
        for (text, expected) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("0.0.0.0", false),
            ("::", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(text.parse().unwrap()), expected, "{text}");
        }
    }
}
