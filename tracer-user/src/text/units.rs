//! Bytes, rates and durations as people write and read them.
//!
//! Pure text in, numbers out, and back. It never rounds a parsed value, and it never prints an unknown as zero: callers hold the `Option`.
//!
//! One rule for sizes: a bare letter or an `i` is a power of 1024 (`64K`, `64Ki`, `64KiB`), a letter followed by `B` is a power of 1000
//! (`64kB`, `64MB`), a bare number is bytes. Output is always binary (`64.0 MiB`), except [`megabytes`].

use std::time::Duration;

/// Names of the binary units, by power of 1024.
const BINARY: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Longest duration that is believed to be meant: ten years of 365 days.
pub const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Largest size that is believed to be meant: one exbibyte.
pub const MAX_SIZE: u64 = 1 << 60;

/// Why a size or a duration was refused. The text names the input and the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a number with a unit.
    #[error("{0:?} is not a size: write a number and a unit, such as 64MiB, 1.5G or 64MB")]
    NotSize(String),
    /// Not a number with a unit.
    #[error("{0:?} is not a duration: write numbers with units, such as 30s, 5m, 1h30m or 500ms")]
    NotDuration(String),
    /// Zero.
    #[error("{0:?} is zero: give a value above zero")]
    Zero(String),
    /// Below zero.
    #[error("{0:?} is negative: give a value above zero")]
    Negative(String),
    /// Beyond [`MAX_SIZE`] or [`MAX_DURATION`].
    #[error("{0:?} is too large: at most {1}")]
    TooLarge(String, &'static str),
}

/// `15.9 GiB`, `64.0 MiB`, `0 B`; from 1000 on the next unit: `1.0 GiB` for 1020 MiB.
#[must_use]
pub fn bytes(value: u64) -> String {
    let power = power_of(value);
    format!("{} {}", in_unit(value, power), BINARY[power])
}

/// `+1.0 MiB`, `-512 B`, `0 B`.
#[must_use]
pub fn signed(value: i64) -> String {
    let sign = match value {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    format!("{sign}{}", bytes(value.unsigned_abs()))
}

/// `15.9 of 16.0 GiB`: both in one unit, unless the part would vanish in it (`3.0 MiB of 16.0 GiB`).
#[must_use]
pub fn part_of(part: u64, whole: u64) -> String {
    let power = power_of(part.max(whole));
    if power_of(part) + 1 < power || (power > 0 && tenths(part, power) == 0) {
        return format!("{} of {}", bytes(part), bytes(whole));
    }
    format!("{} of {} {}", in_unit(part, power), in_unit(whole, power), BINARY[power])
}

/// `+41 MiB/min`, from bytes a second. Decimals only below ten. `None` for what is not a number.
#[must_use]
pub fn rate_per_minute(bytes_per_second: f64) -> Option<String> {
    let value = bytes_per_second * 60.0;
    if !value.is_finite() {
        return None;
    }
    let sign = if value.abs() < 0.5 {
        ""
    } else if value > 0.0 {
        "+"
    } else {
        "-"
    };
    // Saturates: a float beyond u64 is absurd already.
    let magnitude = value.abs().round() as u64;
    let power = power_of(magnitude);
    let tenths = tenths(magnitude, power);
    let number = if power == 0 || tenths >= 100 { format!("{}", (tenths + 5) / 10) } else { in_unit(magnitude, power) };
    Some(format!("{sign}{number} {}/min", BINARY[power]))
}

/// `41 MB`: decimal, as a reader compares it with other tools' cost. Rounds to the nearest; below half a megabyte `< 1 MB`.
#[must_use]
pub fn megabytes(value: u64) -> String {
    match value {
        0 => "0 MB".to_owned(),
        1..500_000 => "< 1 MB".to_owned(),
        _ => format!("{} MB", (u128::from(value) + 500_000) / 1_000_000),
    }
}

/// `350 ms`, `45 s`, `2 min 20 s`, `1 h 30 min`, `3 d 4 h`: the two largest units that say something.
#[must_use]
pub fn duration(value: Duration) -> String {
    if value < Duration::from_secs(1) {
        return format!("{} ms", value.as_millis());
    }
    let seconds = value.as_secs();
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| {
        if small == 0 { format!("{large} {large_unit}") } else { format!("{large} {large_unit} {small} {small_unit}") }
    };
    if days > 0 {
        two(days, "d", hours, "h")
    } else if hours > 0 {
        two(hours, "h", minutes, "min")
    } else if minutes > 0 {
        two(minutes, "min", rest, "s")
    } else {
        format!("{rest} s")
    }
}

/// [`duration`] of a float, `None` if it is negative, not a number or beyond any clock.
#[must_use]
pub fn seconds(value: f64) -> Option<String> {
    Duration::try_from_secs_f64(value).ok().map(duration)
}

/// Reads a size: `4096`, `64K`, `64KiB`, `1.5G` (powers of 1024), `64MB` (powers of 1000).
///
/// # Errors
/// When the text is no size, or not between 1 byte and [`MAX_SIZE`]. A fraction of a byte is dropped.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let not_size = || UnitError::NotSize(text.to_owned());
    let trimmed = unsigned(text).ok_or_else(|| UnitError::Negative(text.to_owned()))?;
    let (number, unit) = split_number(trimmed).ok_or_else(not_size)?;
    let factor = size_factor(unit.trim_start()).ok_or_else(not_size)?;
    let value = number.times(factor).filter(|value| *value <= u128::from(MAX_SIZE));
    match value.map(u64::try_from) {
        Some(Ok(0)) => Err(UnitError::Zero(text.to_owned())),
        Some(Ok(value)) => Ok(value),
        _ => Err(UnitError::TooLarge(text.to_owned(), "1EiB")),
    }
}

/// Reads a duration: `30s`, `5m`, `1h30m`, `500ms`, `1.5h`, `2d`. A unit is required, each at most once, largest first.
///
/// # Errors
/// When the text is no duration, or not between 1 nanosecond and [`MAX_DURATION`].
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let not_duration = || UnitError::NotDuration(text.to_owned());
    let too_large = || UnitError::TooLarge(text.to_owned(), "3650d");
    let mut rest = unsigned(text).ok_or_else(|| UnitError::Negative(text.to_owned()))?;
    let mut total: u128 = 0;
    let mut last_unit = u128::MAX;
    while !rest.is_empty() {
        let (number, after) = split_number(rest).ok_or_else(not_duration)?;
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (name, next) = after.split_at(end);
        let unit = duration_unit(name).filter(|unit| *unit < last_unit).ok_or_else(not_duration)?;
        last_unit = unit;
        total = number.times(unit).and_then(|value| total.checked_add(value)).ok_or_else(too_large)?;
        rest = next.trim_start();
    }
    if last_unit == u128::MAX {
        return Err(not_duration());
    }
    if total > MAX_DURATION.as_nanos() {
        return Err(too_large());
    }
    match u64::try_from(total) {
        Ok(0) => Err(UnitError::Zero(text.to_owned())),
        Ok(nanoseconds) => Ok(Duration::from_nanos(nanoseconds)),
        Err(_) => Err(too_large()),
    }
}

/// The unit in which a value has one to four digits before the point after rounding to tenths.
fn power_of(value: u64) -> usize {
    let mut power = 0;
    while power + 1 < BINARY.len() && (if power == 0 { value >= 1024 } else { tenths(value, power) >= 10_000 }) {
        power += 1;
    }
    power
}

/// Tenths of the unit, rounded to the nearest.
fn tenths(value: u64, power: usize) -> u128 {
    let unit = 1_u128 << (10 * power);
    (u128::from(value) * 10 + unit / 2) / unit
}

fn in_unit(value: u64, power: usize) -> String {
    if power == 0 {
        return value.to_string();
    }
    let tenths = tenths(value, power);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// A decimal number, exactly: digits over a power of ten.
struct Decimal {
    digits: u128,
    scale: u128,
}

impl Decimal {
    fn times(&self, factor: u128) -> Option<u128> {
        Some(self.digits.checked_mul(factor)? / self.scale)
    }
}

/// The text without a plus sign; `None` if it is negative.
fn unsigned(text: &str) -> Option<&str> {
    let text = text.trim();
    if text.starts_with('-') { None } else { Some(text.strip_prefix('+').unwrap_or(text)) }
}

/// Splits `1.5G` into 1.5 and `G`. At most 20 digits before and 9 after the point.
fn split_number(text: &str) -> Option<(Decimal, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let malformed = whole.is_empty() || whole.len() > 20 || fraction.len() > 9 || number.ends_with('.') || fraction.contains('.');
    if malformed {
        return None;
    }
    let digits = format!("{whole}{fraction}").parse().ok()?;
    let scale = fraction.bytes().fold(1, |scale, _| scale * 10);
    Some((Decimal { digits, scale }, unit))
}

fn size_factor(unit: &str) -> Option<u128> {
    let unit = unit.to_ascii_lowercase();
    if unit.is_empty() || unit == "b" {
        return Some(1);
    }
    let power = match unit.as_bytes().first()? {
        b'k' => 1,
        b'm' => 2,
        b'g' => 3,
        b't' => 4,
        b'p' => 5,
        b'e' => 6,
        _ => return None,
    };
    match unit.get(1..)? {
        "" | "i" | "ib" => Some(1 << (10 * power)),
        "b" => Some(1000_u128.pow(power)),
        _ => None,
    }
}

/// Nanoseconds of a unit.
fn duration_unit(name: &str) -> Option<u128> {
    Some(match name {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" | "sec" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn bytes_use_the_unit_that_reads_best() {
        for (value, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (64 << 20, "64.0 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (17_072_495_001, "15.9 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(value), text);
        }
        assert_eq!(signed(-512), "-512 B");
        assert_eq!(signed(1 << 20), "+1.0 MiB");
        assert_eq!(signed(0), "0 B");
        assert_eq!(signed(i64::MIN), "-8.0 EiB");
    }

    #[test]
    fn a_part_of_a_whole_shares_its_unit() {
        assert_eq!(part_of(17_072_495_001, 16 << 30), "15.9 of 16.0 GiB");
        assert_eq!(part_of(3 << 20, 16 << 30), "3.0 MiB of 16.0 GiB");
        assert_eq!(part_of(700 << 20, 1 << 30), "0.7 of 1.0 GiB");
        assert_eq!(part_of(0, 16 << 30), "0 B of 16.0 GiB");
        assert_eq!(part_of(12, 100), "12 of 100 B");
        assert_eq!(part_of(2 << 30, 1 << 30), "2.0 of 1.0 GiB");
    }

    #[test]
    fn rates_and_megabytes() {
        assert_eq!(rate_per_minute(41.0 * 1_048_576.0 / 60.0).as_deref(), Some("+41 MiB/min"));
        assert_eq!(rate_per_minute(-1.5 * 1024.0 / 60.0).as_deref(), Some("-1.5 KiB/min"));
        assert_eq!(rate_per_minute(0.0).as_deref(), Some("0 B/min"));
        assert_eq!(rate_per_minute(f64::NAN), None);
        assert_eq!(megabytes(41_000_000), "41 MB");
        assert_eq!(megabytes(9), "< 1 MB");
    }

    #[test]
    fn durations_keep_two_units() {
        for (milliseconds, text) in [
            (350, "350 ms"),
            (45_000, "45 s"),
            (140_000, "2 min 20 s"),
            (5_400_000, "1 h 30 min"),
            (86_400_000 * 3 + 4 * 3_600_000, "3 d 4 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(milliseconds)), text);
        }
        assert_eq!(seconds(-1.0), None);
        assert_eq!(seconds(f64::INFINITY), None);
        assert_eq!(seconds(1.0e300), None);
    }

    #[test]
    fn sizes_are_read_by_one_rule() {
        for (text, value) in [
            ("4096", 4096),
            ("64MB", 64_000_000),
            ("64M", 64 << 20),
            ("64m", 64 << 20),
            ("64Mi", 64 << 20),
            ("16GiB", 16 << 30),
            ("16 GiB", 16 << 30),
            ("1.5G", 3 << 29),
            ("1kB", 1000),
            ("1EiB", 1 << 60),
            ("+1B", 1),
        ] {
            assert_eq!(parse_size(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn bad_sizes_say_what_is_wrong() {
        for text in ["", "M", "12X", "1..5G", ".5G", "1.G", "1GiBB", "G12", "1e9", "٣M", "1.0000000001G", "999999999999999999999"] {
            assert!(matches!(parse_size(text), Err(UnitError::NotSize(_))), "{text}");
        }
        assert!(matches!(parse_size("0"), Err(UnitError::Zero(_))));
        assert!(matches!(parse_size("0.1B"), Err(UnitError::Zero(_))));
        assert!(matches!(parse_size("-1M"), Err(UnitError::Negative(_))));
        assert!(matches!(parse_size("2EiB"), Err(UnitError::TooLarge(..))));
        assert!(matches!(parse_size("99999999999999999999EiB"), Err(UnitError::TooLarge(..))));
    }

    #[test]
    fn durations_are_read() {
        for (text, milliseconds) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1.5h", 5_400_000),
            ("1h 30m", 5_400_000),
            ("3650d", 315_360_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn bad_durations_say_what_is_wrong() {
        for text in ["", "5", "s", "5x", "30m1h", "1s1s", "5 5s", "1h30", "٣s"] {
            assert!(matches!(parse_duration(text), Err(UnitError::NotDuration(_))), "{text}");
        }
        assert!(matches!(parse_duration("0s"), Err(UnitError::Zero(_))));
        assert!(matches!(parse_duration("-5s"), Err(UnitError::Negative(_))));
        assert!(matches!(parse_duration("3651d"), Err(UnitError::TooLarge(..))));
        assert!(matches!(parse_duration("99999999999999999999d"), Err(UnitError::TooLarge(..))));
    }
}
