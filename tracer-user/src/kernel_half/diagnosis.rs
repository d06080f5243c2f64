//! The kernel half's own messages, with `-vv`: switched on before the load, read from their ring, and put in words.

use super::{BpfError, loaded::KernelHalf};
use aya_log::EbpfLogger;
use log::{Level, LevelFilter, Log, Metadata, Record};
use tracer_common::diagnosis::{Diagnosis, cause};

/// Whether somebody wants to hear them.
#[must_use]
pub fn wanted() -> bool {
    log::max_level() >= LevelFilter::Debug
}

/// aya-log's own level, which its calls compare with; 0 is below all.
#[must_use]
pub fn aya_level(on: bool) -> u8 {
    if on { aya_log::Level::Debug as u8 } else { 0 }
}

/// Reads the ring.
pub struct Listener {
    ring: EbpfLogger<Words>,
}

impl Listener {
    /// Listens to a kernel half that tells.
    pub fn new(half: &mut KernelHalf) -> Result<Listener, BpfError> {
        let ring = EbpfLogger::init_with_logger(&mut half.bpf, Words).map_err(|error| BpfError::Diagnosis(error.to_string()))?;
        Ok(Listener { ring })
    }

    /// Logs what has come since the last call.
    pub fn listen(&mut self) {
        self.ring.flush();
    }
}

/// Puts the numbers of a message in words.
struct Words;

impl Log for Words {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        log::log!(target: "memtrail::kernel", Level::Debug, "kernel half: {}", words(&record.args().to_string()));
    }

    fn flush(&self) {}
}

/// A message's numbers in words; what is not understood is shown as it is.
fn words(message: &str) -> String {
    let numbers: Option<Vec<u64>> = message.split(' ').map(|number| number.parse().ok()).collect();
    let Some(&[what, first, second]) = numbers.as_deref() else { return message.to_owned() };
    match (Diagnosis::from_number(what), cause(first)) {
        (Some(Diagnosis::FirstLoss), Some(cause)) => format!("loss {cause}: the first on its CPU, with {second} bytes behind it"),
        (Some(Diagnosis::RefusedEntry), Some(cause)) => format!("loss {cause}: a table refuses an entry: {}", refusal(second as i32)),
        (Some(Diagnosis::PictureOpened), _) => format!("picture of epoch {first} opened, epoch {second} begins"),
        (Some(Diagnosis::PictureClosed), _) => format!("picture of epoch {first} closed, {second} still open"),
        _ => message.to_owned(),
    }
}

/// Why a table refuses an entry: the errors of `bpf_map_update_elem` (kernel/bpf/hashtab.c).
fn refusal(error: i32) -> String {
    match error.wrapping_neg() {
        libc::E2BIG => "it is full (E2BIG)".to_owned(),
        libc::EBUSY | libc::EDEADLK | libc::ETIMEDOUT => format!("its lock is busy (error {error})"),
        _ => format!("error {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_words() {
        assert_eq!(words("1 1 4096"), "loss key_table_full: the first on its CPU, with 4096 bytes behind it");
        let refused = words(&format!("2 0 {}", -i64::from(libc::E2BIG) as u64));
        assert_eq!(refused, "loss sample_table_full: a table refuses an entry: it is full (E2BIG)");
        assert!(words(&format!("2 0 {}", -i64::from(libc::EBUSY) as u64)).ends_with("its lock is busy (error -16)"));
        assert_eq!(words("3 4 6"), "picture of epoch 4 opened, epoch 6 begins");
        assert_eq!(words("4 4 0"), "picture of epoch 4 closed, 0 still open");
    }

    #[test]
    fn what_is_not_understood_is_shown_as_it_is() {
        for message in ["", "1", "1 2", "1 99 0", "7 1 1", "1 2 x", "1 2 3 4"] {
            assert_eq!(words(message), message);
        }
    }
}
