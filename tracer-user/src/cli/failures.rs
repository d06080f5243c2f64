//! What could not be written, of many outputs: each is told once when it happens and once at the end, and none hides another.

use super::status;

/// Different failures that are kept: a trace may last for months.
const MOST: usize = 64;

/// Failures of outputs, in the order in which they happened, each once.
#[derive(Default)]
pub struct Failures(Vec<anyhow::Error>);

impl Failures {
    /// Keeps the error of `result`; its text if that was not known yet. An error names its output, so that the text tells outputs apart.
    pub fn note(&mut self, result: anyhow::Result<()>) -> Option<String> {
        let error = result.err()?;
        let text = format!("{error:#}");
        let is_new = self.0.len() < MOST && self.0.iter().all(|known| format!("{known:#}") != text);
        is_new.then(|| {
            self.0.push(error);
            text
        })
    }

    /// An error if there was one: the last is the caller's to say, as every error is, those before it are said here.
    pub fn into_result(mut self) -> anyhow::Result<()> {
        let last = self.0.pop();
        self.0.iter().for_each(status::complain);
        last.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::Failures;

    #[test]
    fn each_output_is_kept_once() {
        let mut failures = Failures::default();
        assert_eq!(failures.note(Ok(())), None);
        assert_eq!(failures.note(Err(anyhow!("a: full"))).as_deref(), Some("a: full"));
        assert_eq!(failures.note(Err(anyhow!("a: full"))), None);
        assert_eq!(failures.note(Err(anyhow!("full").context("b"))).as_deref(), Some("b: full"));
        assert_eq!(failures.0.len(), 2);
        assert_eq!(format!("{:#}", failures.into_result().unwrap_err()), "b: full");
        assert!(Failures::default().into_result().is_ok());
    }

    #[test]
    fn failures_that_are_always_new_are_bounded() {
        let mut failures = Failures::default();
        let told = (0..1000).filter(|n| failures.note(Err(anyhow!("failure {n}"))).is_some()).count();
        assert_eq!((told, failures.0.len()), (super::MOST, super::MOST));
    }
}
