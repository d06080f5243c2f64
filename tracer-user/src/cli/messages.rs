//! Messages on standard error: one line each, warnings always, more with `--verbose`.

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Messages;

impl Log for Messages {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Other crates' messages are about their own affairs: they are for those who ask for one level more.
        if !record.target().starts_with("memtrail") && record.level() >= log::max_level() {
            return;
        }
        let level = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            _ => "",
        };
        eprintln!("memtrail: {level}{}", record.args().to_string().replace(['\n', '\r'], " "));
    }

    fn flush(&self) {}
}

/// Shows messages from now on: warnings, with `-v` what happens, with `-vv` details and
/// the kernel half's own messages, with `-vvv` what other crates say.
pub fn show(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        2 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    // Fails only if another logger is set, as in a test that uses this crate.
    if log::set_logger(&Messages).is_ok() {
        log::set_max_level(level);
    }
}
