//! Damaged and forged recordings: readers and outputs never panic. A driver for stable Rust; the recordings of the repository are its
//! corpus, and each round damages one of them.

use memtrail::output::diff::{Diff, Options, Shown};
use memtrail::output::{selection::Selection, views};
use memtrail::recording::{self, Recording};
use memtrail::{
    analyse::comparison::growth,
    output::{Value, autopsy, files, folded, histograms, hlog, json, perfetto, pods, pprof, regions, summary, svg, threads},
};
use std::path::Path;
use std::time::{Duration, Instant};
use tracer_common::mix64;

/// Unless `MEMTRAIL_FUZZ_SECONDS` says else.
const SECONDS: u64 = 600;

/// Bytes before the first frame, and of a frame's head: docs/recording.md.
const PREAMBLE: usize = 12;
const HEAD: usize = 20;

struct Random(u64, u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.1 += 1;
        (mix64(self.0, self.1) % bound.max(1) as u64) as usize
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tracer-user/tests/fixtures");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let recordings = files.filter(|path| path.extension().is_some_and(|ending| ending == "mtrail"));
    let mut corpus: Vec<Vec<u8>> = recordings.map(|path| std::fs::read(path).unwrap()).collect();
    corpus.sort();
    assert!(corpus.len() >= 3);
    corpus
}

/// Frames as kind and payload, decompressed.
fn frames(bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut rest = &bytes[PREAMBLE..];
    let mut frames = Vec::new();
    while rest.len() >= HEAD {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let (kind, stored) = (word(0), word(4) as usize);
        let payload = &rest[HEAD..HEAD + stored];
        frames.push((kind, if stored == 0 { Vec::new() } else { zstd::stream::decode_all(payload).unwrap() }));
        rest = &rest[HEAD + stored..];
    }
    frames
}

fn assembled(preamble: &[u8], frames: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = preamble.to_vec();
    for (kind, plain) in frames {
        let stored = if plain.is_empty() { Vec::new() } else { zstd::bulk::compress(plain, 1).unwrap() };
        let words = [*kind, stored.len() as u32, plain.len() as u32, crc32fast::hash(&stored)];
        let head: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
        bytes.extend_from_slice(&stored);
    }
    bytes
}

/// Damage behind right checksums: bytes of payloads change, come and go; frames move, are doubled, and are lost.
fn forged(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut frames = frames(bytes);
    for _ in 0..1 + random.below(8) {
        let at = random.below(frames.len());
        match random.below(8) {
            0 => drop(frames.remove(at)),
            1 => frames.push(frames[at].clone()),
            2 => frames[at].0 = random.below(8) as u32,
            3 => {
                let cut = random.below(frames[at].1.len() + 1);
                frames[at].1.truncate(cut);
            }
            _ if !frames[at].1.is_empty() => {
                let place = random.below(frames[at].1.len());
                let byte = [0, 0x7f, 0x80, 0xff, random.below(256) as u8][random.below(5)];
                match random.below(3) {
                    0 => frames[at].1.insert(place, byte),
                    _ => frames[at].1[place] = byte,
                }
            }
            _ => {}
        }
        if frames.is_empty() {
            break;
        }
    }
    assembled(&bytes[..PREAMBLE], &frames)
}

/// Damage that checksums find.
fn torn(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        bytes[at] = random.below(256) as u8;
    }
    bytes.truncate(random.below(bytes.len() + 1).max(bytes.len() / 2));
    bytes
}

/// Everything that a recording can become, alone and beside another.
fn show(recording: &Recording, other: &Recording) {
    let mut encoder = perfetto::Encoder::default();
    for interval in &recording.intervals {
        let _ = encoder.interval(interval, str::to_owned);
    }
    for mark in &recording.marks {
        let _ = encoder.mark(mark);
    }
    let (Some(report), Some(before)) = (&recording.report, &other.report) else { return };
    let selection = Selection::default();
    let options = Options { value: Value::Live, normalize: true, same_recording: false };
    let diff = Diff::new(["before", "after"].map(str::to_owned), before, report, options);
    let backwards = Diff::new(["after", "before"].map(str::to_owned), report, before, Options { normalize: false, ..options });
    let grown = growth::between(Some(before), report, Value::Growth).report;
    let texts = [
        diff.text(Shown { top: None, all: true }),
        backwards.text(Shown::default()),
        histograms::render(&grown, &selection),
        views::stacks(&grown, &selection),
        pods::table(report, &selection),
        autopsy::view(report),
        summary::render(report, summary::Options::default()),
        views::cgroups(report, &selection),
        views::stacks(report, &selection),
        views::marks(&recording.marks),
        files::table(report, &selection),
        regions::render(report, &selection, true),
        histograms::render(report, &selection),
    ];
    assert!(texts.iter().all(|text| !text.contains('\x1b')));
    let mut sink = std::io::sink();
    // Errors are answers; panics are not.
    let _ = json::write(report, &mut sink);
    let _ = folded::write(report, Value::Live, &mut sink);
    let _ = svg::write(report, Value::Charged, &mut sink);
    let _ = pprof::write(report, Value::Live, &mut sink);
    let _ = hlog::write(report, &mut sink);
    let _ = (diff.folded(&mut sink), diff.svg(&mut sink), diff.json(&mut sink));
    if let Ok(split) = threads::split(report) {
        let _ = folded::write(&split, Value::Live, &mut sink);
    }
}

fn fuzz(time: Duration, least: u64) -> (u64, u64) {
    let (corpus, path) = (corpus(), Path::new("x.mtrail"));
    let whole: Vec<Recording> = corpus.iter().map(|bytes| recording::read_from(bytes.as_slice(), path).unwrap()).collect();
    let (began, mut rounds, mut read) = (Instant::now(), 0, 0);
    while rounds < least || began.elapsed() < time {
        let mut random = Random(rounds, 0);
        let seed = &corpus[random.below(corpus.len())];
        let bytes = if random.below(4) == 0 { torn(seed, &mut random) } else { forged(seed, &mut random) };
        if let Ok(recording) = recording::read_from(bytes.as_slice(), path) {
            show(&recording, &whole[random.below(whole.len())]);
            read += 1;
        }
        // An error is an answer here too.
        let _ = recording::read_at_from(bytes.as_slice(), path, "peak");
        rounds += 1;
    }
    (rounds, read)
}

#[test]
#[ignore = "takes ten minutes"]
fn long_fuzzed_recordings_never_panic() {
    let seconds = std::env::var("MEMTRAIL_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(SECONDS);
    let (rounds, read) = fuzz(Duration::from_secs(seconds), 0);
    println!("{rounds} damaged recordings, {read} of them readable");
    assert!(rounds > 0);
}

#[test]
fn a_few_damaged_recordings_are_read_or_refused() {
    let (rounds, read) = fuzz(Duration::ZERO, 300);
    assert!(read > 0 && read < rounds, "{read} of {rounds}");
}
