//! Kinds of memory that a folio can be charged as.

/// What the charge counter of a memory cgroup counts a folio as. The numbers are part of the ABI.
///
/// `File` excludes shmem, which `memory.stat` counts under its file line too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Anonymous memory: heap, stacks, private copies of file pages.
    Anon = 0,
    /// Page cache of files, without shmem.
    File = 1,
    /// tmpfs, memfd, System V segments, shared anonymous memory.
    Shmem = 2,
    /// hugetlbfs pages, charged only with memory_hugetlb_accounting.
    Hugetlb = 3,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Kind; KINDS] = [Kind::Anon, Kind::File, Kind::Shmem, Kind::Hugetlb];

    /// The name used in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Anon => "anon",
            Kind::File => "file",
            Kind::Shmem => "shmem",
            Kind::Hugetlb => "hugetlb",
        }
    }

    /// The kind with that number, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Kind> {
        match number {
            0 => Some(Kind::Anon),
            1 => Some(Kind::File),
            2 => Some(Kind::Shmem),
            3 => Some(Kind::Hugetlb),
            _ => None,
        }
    }
}

/// Number of kinds: the length of per-kind arrays.
pub const KINDS: usize = 4;

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn kinds_come_back_from_their_numbers_and_no_other_number_is_one() {
        for (number, kind) in (0..).zip(Kind::ALL) {
            assert_eq!((kind as u8, Kind::from_number(number)), (number, Some(kind)));
        }
        for number in [Kind::ALL.len() as u8, u8::MAX] {
            assert_eq!(Kind::from_number(number), None, "{number}");
        }
    }

    #[test]
    fn kinds_have_the_names_that_outputs_promise() {
        assert_eq!(Kind::ALL.map(Kind::name), ["anon", "file", "shmem", "hugetlb"]);
    }
}
