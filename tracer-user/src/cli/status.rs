//! Exit statuses and the one line that says what went wrong.

use crate::analyse::figures;
use std::collections::BTreeMap;

/// Could not run, or failed.
pub const FAILED: u8 = 1;
/// Finished, but something was lost or a kind is not followed.
pub const INCOMPLETE: u8 = 3;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// memtrail failed although a command was to be run.
pub const FAILED_WITH_COMMAND: u8 = 125;

/// Options that do not go together, though each is right: [`USAGE`].
#[derive(Debug, thiserror::Error)]
#[error("{0} (see --help)")]
pub struct Conflict(pub String);

/// The exit status of [`Conflict`]; `None` for other errors.
#[must_use]
pub fn of_conflict(error: &anyhow::Error) -> Option<u8> {
    error.downcast_ref::<Conflict>().map(|_| USAGE)
}

/// Prints an error as one line: the chain of causes, without those that the line above already says.
pub fn complain(error: &anyhow::Error) {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    eprintln!("memtrail: {}", line.replace('\n', " "));
}

/// Prints help or the version where that was asked for, else what is wrong with the command line, as one line.
pub fn usage(error: &clap::Error) -> u8 {
    if !error.use_stderr() || error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // A reader that went away is no failure.
        let _ = error.print();
        return u8::try_from(error.exit_code()).unwrap_or(USAGE);
    }
    eprintln!("memtrail: {}", usage_line(&error.render().to_string()));
    USAGE
}

/// clap's paragraphs as one line, without the usage, which `--help` shows.
fn usage_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let text = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    format!("{} (see --help)", text.strip_prefix("error: ").unwrap_or(&text))
}

/// Whether the losses of a report are more than what costs no bytes or is bounded by reconciliation: recursion misses, files that
/// found no room in their table, whose bytes stand under `other files`, and calls that changed address space, which is not memory. A
/// sample whose uncharge the kernel passed over, since the program ran already, is stale for that reason: as many of them as were passed
/// over are no loss of their own.
#[must_use]
pub fn lost(losses: &BTreeMap<String, Option<u64>>) -> bool {
    let passed_over = losses.get("recursion_misses").copied().flatten().unwrap_or(0);
    let allowed = |cause: &str| if cause == "stale_sample" { passed_over } else { 0 };
    losses.iter().any(|(cause, count)| !figures::NO_BYTES.contains(&cause.as_str()) && count.is_some_and(|count| count > allowed(cause)))
}

#[cfg(test)]
mod tests {
    use super::{lost, usage_line};

    #[test]
    fn what_the_kernel_passed_over_is_no_loss_of_another_cause() {
        let losses = |stale, passed_over| {
            lost(&[("stale_sample", stale), ("recursion_misses", passed_over)].map(|(cause, n)| (cause.to_owned(), n)).into())
        };
        assert!(!losses(Some(0), Some(18)));
        assert!(!losses(Some(16), Some(18)));
        assert!(losses(Some(19), Some(18)));
        assert!(losses(Some(1), None));
    }

    #[test]
    fn names_that_are_missing_are_no_loss_of_bytes() {
        let losses = |cause: &str| lost(&[(cause.to_owned(), Some(7))].into());
        let names = ["symbol_file_gone", "symbol_file_evicted", "regions_cut_short", "mapping_ranges_dropped"];
        assert!(!names.into_iter().any(losses) && losses("keys_table_full") && losses("anything_else"));
    }

    #[test]
    fn a_wrong_command_line_is_told_in_one_line() {
        let text = "error: unexpected argument '--x' found\n\n  tip: use '-- --x'\n\nUsage: memtrail record\n\nFor more information, try '--help'.\n";
        assert_eq!(usage_line(text), "unexpected argument '--x' found tip: use '-- --x' (see --help)");
    }
}
