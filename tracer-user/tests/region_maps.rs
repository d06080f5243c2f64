//! Classes from the mappings of real processes alone, as of processes whose memory cannot be read any more.

#![allow(clippy::unwrap_used, reason = "tests")]

use memtrail::region::{Class, Survey, maps::Maps};
use std::collections::BTreeMap;

fn survey(name: &str) -> Survey {
    let path = format!("{}/tests/fixtures/maps/{name}", env!("CARGO_MANIFEST_DIR"));
    Survey::of_maps(Maps::parse(std::fs::File::open(path).unwrap()).unwrap(), &[])
}

/// Regions of each class that are accessible.
fn counts(survey: &Survey) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for region in survey.classified.regions.iter().filter(|region| !survey.maps.vmas[region.vma].is_inaccessible()) {
        *counts.entry(region.class.name()).or_default() += 1;
    }
    counts
}

fn count(survey: &Survey, class: Class) -> usize {
    counts(survey).get(class.name()).copied().unwrap_or(0)
}

#[test]
fn arenas_of_a_real_process() {
    let survey = survey("glibc-arenas");
    let arenas = survey.arenas().unwrap();
    assert_eq!((arenas.heaps, arenas.reserved), (8, 8 * (64 << 20)));
    // Which heap belongs to which arena stands in memory, and resident bytes are in another file.
    assert_eq!((arenas.arenas, arenas.resident), (None, None));
    assert_eq!((count(&survey, Class::GlibcArena), count(&survey, Class::BrkHeap)), (8, 1));
    // Stacks have no sign of their own in mappings: they stay without a class, but for the main one.
    assert_eq!((count(&survey, Class::ThreadStack), count(&survey, Class::Jit)), (1, 0));
    assert!(count(&survey, Class::Other) >= 8);
}

#[test]
fn a_jvm_is_mostly_unknown_by_its_mappings() {
    let survey = survey("jvm-17");
    assert!(survey.arenas().unwrap().heaps >= 8, "{:?}", survey.arenas());
    assert_eq!((count(&survey, Class::JavaHeap), count(&survey, Class::BrkHeap), count(&survey, Class::GoHeap)), (0, 1, 0));
    // Its code is executable memory without a file.
    assert!(count(&survey, Class::Jit) >= 1);
    assert!(count(&survey, Class::FilePrivate) > 20);
}

#[test]
fn python_and_a_static_program_have_no_arenas_without_threads_that_allocate() {
    for name in ["static-busybox", "python-3.11"] {
        let survey = survey(name);
        let heaps = survey.arenas().map_or(0, |arenas| arenas.heaps);
        assert_eq!((heaps > 0, count(&survey, Class::BrkHeap)), (name == "python-3.11", 1), "{name}");
        assert_eq!(count(&survey, Class::GoHeap), 0);
    }
    // Python's threads allocate a little, each from an arena of its own.
    assert_eq!(survey("python-3.11").arenas().unwrap().heaps, 3);
}

#[test]
fn go_is_known_by_its_address_and_is_no_arena() {
    let survey = survey("go-like");
    assert_eq!(count(&survey, Class::GoHeap), 1);
    // A heap of a C library that it is linked with.
    assert_eq!(survey.arenas().unwrap().heaps, 1);
}

#[test]
fn regions_cover_the_mappings() {
    for name in ["glibc-arenas", "jvm-17", "python-3.11", "static-busybox", "go-like"] {
        let survey = survey(name);
        let mapped: u64 = survey.maps.vmas.iter().map(memtrail::region::Vma::bytes).sum();
        let regions: u64 = survey.classified.regions.iter().map(|region| region.end - region.start).sum();
        assert_eq!(mapped, regions, "{name}");
        assert!(survey.classified.regions.is_sorted_by(|a, b| a.end <= b.start), "{name}");
    }
}
