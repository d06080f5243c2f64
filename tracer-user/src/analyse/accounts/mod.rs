//! The ledger: for each owner and kind, `stat = baseline + live - unmapped + dead descendants + unattributed`.
//!
//! Pure. Keys in, sums and their errors out; then the kernel's figure beside them, and what is left of the identity. That the
//! identity adds up proves nothing, since `unattributed` is what makes it so: tests bound it.

pub mod trend;

use crate::report::KindRow;
use std::collections::HashMap;
use tracer_common::{
    FRAME_BYTES,
    attribution::{KEY_BASELINE, KeyRecord, Sample, variance_in_frames},
    kind::Kind,
};

/// What the samples say of one kind of memory of one owner. Bytes; variances in frames squared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Charged since the start.
    pub charged: u64,
    /// Variance of `charged`.
    pub charged_variance: u64,
    /// Charged since the start and not yet uncharged. Signed: uncharges that race with the reading may come first.
    pub live: i64,
    /// Variance of `live`.
    pub live_variance: u64,
    /// Resident before the start and still charged.
    pub baseline: i64,
    /// Variance of `baseline`.
    pub baseline_variance: u64,
    /// Of both: charged, but mapped by no page table.
    pub unmapped: u64,
    /// Samples taken since the start.
    pub samples: u64,
    /// Bytes at the peak of the owner, older ones included; `None` where that is not known.
    pub peak: Option<i64>,
    /// Variance of `peak`.
    pub peak_variance: u64,
}

impl std::iter::Sum for Account {
    fn sum<I: Iterator<Item = Account>>(accounts: I) -> Account {
        accounts.fold(Account::default(), |sum, account| Account {
            charged: sum.charged + account.charged,
            charged_variance: sum.charged_variance + account.charged_variance,
            live: sum.live + account.live,
            live_variance: sum.live_variance + account.live_variance,
            baseline: sum.baseline + account.baseline,
            baseline_variance: sum.baseline_variance + account.baseline_variance,
            unmapped: sum.unmapped + account.unmapped,
            samples: sum.samples + account.samples,
            // Peaks of several owners are of several moments.
            peak: None,
            peak_variance: 0,
        })
    }
}

/// Live bytes of a key: charged less uncharged over all banks.
#[must_use]
pub fn live(record: &KeyRecord) -> i64 {
    record.live()
}

/// Charged bytes of a key.
#[must_use]
pub fn charged(record: &KeyRecord) -> u64 {
    record.charged()
}

/// Variance of what is live of a key, in frames squared.
#[must_use]
pub fn live_variance(record: &KeyRecord) -> u64 {
    record.live_variance()
}

/// What a sample still stands for: bytes, and their variance in frames squared.
#[must_use]
pub fn left(sample: &Sample) -> (u64, u64) {
    of_frames(sample, u64::try_from(sample.frames_left).unwrap_or(0).min(1 << (sample.order & 31)))
}

/// What so many frames of a sample stand for: bytes, and their variance in frames squared, as the kernel half takes it off.
#[must_use]
pub fn of_frames(sample: &Sample, frames: u64) -> (u64, u64) {
    let variance = variance_in_frames(sample.weight_per_frame, sample.order & 31).saturating_mul(frames) >> (sample.order & 31);
    (sample.weight_per_frame.saturating_mul(frames), variance)
}

/// Standard error in bytes from a variance in frames squared.
#[must_use]
pub fn standard_error(variance: u64) -> u64 {
    ((variance as f64).sqrt() * FRAME_BYTES as f64).round() as u64
}

/// Sums keys by owner and kind. `unmapped` holds, by key, the bytes that the sweep found charged but not mapped.
#[must_use]
pub fn accounts<'a>(
    keys: impl IntoIterator<Item = (&'a u64, &'a KeyRecord)>,
    unmapped: &HashMap<u64, u64>,
) -> HashMap<(u64, Kind), Account> {
    let mut accounts: HashMap<(u64, Kind), Account> = HashMap::new();
    for (identity, record) in keys {
        let Some(kind) = u8::try_from(record.key.kind).ok().and_then(Kind::from_number) else { continue };
        let account = accounts.entry((record.key.owner, kind)).or_default();
        if record.key.flags & KEY_BASELINE != 0 {
            account.baseline += live(record);
            account.baseline_variance += live_variance(record);
        } else {
            account.charged += charged(record);
            account.charged_variance += record.charged_variance;
            account.live += live(record);
            account.live_variance += live_variance(record);
            account.samples += record.samples;
        }
        account.unmapped += unmapped.get(identity).copied().unwrap_or(0);
    }
    accounts
}

/// The row of one kind. `stat` is the owner's own figure where the kernel gives one; `dead_below` what removed descendants still
/// own, where that figure includes them.
#[must_use]
pub fn row(account: &Account, stat: Option<i64>, source: &str, dead_below: Option<u64>, kind: Kind) -> KindRow {
    let unmapped = if kind == Kind::Anon { account.unmapped } else { 0 };
    let followed = account.baseline + account.live - i64::try_from(unmapped).unwrap_or(i64::MAX);
    let dead = i64::try_from(dead_below.unwrap_or(0)).unwrap_or(i64::MAX);
    KindRow {
        // A v2 difference may be slightly negative: the reader sees zero, the ledger keeps the sign in what is left.
        stat: stat.map(|stat| u64::try_from(stat).unwrap_or(0)),
        source: source.to_owned(),
        baseline: Some(u64::try_from(account.baseline).unwrap_or(0)),
        baseline_stderr: Some(standard_error(account.baseline_variance)),
        charged: Some(account.charged),
        charged_stderr: Some(standard_error(account.charged_variance)),
        live: Some(u64::try_from(account.live).unwrap_or(0)),
        live_stderr: Some(standard_error(account.live_variance)),
        unmapped: Some(unmapped),
        dead_below,
        missed: None,
        unattributed: stat.map(|stat| stat - dead - followed),
        peak: account.peak.map(|peak| u64::try_from(peak).unwrap_or(0)),
        peak_stderr: account.peak.map(|_| standard_error(account.peak_variance)),
        growth_bytes_per_s: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_common::attribution::{BANKS, KEY_OWN, Key, bank_of};

    fn record(flags: u32, charged: u64, uncharged: u64) -> KeyRecord {
        let mut record = KeyRecord {
            key: Key { owner: 7, process: 1, user_stack: 2, kernel_stack: 3, kind: Kind::Anon as u32, flags },
            charged: [0; BANKS],
            uncharged: [0; BANKS],
            live_variance: [0; BANKS],
            charged_variance: 16,
            samples: 3,
            last_ns: 2,
            peak_mark: 0,
            peak_live: 0,
            peak_variance: 0,
        };
        record.charged[bank_of(0)] = charged;
        record.uncharged[bank_of(0)] = uncharged;
        record
    }

    #[test]
    fn baseline_and_live_are_kept_apart_and_unmapped_is_of_both() {
        let keys = HashMap::from([(1, record(0, 1000, 400)), (2, record(KEY_BASELINE, 500, 100))]);
        let accounts = accounts(&keys, &HashMap::from([(1, 50), (2, 5)]));
        let account = accounts[&(7, Kind::Anon)];
        assert_eq!((account.charged, account.live, account.baseline, account.unmapped), (1000, 600, 400, 55));
        assert_eq!(account.samples, 3);
    }

    #[test]
    fn what_is_left_of_the_identity_is_signed() {
        let account = Account { live: 600, baseline: 400, unmapped: 55, ..Account::default() };
        assert_eq!(row(&account, Some(1000), "stat", None, Kind::Anon).unattributed, Some(55));
        assert_eq!(row(&account, Some(900), "stat", Some(10), Kind::Anon).unattributed, Some(-55));
        assert_eq!(row(&account, None, "stat", None, Kind::Anon).unattributed, None);
        assert_eq!(row(&account, Some(-1), "stat", None, Kind::Anon).stat, Some(0));
    }

    #[test]
    fn a_standard_error_is_in_bytes() {
        assert_eq!(standard_error(2), 5793, "4096 times the square root of two");
        assert_eq!(standard_error(16), 4 * FRAME_BYTES);
        assert_eq!(standard_error(0), 0);
    }

    #[test]
    fn a_sample_counts_for_what_is_left_of_it() {
        let sample = Sample {
            key: 1,
            weight_per_frame: 8 * 4096,
            address: 0,
            file: 1,
            charged_ns: 0,
            epoch: 0,
            process: 0,
            user_stack: 0,
            kernel_stack: 0,
            frames_left: 2,
            tid: 0,
            order: 2,
        };
        // Four frames that stood for 32: w (w - s) = 32 * 28, of which half is left.
        assert_eq!(left(&sample), (2 * 8 * 4096, 32 * 28 / 2));
        assert_eq!(left(&Sample { frames_left: -1, ..sample }), (0, 0));
        assert_eq!(left(&Sample { frames_left: 9, ..sample }), left(&Sample { frames_left: 4, ..sample }), "a folio has no more frames");
        assert_eq!(of_frames(&sample, 1), (8 * 4096, 32 * 28 / 4));
        // No word read while it is written makes it fail.
        assert_eq!(left(&Sample { order: 32 + 2, ..sample }), left(&sample));
    }

    #[test]
    fn accounts_of_several_keys_are_their_sums() {
        let two = |flags| [record(flags, 1000, 400), KeyRecord { charged_variance: 9, samples: 4, ..record(flags, 70, 20) }];
        let mut records = [two(0), two(KEY_BASELINE | KEY_OWN)].concat();
        for (at, record) in records.iter_mut().enumerate() {
            record.live_variance[at] = 1 << at;
        }
        records.push(KeyRecord { key: Key { kind: Kind::File as u32, ..records[0].key }, ..records[0] });
        records.push(KeyRecord { key: Key { kind: 99, ..records[0].key }, ..records[0] });
        let keys: HashMap<u64, KeyRecord> = (1..).zip(records).collect();
        let accounts = accounts(&keys, &HashMap::from([(1, 5), (2, 60), (3, 700), (77, 8000)]));
        let anon = Account {
            charged: 1070,
            charged_variance: 25,
            live: 650,
            live_variance: 1 + 2,
            baseline: 650,
            baseline_variance: 4 + 8,
            unmapped: 765,
            samples: 7,
            ..Account::default()
        };
        assert_eq!(accounts[&(7, Kind::Anon)], anon);
        let file = Account { charged: 1000, charged_variance: 16, live: 600, live_variance: 1, samples: 3, ..Account::default() };
        assert_eq!(accounts[&(7, Kind::File)], file);
        assert_eq!(accounts.len(), 2, "no account is of an unknown kind");
        let both = Account { charged: 2070, charged_variance: 41, live: 1250, live_variance: 4, samples: 10, ..anon };
        assert_eq!([anon, file].into_iter().sum::<Account>(), both);
        assert_eq!([anon, anon].into_iter().sum::<Account>().baseline_variance, 24);
        assert_eq!([anon, anon].into_iter().sum::<Account>().unmapped, 1530);
        assert_eq!([anon, anon].into_iter().sum::<Account>().baseline, 1300);
    }

    #[test]
    fn a_keys_figures_are_sums_over_all_banks_and_a_torn_variance_is_none() {
        let mut key = record(0, 0, 0);
        for bank in 0..BANKS {
            key.charged[bank] = 10_u64.pow(bank as u32) * 3;
            key.uncharged[bank] = 10_u64.pow(bank as u32);
            key.live_variance[bank] = 10_u64.pow(bank as u32) * 2;
        }
        assert_eq!((charged(&key), live(&key), live_variance(&key)), (333_333_333, 222_222_222, 222_222_222));
        // Uncharges that were read before their charges.
        key.uncharged[0] += 333_333_333;
        key.live_variance[0] = 0_u64.wrapping_sub(333_333_333);
        assert_eq!((live(&key), live_variance(&key)), (-111_111_111, 0));
    }

    #[test]
    fn a_row_says_what_is_known_of_a_kind_with_its_errors() {
        let account = Account {
            charged: 900,
            charged_variance: 4,
            live: 600,
            live_variance: 16,
            baseline: 400,
            baseline_variance: 64,
            unmapped: 55,
            samples: 3,
            peak: Some(990),
            peak_variance: 25,
        };
        let file = KindRow {
            stat: Some(1100),
            source: "stat".to_owned(),
            baseline: Some(400),
            baseline_stderr: Some(8 * FRAME_BYTES),
            charged: Some(900),
            charged_stderr: Some(2 * FRAME_BYTES),
            live: Some(600),
            live_stderr: Some(4 * FRAME_BYTES),
            peak: Some(990),
            peak_stderr: Some(5 * FRAME_BYTES),
            unmapped: Some(0),
            dead_below: Some(30),
            missed: None,
            unattributed: Some(70),
            growth_bytes_per_s: None,
        };
        let anon = KindRow { unmapped: Some(55), unattributed: Some(125), ..file.clone() };
        assert_eq!(row(&account, Some(1100), "stat", Some(30), Kind::File), file, "page cache need not be mapped");
        assert_eq!(row(&account, Some(1100), "stat", Some(30), Kind::Anon), anon);
        let early = Account { live: -5, baseline: -7, ..account };
        let shown = row(&early, Some(1100), "stat", None, Kind::File);
        assert_eq!((shown.live, shown.baseline, shown.unattributed), (Some(0), Some(0), Some(1112)), "the sign is kept in what is left");
    }
}
