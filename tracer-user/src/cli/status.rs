//! Exit statuses and the one line that says what went wrong.

/// Could not run, or failed.
pub const FAILED: u8 = 1;
/// Finished, but something was lost or a kind is not followed.
pub const INCOMPLETE: u8 = 3;
/// memtrail failed although a command was to be run.
pub const FAILED_WITH_COMMAND: u8 = 125;

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

/// Whether the losses of a report are more than what recursion misses explain.
#[must_use]
pub fn lost(losses: &std::collections::BTreeMap<String, Option<u64>>) -> bool {
    losses.iter().any(|(cause, count)| cause != "recursion_misses" && count.is_some_and(|count| count > 0))
}
