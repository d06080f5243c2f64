//! Running other programs, with errors that name the command.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::supervise;

/// Runs to the end; an exit status other than 0 is an error. Output goes where ours goes.
pub fn run(command: &mut Command) -> Result<()> {
    let _guard = supervise::guard(command);
    let status = command.status().with_context(|| format!("cannot run {}", line(command)))?;
    ensure!(status.success(), "{} failed: {status}", line(command));
    Ok(())
}

/// Runs to the end and returns its standard output; standard error is shown only with a failure.
pub fn output(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&bytes(command)?).trim_end().to_owned())
}

/// Runs to the end and returns its standard output; standard error goes where ours goes.
pub fn stdout(command: &mut Command) -> Result<String> {
    let _guard = supervise::guard(command);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {}", line(command)))?;
    ensure!(output.status.success(), "{} failed: {}", line(command), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As [`output`], unchanged bytes.
pub fn bytes(command: &mut Command) -> Result<Vec<u8>> {
    let _guard = supervise::guard(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", line(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed: {}\n{}", line(command), output.status, stderr.trim_end());
    }
    Ok(output.stdout)
}

/// Hands over lines without their end until there are no more or nobody wants them.
pub fn read_lines(output: impl Read, mut wanted: impl FnMut(Vec<u8>) -> bool) {
    let mut output = BufReader::new(output);
    loop {
        let mut line = Vec::new();
        // A program that never ends its line must not fill our memory.
        match (&mut output).take(1 << 16).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            line.pop();
        }
        if !wanted(line) {
            return;
        }
    }
}

/// Shows a line of another program as it is.
pub fn show(line: &[u8]) {
    let mut out = io::stdout().lock();
    // A closed pipe must not end a test run in the middle.
    let _ = out.write_all(line).and_then(|()| out.write_all(b"\n"));
}

/// The command as one would type it, for messages.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_hostile_bytes_and_lose_their_end_only() {
        let mut lines = Vec::new();
        read_lines(&b"a\r\n\n\xff\x00b\nlast"[..], |line| {
            lines.push(line);
            true
        });
        assert_eq!(lines, [b"a".to_vec(), b"".to_vec(), b"\xff\x00b".to_vec(), b"last".to_vec()]);
    }

    #[test]
    fn a_failure_names_the_command_and_shows_its_errors() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).expect_err("it fails");
        let text = format!("{error:#}");
        assert!(text.contains("sh -c") && text.contains("why") && text.contains('3'), "{text}");
        assert!(run(&mut Command::new("/nonexistent/program")).is_err());
    }
}
