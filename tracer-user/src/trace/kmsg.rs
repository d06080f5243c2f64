//! The kernel's log, from now on: records of /dev/kmsg as they come. Never read to make an autopsy where the kernel half has the figure; it
//! is what autopsies are compared with.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
};

/// Longest record, bytes (`CONSOLE_EXT_LOG_MAX` and `PRINTK_MESSAGE_MAX` are 8192 and 2048).
const MOST_BYTES: usize = 8192;
/// Messages kept.
const MOST_LINES: usize = 16_384;

/// A reader of the log.
#[derive(Debug)]
pub struct Kmsg {
    file: File,
    lines: Vec<String>,
    /// Records that were overwritten before they were read.
    pub overwritten: u64,
}

impl Kmsg {
    /// Opens the log behind its last record.
    ///
    /// # Errors
    /// When there is no /dev/kmsg, or it needs CAP_SYSLOG (kernel.dmesg_restrict).
    pub fn from_now() -> io::Result<Kmsg> {
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Kmsg { file, lines: Vec::new(), overwritten: 0 })
    }

    /// Messages since the beginning, as far as they are kept, with those that came since the last call.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn messages(&mut self) -> io::Result<&[String]> {
        let mut record = [0; MOST_BYTES];
        loop {
            match self.file.read(&mut record) {
                Ok(0) => break,
                Ok(length) => {
                    let record = String::from_utf8_lossy(&record[..length]);
                    self.lines.extend(crate::analyse::oom::log::messages(&record).map(str::to_owned));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // EPIPE: the next record is gone; the file stands at the oldest one that is there.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => self.overwritten += 1,
                Err(error) => return Err(error),
            }
        }
        let surplus = self.lines.len().saturating_sub(MOST_LINES);
        self.lines.drain(..surplus);
        Ok(&self.lines)
    }
}
