//! Messages on standard error: one line each, warnings always, more with `--verbose`.

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Messages;

impl Log for Messages {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Other crates' warnings are about their own affairs: they are for those who ask.
        if record.level() <= Level::Warn && !record.target().starts_with("memtrail") && log::max_level() < LevelFilter::Info {
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

/// Shows messages from now on: warnings, with `-v` what happens, with `-vv` details.
pub fn show(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    // Fails only if another logger is set, as in a test that uses this crate.
    if log::set_logger(&Messages).is_ok() {
        log::set_max_level(level);
    }
}
