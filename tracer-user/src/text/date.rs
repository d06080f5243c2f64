//! Wall-clock time as text.

use std::time::SystemTime;

/// A time without what file names and ids should not have: `20261201T101112Z`.
#[must_use]
pub fn compact(rfc3339: &str) -> String {
    rfc3339.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// RFC 3339 in UTC, to the second. Days to a date: Howard Hinnant's civil_from_days.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = ((seconds / 86400) as i64, seconds % 86400);
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Seconds since 1970 of a time as [`rfc3339`] writes it; `None` for any other text. Date to days: Howard Hinnant's days_from_civil.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
    if bytes.len() != 20 || separators.iter().any(|(at, separator)| bytes[*at] != *separator) {
        return None;
    }
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u16>().ok().map(i64::from);
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Some(days * 86400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_795_218_065), "2026-11-20T23:41:05Z");
    }

    #[test]
    fn what_was_written_is_understood_and_nothing_else() {
        for seconds in [0, 951_782_400, 951_868_799, 951_868_800, 1_795_218_065, 4_107_542_399] {
            let text = rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(parse_rfc3339(&text), i64::try_from(seconds).ok(), "{text}");
        }
        for text in ["", "2026-11-20", "2026-11-20T23:41:05+01:00", "2026-13-20T23:41:05Z", "2026-11-20T2é:41:5Z", "+026-11-20T23:41:05Z "]
        {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
