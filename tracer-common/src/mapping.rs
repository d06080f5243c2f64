//! Address space: what a process asked the kernel for, by which stack. Nothing of it need be resident.
//!
//! Calls are rare, so each is taken, with its stack. In a storm they are thinned ([`MappingCall::begin`], [`Mapper::weight`]): sums stay right on average.

use crate::{FRAME_BYTES, mix64};

/// What a call did. The number goes over the border, in events and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize))]
#[repr(u32)]
pub enum Change {
    /// mmap at a place that was free.
    Mapped = 1,
    /// mmap over what the program had reserved there (`MAP_FIXED`): takes no more address space.
    Placed = 2,
    /// brk, upwards.
    Grown = 3,
    /// munmap, or what a smaller brk or mremap gives back.
    Unmapped = 4,
    /// mremap: moved, or longer.
    Moved = 5,
    /// mprotect: may be written from now on.
    Opened = 6,
    /// fork: the new process has all that its parent has. `from` and `from_length` of the event are the parent's identity and thread-group id.
    Forked = 7,
}

impl Change {
    /// The change with that number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Change> {
        match number {
            1 => Some(Change::Mapped),
            2 => Some(Change::Placed),
            3 => Some(Change::Grown),
            4 => Some(Change::Unmapped),
            5 => Some(Change::Moved),
            6 => Some(Change::Opened),
            7 => Some(Change::Forked),
            _ => None,
        }
    }

    /// The system call, as in outputs.
    #[must_use]
    pub const fn call(self) -> &'static str {
        match self {
            Change::Mapped | Change::Placed => "mmap",
            Change::Grown => "brk",
            Change::Unmapped => "munmap",
            Change::Moved => "mremap",
            Change::Opened => "mprotect",
            Change::Forked => "fork",
        }
    }
}

/// One call, through the ring to user space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct MappingEvent {
    /// Identity of the process.
    pub process: u64,
    /// Identity of the user stack, 0 for none.
    pub user_stack: u64,
    /// First address; 0 if it is not known.
    pub start: u64,
    /// Bytes, whole pages.
    pub length: u64,
    /// mremap: where it was.
    pub from: u64,
    /// mremap: how long it was.
    pub from_length: u64,
    /// Monotonic nanoseconds.
    pub at_ns: u64,
    /// Thread-group id, initial namespace.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
    /// Number of the [`Change`].
    pub change: u32,
    /// How many calls it stands for.
    pub weight: u32,
}
crate::assert_size!(MappingEvent, 72);

/// Who asked for address space. All fields are compared when two meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct MappingKey {
    /// kernfs id of the caller's memory cgroup.
    pub owner: u64,
    /// Identity of the process.
    pub process: u64,
    /// Identity of the user stack, 0 for none.
    pub user_stack: u64,
    /// Number of the [`Change`].
    pub change: u32,
    /// Zero: no padding.
    pub reserved: u32,
}
crate::assert_size!(MappingKey, 32);

impl MappingKey {
    /// The identity under which it is stored; never 0.
    #[inline(always)]
    #[must_use]
    pub const fn hash(&self) -> u64 {
        let mut h = mix64(0x6d61_7070, self.owner);
        h = mix64(h, self.process);
        h = mix64(h, self.user_stack);
        mix64(h, self.change as u64) | 1
    }
}

/// Address space that was asked for since the start, given back or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct MappingRecord {
    /// Who.
    pub key: MappingKey,
    /// Bytes.
    pub bytes: u64,
    /// Calls.
    pub calls: u64,
    /// Variance of `bytes`, in pages squared: 0 while no call was thinned.
    pub variance: u64,
    /// Monotonic nanoseconds of the last call that was taken.
    pub last_ns: u64,
}
crate::assert_size!(MappingRecord, 64);

/// Calls counted on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MappingCounts {
    /// Calls of processes that are followed: those that were taken, and those that they stand for.
    pub calls: u64,
    /// Of these: not taken.
    pub thinned: u64,
}
crate::assert_size!(MappingCounts, 16);

/// The call that a thread is in, and how many it made; entry of an array, by the thread's id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MappingCall {
    /// Thread, as `bpf_get_current_pid_tgid` gives it.
    pub thread: u64,
    /// Memory descriptor that the call changes.
    pub mm: u64,
    /// Pages of address space before the call.
    pub total_vm: u64,
    /// End of the heap before the call.
    pub brk: u64,
    /// The free place that the kernel has found; 0: none was looked for.
    pub found: u64,
    /// How long that is.
    pub found_length: u64,
    /// kprobe: where the registers of the running call are; 0: none runs, or it is passed over.
    pub registers: u64,
    /// State of a generator of random numbers; never 0 once it is used.
    pub random: u64,
    /// When the window began, jiffies.
    pub window: u64,
    /// Calls in this window.
    pub calls: u32,
    /// Of these: large ones that were taken for that.
    pub large: u32,
    /// How many calls the running one stands for; 0: it is passed over, or none runs.
    pub weight: u32,
    /// Zero: no padding.
    pub reserved: u32,
}
crate::assert_size!(MappingCall, 88);

/// Entries. Two threads whose ids agree in these bits share one: if one is in a call when the other begins one, that call is lost
/// (counted).
pub const CALLS: u32 = 2048;

/// A process is followed from the call on with which it has asked for so much. Below it is what loaders and libraries take in each of a
/// thousand short processes.
pub const FOLLOWED_FROM: u64 = 1 << 20;

/// Length of a window in jiffies: a tenth of a second where the kernel counts 250 of them.
pub const WINDOW: u64 = 25;
/// Calls of one thread that are all taken in a window.
pub const FREE_CALLS: u32 = 256;
/// Of so many more, each that is taken stands for two, of the next for four, and so on: with steps so small, the calls of each weight are many
/// enough to tell their error. In one step from 1 to 64, few or none would be taken of the first calls behind it, and their error would be
/// missed with them.
pub const STEP: u32 = 128;
/// log2 of what one call stands for at most.
pub const STORM_SHIFT: u32 = 6;
/// A call for so many bytes is taken amid a storm of smaller ones, up to [`LARGE_CALLS`] in a window.
pub const LARGE: u64 = 4 << 20;
/// Large calls of one thread, and of one process, that are taken in a window for that.
pub const LARGE_CALLS: u32 = 256;
/// Calls of one process that are all taken in a window, of those that its threads' windows let through. Behind them weights double after each
/// so many, as behind [`FREE_CALLS`].
pub const FREE_OF_PROCESS: u64 = 1024;
/// log2 of what one of them stands for at most.
pub const PROCESS_SHIFT: u32 = 4;

/// What the call with that number in its window, counted from 0, stands for: 0 if chance passes it over.
#[inline(always)]
const fn chosen(number: u64, free: u64, step: u64, most_shift: u32, random: u64) -> u64 {
    let steps = if number < free { 0 } else { 1 + (number - free) / step };
    let shift = if steps < most_shift as u64 { steps as u32 } else { most_shift };
    // The generator's highest bits are its best.
    let highest = random >> 32;
    if highest >> (32 - shift) == 0 { 1 << shift } else { 0 }
}

impl MappingCall {
    /// A thread begins a call, and its weight is decided. False: another thread's call is lost by that.
    #[inline(always)]
    pub fn begin(&mut self, thread: u64, jiffies: u64) -> bool {
        let mut alone = true;
        if self.thread != thread {
            alone = self.weight == 0;
            self.thread = thread;
            self.window = jiffies;
            self.calls = 0;
            self.large = 0;
            self.registers = 0;
            // Any odd number will do: what is random is which of many calls it meets.
            self.random = mix64(thread, jiffies) | 1;
        }
        if jiffies.wrapping_sub(self.window) > WINDOW {
            self.window = jiffies;
            self.calls = 0;
            self.large = 0;
        }
        let random = self.next_random();
        self.weight = chosen(self.calls as u64, FREE_CALLS as u64, STEP as u64, STORM_SHIFT, random) as u32;
        self.calls = self.calls.saturating_add(1);
        self.found = 0;
        alone
    }

    /// The running call is for so many bytes: a large one stands for itself alone, whatever was decided before, so that its weight
    /// does not depend on chance.
    #[inline(always)]
    pub fn is_for(&mut self, bytes: u64) {
        if bytes >= LARGE && self.large < LARGE_CALLS {
            self.large += 1;
            self.weight = 1;
        }
    }

    /// xorshift64*, as [`crate::sampling::Sampler`] has it.
    #[inline(always)]
    fn next_random(&mut self) -> u64 {
        let mut x = self.random;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random = x;
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// How much a process maps; entry of a table by thread-group id. The table forgets the idle: they begin anew then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Mapper {
    /// When the window began, jiffies.
    pub window: u64,
    /// Calls in this window, without the large ones.
    pub calls: u64,
    /// Calls in this window that were taken because they are for [`LARGE`] and more.
    pub large: u64,
    /// Bytes of address space asked for so far.
    pub grown: u64,
}
crate::assert_size!(Mapper, 32);

impl Mapper {
    /// How many of its like a call for `growth` bytes more stands for, 0 if it is passed over; 1 on average, whatever came before. A large one,
    /// as an arena's, is taken amid the many small ones that other threads make.
    #[inline(always)]
    pub fn weight(&mut self, growth: u64, jiffies: u64, random: u64) -> u64 {
        if jiffies.wrapping_sub(self.window) > WINDOW {
            self.window = jiffies;
            self.calls = 0;
            self.large = 0;
        }
        if growth >= LARGE && self.large < LARGE_CALLS as u64 {
            self.large += 1;
            return 1;
        }
        let number = self.calls;
        self.calls = number.wrapping_add(1);
        chosen(number, FREE_OF_PROCESS, FREE_OF_PROCESS, PROCESS_SHIFT, random)
    }
}

/// A sum of address space, or its variance, that is this large stays as it is. Any process may ask for 128 TiB as often as it likes, and a
/// sum that wraps would be a small one.
const FULL: u64 = 1 << 61;
/// One call adds no more. That leaves room for what 3,584 CPUs add at once, having all seen a sum that was not full yet.
const MOST_ADDED: u64 = 1 << 52;

/// Bytes that a call for `growth`, which stands for `weight` of them, asks for in all.
#[inline(always)]
#[must_use]
pub const fn asked_for(growth: u64, weight: u64) -> u64 {
    if weight == 0 || growth <= MOST_ADDED / weight { growth * weight } else { MOST_ADDED }
}

/// What is added to a sum that is `sum` now: nothing if it is full.
#[inline(always)]
#[must_use]
pub const fn addend(sum: u64, value: u64) -> u64 {
    if sum >= FULL {
        0
    } else if value < MOST_ADDED {
        value
    } else {
        MOST_ADDED
    }
}

/// Variance that a taken call adds to a sum of bytes, in pages squared: w (w - 1) size^2. Lengths over 4 GiB count as that.
#[inline(always)]
#[must_use]
pub const fn variance_in_pages(length: u64, weight: u64) -> u64 {
    const MOST_PAGES: u64 = 1 << 20;
    let pages = length / FRAME_BYTES;
    let pages = if pages < MOST_PAGES { pages } else { MOST_PAGES };
    pages * pages * weight * weight.wrapping_sub(1)
}

crate::plain_data!(MappingEvent, MappingKey, MappingRecord, MappingCounts, MappingCall, Mapper);

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::sampling::Sampler;
    use std::{vec, vec::Vec};

    #[test]
    fn a_storm_is_thinned_without_bias() {
        const CALLS: u64 = 200_000;
        let mut call = MappingCall::default();
        let (mut sum, mut variance, mut taken) = (0, 0, 0);
        for n in 0..CALLS {
            assert!(call.begin(7, (1 << 32) + n / 1000));
            let weight = call.weight as u64;
            sum += weight;
            variance += variance_in_pages(FRAME_BYTES, weight);
            taken += u64::from(weight > 0);
        }
        let error = (variance as f64).sqrt();
        assert!((sum as f64 - CALLS as f64).abs() < 3.0 * error && error < CALLS as f64 / 20.0, "{sum} ± {error}");
        assert!(taken < CALLS / 32, "{taken}");
    }

    #[test]
    fn a_process_of_many_threads_is_thinned_without_bias() {
        const CALLS: u64 = 100_000;
        let (mut sampler, mut mapper) = (Sampler::seeded(7, 20), Mapper::default());
        let mut sum = 0;
        for n in 0..CALLS {
            sum += mapper.weight(FRAME_BYTES, (1 << 32) + n / 1000, sampler.next_random());
        }
        assert!(sum.abs_diff(CALLS) < CALLS / 20, "{sum}");
        assert!(mapper.calls > FREE_OF_PROCESS);
        // What is large is taken all the same, up to its own bound.
        let large: Vec<u64> = (0..2 * LARGE_CALLS).map(|_| mapper.weight(LARGE, mapper.window, u64::MAX)).collect();
        assert_eq!(large, [vec![1; LARGE_CALLS as usize], vec![0; LARGE_CALLS as usize]].concat());
    }

    #[test]
    fn a_large_call_amid_a_storm_stands_for_itself_until_there_are_many() {
        let mut call = MappingCall::default();
        for _ in 0..10_000 {
            call.begin(7, 5);
            call.is_for(LARGE - 1);
        }
        assert_eq!((call.large, call.weight == 1), (0, false));
        for n in 0..2 * LARGE_CALLS {
            call.begin(7, 5);
            call.is_for(LARGE);
            assert!(n >= LARGE_CALLS || call.weight == 1);
        }
        assert_eq!(call.large, LARGE_CALLS);
    }

    #[test]
    fn a_call_that_another_thread_runs_over_is_told() {
        let mut call = MappingCall::default();
        assert!(call.begin(1, 5));
        assert!(call.begin(1, 5), "the same thread: its call never ended");
        assert!(!call.begin(2, 5));
        call.weight = 0;
        assert!(call.begin(1, 5));
        assert_eq!(call.calls, 1);
    }

    #[test]
    fn no_length_overflows_the_variance_of_a_call() {
        assert_eq!(variance_in_pages(u64::MAX, 1), 0);
        assert_eq!(variance_in_pages(u64::MAX, 1 << 10), (1 << 40) * 1024 * 1023);
    }

    #[test]
    fn no_sum_of_address_space_wraps() {
        const LARGEST: u64 = 1 << 47;
        assert_eq!((asked_for(LARGEST, 1), asked_for(LARGEST, 1 << 20), asked_for(5, 0)), (LARGEST, MOST_ADDED, 0));
        assert_eq!(asked_for(4096, 1 << 10), 4096 << 10);
        // 128 TiB, twice as often as 64 bits hold them.
        let mut sum = 0_u64;
        for _ in 0..1 << 18 {
            let more = addend(sum, asked_for(LARGEST, 1));
            sum = sum.checked_add(more).expect("no wrap");
        }
        assert!((FULL..FULL + LARGEST).contains(&sum), "{sum}");
        assert!((FULL - 1).checked_add(3584 * addend(FULL - 1, u64::MAX)).is_some());
        assert_eq!(addend(FULL, 1), 0);
    }

    #[test]
    fn changes_keep_their_numbers_and_their_calls() {
        let changes = [
            (1, Change::Mapped, "mmap"),
            (2, Change::Placed, "mmap"),
            (3, Change::Grown, "brk"),
            (4, Change::Unmapped, "munmap"),
            (5, Change::Moved, "mremap"),
            (6, Change::Opened, "mprotect"),
            (7, Change::Forked, "fork"),
        ];
        for (number, change, call) in changes {
            assert_eq!((change as u32, Change::from_number(number)), (number, Some(change)), "recordings have these numbers");
            assert_eq!(change.call(), call);
        }
        for number in [0, 8, u32::MAX] {
            assert_eq!(Change::from_number(number), None, "{number}");
        }
    }

    /// A call of that thread at that time amid a storm: as many came before as have smaller weights.
    fn stormy(thread: u64, jiffies: u64) -> MappingCall {
        let mut call = MappingCall::default();
        for n in 0..FREE_CALLS + (STORM_SHIFT - 1) * STEP {
            assert!(call.begin(thread, jiffies));
            assert!(n >= FREE_CALLS || call.weight == 1, "call {n} is free");
            let step = if n < FREE_CALLS { 0 } else { 1 + (n - FREE_CALLS) / STEP };
            assert!(call.weight == 0 || call.weight == 1 << step, "call {n}: {}", call.weight);
        }
        call
    }

    /// Sums, their own errors, over many windows of storms that are as long as the largest weight begins to be used, which is where few are chosen.
    #[test]
    fn the_error_of_a_thinned_sum_is_what_it_says() {
        for (calls, of_process) in [(300, false), (1000, false), (3000, false), (30_000, false), (1100, true), (5000, true)] {
            const WINDOWS: u64 = 4000;
            let (mut sampler, mut spread, mut stated, mut outside) = (Sampler::seeded(11, 20), 0.0, 0.0, 0);
            for _ in 0..WINDOWS {
                let (mut sum, mut variance) = (0_u64, 0_u64);
                for number in 0..calls {
                    let random = sampler.next_random();
                    let weight = if of_process {
                        chosen(number, FREE_OF_PROCESS, FREE_OF_PROCESS, PROCESS_SHIFT, random)
                    } else {
                        chosen(number, u64::from(FREE_CALLS), u64::from(STEP), STORM_SHIFT, random)
                    };
                    sum += weight;
                    variance += variance_in_pages(FRAME_BYTES, weight);
                }
                let difference = sum as f64 - calls as f64;
                spread += difference * difference;
                stated += variance as f64;
                outside += u64::from(difference * difference > 9.0 * variance as f64);
            }
            let ratio = stated / spread;
            assert!((0.9..1.1).contains(&ratio), "{calls} calls: the stated variance is {ratio} times the true one");
            // A normal distribution has 0.3 % beyond three errors; where the last weight has just begun, it is up to 1.3 %.
            assert!(outside * 50 < WINDOWS, "{calls} calls: {outside} of {WINDOWS} are beyond three errors");
        }
    }

    #[test]
    fn calls_of_a_thread_are_thinned_only_behind_the_free_ones_of_a_window() {
        let mut call = stormy(7, 1000);
        let last_of_window = 1000 + WINDOW;
        for _ in 0..100 {
            call.begin(7, last_of_window);
            assert!(call.weight == 0 || call.weight == 1 << STORM_SHIFT, "{}", call.weight);
        }
        call.is_for(LARGE);
        call.begin(7, last_of_window + 1);
        assert_eq!((call.weight, call.calls, call.large, call.window), (1, 1, 0, last_of_window + 1), "a new window begins");
    }

    #[test]
    fn a_thread_that_takes_over_an_entry_begins_anew() {
        let mut call = stormy(7, 1000);
        call.begin(7, 1000);
        (call.found, call.registers, call.large, call.weight) = (5, 6, 7, 0);
        call.begin(8, 1000);
        assert_eq!((call.thread, call.weight, call.calls), (8, 1, 1), "the other thread's storm is not its own");
        assert_eq!((call.found, call.registers, call.large), (0, 0, 0));
    }

    #[test]
    fn each_threads_chances_are_its_own_and_its_generator_never_stands_still() {
        let mut states: Vec<u64> = (1..=100).map(|thread| stormy(thread, 1000).random).collect();
        assert!(states.iter().all(|state| *state != 0), "a generator stands still at 0");
        states.sort_unstable();
        states.dedup();
        assert_eq!(states.len(), 100);
        // The published generator: what it gives from the state 1 on.
        let mut call = MappingCall { random: 1, ..MappingCall::default() };
        let given = [(); 3].map(|()| call.next_random());
        assert_eq!(given, [0x47e4_ce4b_896c_dd1d, 0xabcf_a6a8_e079_651d, 0xb9d1_0d8f_eb73_1f57]);
    }

    #[test]
    fn calls_of_a_process_are_thinned_only_behind_the_free_ones_of_a_window() {
        let mut mapper = Mapper { window: 1000, ..Mapper::default() };
        for n in 0..u64::from(PROCESS_SHIFT) * FREE_OF_PROCESS {
            let step = n / FREE_OF_PROCESS;
            assert_eq!(mapper.weight(LARGE - 1, 1000, 0), 1 << step, "call {n}");
        }
        let last_of_window = 1000 + WINDOW;
        let sixteenths: Vec<u64> = (0..16).map(|top| mapper.weight(LARGE - 1, last_of_window, top << 60 | 1 << 59)).collect();
        assert_eq!(sixteenths, [&[1 << PROCESS_SHIFT], &[0; 15][..]].concat(), "one in 16 stands for 16");
        assert_eq!(mapper.weight(LARGE, last_of_window, u64::MAX), 1, "a large one stands for itself");
        assert_eq!(mapper.weight(LARGE - 1, last_of_window + 1, u64::MAX), 1, "a new window begins");
        assert_eq!((mapper.calls, mapper.large, mapper.window), (1, 0, last_of_window + 1));
    }

    #[test]
    fn a_large_call_makes_its_process_followed_and_a_page_does_not() {
        const { assert!(FRAME_BYTES < FOLLOWED_FROM && FOLLOWED_FROM <= LARGE) };
    }

    #[test]
    fn a_thinned_call_adds_the_variance_of_its_weight() {
        // Three pages that stand for twelve: w (w - 1) size^2 = 4 * 3 * 9.
        assert_eq!(variance_in_pages(3 * FRAME_BYTES, 4), 108);
        assert_eq!(variance_in_pages(3 * FRAME_BYTES, 1), 0, "what stands for itself is certain");
        assert_eq!(variance_in_pages(3 * FRAME_BYTES, 0), 0, "what is passed over adds nothing");
        // 4 GiB are 2^20 pages, and what is longer counts as that.
        let most = (1 << 40) * 2;
        let lengths = [(1 << 32) - FRAME_BYTES, 1 << 32, (1 << 32) + FRAME_BYTES, 1 << 40];
        assert_eq!(lengths.map(|length| variance_in_pages(length, 2)), [((1 << 20) - 1) * ((1 << 20) - 1) * 2, most, most, most]);
    }

    #[test]
    fn an_asker_has_another_identity_when_any_field_is_another() {
        let key = MappingKey { owner: 1, process: 2, user_stack: 3, change: Change::Mapped as u32, reserved: 0 };
        let keys = [
            key,
            MappingKey { owner: 2, ..key },
            MappingKey { process: 3, ..key },
            MappingKey { user_stack: 2, ..key },
            MappingKey { change: Change::Grown as u32, ..key },
            MappingKey { owner: 2, process: 1, ..key },
            MappingKey { process: 3, user_stack: 2, ..key },
        ];
        for (at, one) in keys.iter().enumerate() {
            for other in &keys[at + 1..] {
                assert_ne!(one.hash(), other.hash(), "{one:?} and {other:?}");
            }
        }
        for owner in 0..1000 {
            assert_eq!(MappingKey { owner, ..key }.hash() & 1, 1, "identities are odd, so none is 0: {owner}");
        }
    }

    #[test]
    fn in_a_storm_the_highest_bits_of_a_random_word_decide() {
        let mut call = stormy(7, 1000);
        for _ in 0..10_000 {
            let word = call.clone().next_random();
            call.begin(7, 1000);
            assert_eq!(call.weight != 0, word.leading_zeros() >= STORM_SHIFT, "{word:x}: the generator's lowest bits are its worst");
        }
    }
}
