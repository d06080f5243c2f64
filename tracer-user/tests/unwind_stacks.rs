//! Stacks as the kernel half walks them, and as an independent unwinder does: framehop, over the same registers and the same copies of stacks,
//! which perf takes at the page faults of real programs. What is walked by here are the rows and the steps that the kernel half has.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use framehop::x86_64::{CacheX86_64, Reg, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder as _};
use linux_perf_data::linux_perf_event_reader::{EventRecord, Regs, constants::*};
use linux_perf_data::{PerfFileReader, PerfFileRecord};
use memtrail::host::{elf::Elf, proc};
use memtrail::unwind::rows::{self, Rows};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use tracer_common::unwind::{
    End, Memory, Registers, Rule, kind, register,
    step::{by_frame_pointer, by_rule},
};

/// Programs, and of how many of their page faults one is looked at.
const PROGRAMS: [(&str, u32, &str); 8] = [
    (
        "python3",
        2,
        "import json, re, sqlite3\nh = {'key %d' % i: [i, 'x' * 50] for i in range(200000)}\nt = json.dumps(h); print(len(re.findall('key', t)), len(json.loads(t)))\n\
         def deep(n): return [n] * 50 + (deep(n - 1) if n else [])\nprint(len(deep(300)))\n\
         c = sqlite3.connect(':memory:'); c.execute('create table t (k, v)'); c.executemany('insert into t values (?, ?)', ((k, v[1]) for k, v in h.items()))\n\
         print(c.execute('select count(*) from t a join t b using (k)').fetchall())",
    ),
    (
        "perl",
        8,
        "for my $i (1..300000) { $h{\"key $i\"} = [$i, \"x\" x 50]; } my @s = sort { $a cmp $b } keys %h; print scalar(@s), \"\\n\"",
    ),
    (
        "php",
        8,
        "ini_set('memory_limit', -1); for ($i = 0; $i < 300000; $i++) { $h[\"key $i\"] = [$i, str_repeat('x', 50)]; } ksort($h); echo strlen(json_encode($h));",
    ),
    ("ruby", 2, "require 'json'; h = {}; 200000.times { |i| h[\"key #{i}\"] = [i, \"x\" * 50] }; puts h.sort.length, JSON.dump(h).length"),
    (
        "cc1",
        2,
        "for i in range(1500): print('struct s%d { int a[%d]; }; int f%d(struct s%d *s, int n) { int t = 0; for (int i = 0; i < n; i++) { t += s->a[i %% 7] * %d; if (t > n) t -= i; } return t; }' % (i, i + 7, i, i, i))",
    ),
    ("git", 1, ""),
    (
        "c++",
        1,
        "#include <map>\n#include <string>\n#include <stdexcept>\n#include <vector>\n#include <algorithm>\n\
         static void put(std::map<std::string, std::vector<std::string>> &m, int i) { m[\"key \" + std::to_string(i % 50000)].push_back(std::string(100, 'x')); if (i % 10 == 0) throw std::runtime_error(std::string(5000, 'y')); }\n\
         int main() { std::map<std::string, std::vector<std::string>> m; size_t n = 0; for (int i = 0; i < 400000; i++) try { put(m, i); } catch (const std::exception &e) { n += e.what()[0]; }\n\
         std::vector<std::string> v; for (auto &p : m) v.push_back(p.first); std::stable_sort(v.begin(), v.end(), [](auto &a, auto &b) { return a > b; }); return n == 0; }",
    ),
    (
        "c",
        1,
        "#include <stdlib.h>\n#include <string.h>\n\
         struct n { struct n *l, *r; char b[200]; };\n\
         static struct n *grow(int d) { struct n *n = malloc(sizeof *n); memset(n->b, d, sizeof n->b); n->l = d ? grow(d - 1) : 0; n->r = d ? grow(d - 1) : 0; return n; }\n\
         static int cmp(const void *a, const void *b) { return *(int *)a - *(int *)b; }\n\
         int main(void) { struct n *n = grow(17); int *a = malloc(40 << 20); for (int i = 0; i < 10 << 20; i++) a[i] = rand(); qsort(a, 1 << 20, 4, cmp); return n->b[0] != 17; }",
    ),
];

/// The command that does its work, in a folder of its own.
fn command(name: &str, text: &str, folder: &Path) -> String {
    let file = |ending: &str| {
        fs::write(folder.join(format!("x.{ending}")), text).unwrap();
    };
    let run = |script: &str| assert!(Command::new("sh").args(["-c", script]).current_dir(folder).status().unwrap().success(), "{script}");
    match name {
        "python3" => file("py"),
        "perl" => file("pl"),
        "ruby" => file("rb"),
        "php" => fs::write(folder.join("x.php"), format!("<?php {text}")).unwrap(),
        "cc1" => {
            file("py");
            run("python3 x.py > x.c");
        }
        "git" => {
            run("/usr/bin/git init -q . && for i in $(seq 1 40); do head -c 200000 /dev/urandom | base64 > $i; done && /usr/bin/git add .")
        }
        "c++" => {
            file("cc");
            run("g++ -O2 x.cc -o x");
        }
        _ => {
            file("c");
            run("gcc -O2 x.c -o x");
        }
    }
    match name {
        "python3" => "/usr/bin/python3 x.py",
        "perl" => "perl x.pl",
        "ruby" => "ruby x.rb",
        "php" => "php x.php",
        "cc1" => "gcc -O2 -c x.c -o x.o",
        "git" => "/usr/bin/git -c user.name=x -c user.email=x commit -qm x; /usr/bin/git repack -qadfF; /usr/bin/git fsck",
        _ => "./x",
    }
    .to_owned()
}

/// A file that was mapped.
struct Mapped {
    rows: Option<Rows>,
    sections: ExplicitModuleSectionInfo<Rc<[u8]>>,
    /// Offset, address and length of what is loaded as code.
    code: Vec<(u64, u64, u64)>,
}

impl Mapped {
    fn read(path: &[u8]) -> Option<Mapped> {
        let bytes: Vec<u8> = match path {
            b"[vdso]" => proc::own_vdso().unwrap().expect("a vDSO").1,
            _ => fs::read(String::from_utf8(path.to_vec()).ok()?).ok()?,
        };
        let elf = Elf::open(&bytes[..], 256 << 20).ok()?;
        let mut sections = ExplicitModuleSectionInfo::default();
        for section in elf.sections().ok()? {
            let Some(start) = elf.address_of(section.range.start).filter(|_| !section.range.is_empty()) else { continue };
            let range = start..start + (section.range.end - section.range.start);
            let data = || Rc::from(&bytes[section.range.start as usize..section.range.end as usize]);
            match section.name.as_slice() {
                b".text" => (sections.text_svma, sections.text) = (Some(range), Some(data())),
                b".eh_frame" => (sections.eh_frame_svma, sections.eh_frame) = (Some(range), Some(data())),
                b".eh_frame_hdr" => (sections.eh_frame_hdr_svma, sections.eh_frame_hdr) = (Some(range), Some(data())),
                b".got" => sections.got_svma = Some(range),
                _ => {}
            }
        }
        let code = elf.loaded().filter(|s| s.flags & 1 != 0).map(|s| (s.offset, s.address, s.in_file)).collect();
        Some(Mapped { rows: rows::read(&bytes[..]).ok(), sections, code })
    }

    fn rule(&self, offset: u64) -> Rule {
        let Some(rows) = &self.rows else { return Rule::default() };
        let after = rows.rows.partition_point(|row| u64::from(row.offset) <= offset);
        after.checked_sub(1).map_or(Rule::default(), |at| rows.rules[usize::from(rows.rows[at].rule)])
    }
}

/// A mapping of a process: end, offset in the file, the file.
type Mappings = BTreeMap<u64, (u64, u64, Rc<Mapped>)>;

/// What perf copied of a stack.
struct Copied<'a> {
    at: u64,
    bytes: &'a [u8],
    value: u64,
}

impl Copied<'_> {
    fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.at)?).ok()?;
        Some(u64::from_le_bytes(self.bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
    }
}

impl Memory for Copied<'_> {
    fn read(&mut self, address: u64) -> bool {
        let word = self.word(address);
        self.value = word.unwrap_or(0);
        word.is_some()
    }
    fn value(&self) -> u64 {
        self.value
    }
}

/// The walk of the kernel half (`tracer-ebpf/src/unwind/frame.rs`), in the order of its steps.
fn walk(mappings: &Mappings, leaf: &[u64; register::COUNT], stack: &mut Copied<'_>) -> (Vec<u64>, End, bool) {
    let place = |number: u8| leaf[usize::from(number)];
    let mut registers = Registers { pc: place(register::IP), sp: place(register::SP), bp: place(register::BP), bp_known: 1, returns: 0 };
    let (mut frames, mut guessed, mut planted) = (Vec::new(), false, false);
    for _ in 0..400 {
        let look = registers.pc - registers.returns;
        let Some((start, (_, offset, file))) = mappings.range(..=look).next_back().filter(|(_, (end, ..))| look < *end) else {
            return (frames, End::NoMapping, guessed);
        };
        let rule = file.rule(look - start + offset);
        if rule.kind == kind::NONE && registers.returns != 0 {
            (registers.returns, planted) = (0, true);
            continue;
        }
        frames.push(registers.pc);
        if planted && rule.kind != kind::NONE {
            return (frames, End::Root, guessed);
        }
        planted = false;
        let is_leaf = frames.len() == 1;
        let end = if rule.kind == kind::NONE {
            guessed = true;
            by_frame_pointer(&mut registers, stack)
        } else {
            let (mut base, mut return_register) = (registers.sp, 0);
            if rule.base == register::BP {
                base = registers.bp;
            } else if rule.base != register::SP || rule.return_register != 0 {
                if !is_leaf {
                    return (frames, End::Unsupported, guessed);
                }
                (base, return_register) = (place(rule.base), place(rule.return_register));
            }
            if rule.base == register::BP && registers.bp_known == 0 {
                return (frames, End::Unsupported, guessed);
            }
            by_rule(&rule, base, return_register, &mut registers, stack)
        };
        if end != End::Not {
            return (frames, end, guessed);
        }
    }
    (frames, End::TooDeep, guessed)
}

/// What came out for a program.
#[derive(Default)]
struct Outcome {
    stacks: u64,
    whole: u64,
    /// Whole ones of which framehop says the same to the end.
    same: u64,
    /// Whole ones of which it says the same as far as it comes.
    shorter: u64,
    frames: u64,
    contradicted: Vec<String>,
}

fn compare(path: &Path) -> Outcome {
    let PerfFileReader { mut perf_file, mut record_iter } = PerfFileReader::parse_file(BufReader::new(File::open(path).unwrap())).unwrap();
    let mut processes: HashMap<i32, Mappings> = HashMap::new();
    let mut files: HashMap<Vec<u8>, Option<Rc<Mapped>>> = HashMap::new();
    let mut unwinders: HashMap<i32, UnwinderX86_64<Rc<[u8]>>> = HashMap::new();
    let mut cache = CacheX86_64::new();
    let mut outcome = Outcome::default();
    while let Some(record) = record_iter.next_record(&mut perf_file).unwrap() {
        let PerfFileRecord::EventRecord { record, .. } = record else { continue };
        match record.parse().unwrap() {
            EventRecord::Mmap2(map) if map.protection & 4 != 0 => {
                let path = map.path.as_slice().into_owned();
                let file = files.entry(path.clone()).or_insert_with(|| Mapped::read(&path).map(Rc::new)).clone();
                let mappings = processes.entry(map.pid).or_default();
                let (start, end) = (map.address, map.address + map.length);
                mappings.retain(|at, (until, ..)| *until <= start || *at >= end);
                if let Some(file) = file {
                    mappings.insert(start, (end, map.page_offset, file));
                }
                unwinders.remove(&map.pid);
            }
            EventRecord::Fork(fork) if fork.pid != fork.ppid => {
                let of_parent = processes.get(&fork.ppid).cloned().unwrap_or_default();
                processes.insert(fork.pid, of_parent);
                unwinders.remove(&fork.pid);
            }
            EventRecord::Comm(comm) if comm.is_execve => {
                processes.remove(&comm.pid);
                unwinders.remove(&comm.pid);
            }
            EventRecord::Sample(sample) => {
                let (Some(pid), Some(regs), Some((stack, bytes))) = (sample.pid, sample.user_regs, sample.user_stack) else { continue };
                let Some(mappings) = processes.get(&pid) else { continue };
                let all = stack.as_slice();
                let stack = &all[..all.len().min(bytes as usize)];
                let unwinder = unwinders.entry(pid).or_insert_with(|| unwinder(mappings));
                one(mappings, unwinder, &mut cache, &regs, stack, &mut outcome);
            }
            _ => {}
        }
    }
    outcome
}

fn unwinder(mappings: &Mappings) -> UnwinderX86_64<Rc<[u8]>> {
    let mut unwinder = UnwinderX86_64::new();
    for (start, (end, offset, file)) in mappings {
        let Some((in_file, address, _)) = file.code.iter().find(|(at, _, length)| *offset < at + length && at <= &(offset + 4095)) else {
            continue;
        };
        let base = start.wrapping_sub(offset.wrapping_sub(*in_file).wrapping_add(*address));
        let sections = ExplicitModuleSectionInfo {
            text_svma: file.sections.text_svma.clone(),
            text: file.sections.text.clone(),
            got_svma: file.sections.got_svma.clone(),
            eh_frame_svma: file.sections.eh_frame_svma.clone(),
            eh_frame: file.sections.eh_frame.clone(),
            eh_frame_hdr_svma: file.sections.eh_frame_hdr_svma.clone(),
            eh_frame_hdr: file.sections.eh_frame_hdr.clone(),
            ..ExplicitModuleSectionInfo::default()
        };
        unwinder.add_module(Module::new(String::new(), *start..*end, base, sections));
    }
    unwinder
}

fn one(
    mappings: &Mappings,
    unwinder: &UnwinderX86_64<Rc<[u8]>>,
    cache: &mut CacheX86_64,
    regs: &Regs<'_>,
    bytes: &[u8],
    outcome: &mut Outcome,
) {
    // By place in pt_regs and number of perf.
    const PLACES: [(usize, u64); 17] = [
        (0, PERF_REG_X86_R15),
        (1, PERF_REG_X86_R14),
        (2, PERF_REG_X86_R13),
        (3, PERF_REG_X86_R12),
        (4, PERF_REG_X86_BP),
        (5, PERF_REG_X86_BX),
        (6, PERF_REG_X86_R11),
        (7, PERF_REG_X86_R10),
        (8, PERF_REG_X86_R9),
        (9, PERF_REG_X86_R8),
        (10, PERF_REG_X86_AX),
        (11, PERF_REG_X86_CX),
        (12, PERF_REG_X86_DX),
        (13, PERF_REG_X86_SI),
        (14, PERF_REG_X86_DI),
        (16, PERF_REG_X86_IP),
        (19, PERF_REG_X86_SP),
    ];
    let mut leaf = [0; register::COUNT];
    for (place, number) in PLACES {
        leaf[place] = regs.get(number).unwrap();
    }
    let mut stack = Copied { at: leaf[19], bytes, value: 0 };
    let (frames, end, guessed) = walk(mappings, &leaf, &mut stack);
    outcome.stacks += 1;
    if end != End::Root || guessed {
        return;
    }
    outcome.whole += 1;
    outcome.frames += frames.len() as u64;
    let mut registers = UnwindRegsX86_64::new(leaf[16], leaf[19], leaf[4]);
    let others = [(Reg::R15, 0), (Reg::R14, 1), (Reg::R13, 2), (Reg::R12, 3), (Reg::RBX, 5), (Reg::R11, 6), (Reg::R10, 7)];
    let more = [(Reg::R9, 8), (Reg::R8, 9), (Reg::RAX, 10), (Reg::RCX, 11), (Reg::RDX, 12), (Reg::RSI, 13), (Reg::RDI, 14)];
    for (register, place) in others.into_iter().chain(more) {
        registers.set(register, leaf[place]);
    }
    let mut read = |address: u64| stack.word(address).ok_or(());
    let mut other = unwinder.iter_frames(leaf[16], registers, cache, &mut read);
    let mut theirs = Vec::new();
    let mut failed = false;
    loop {
        match other.next() {
            Ok(Some(FrameAddress::InstructionPointer(address))) => theirs.push(address),
            Ok(Some(FrameAddress::ReturnAddress(address))) => theirs.push(address.into()),
            Ok(None) => break,
            Err(_) => {
                failed = true;
                break;
            }
        }
        if theirs.len() > 400 {
            break;
        }
    }
    let alike = frames.iter().zip(&theirs).take_while(|(ours, theirs)| ours == theirs).count();
    if alike == frames.len() && alike == theirs.len() {
        outcome.same += 1;
    } else if alike == theirs.len() && (failed || alike < frames.len()) {
        outcome.shorter += 1;
    } else if outcome.contradicted.len() < 10_000 {
        let told = |frames: &[u64]| {
            let of = |address: &u64| {
                let found = mappings.range(..=*address).next_back().filter(|(_, (end, ..))| address < end);
                found.map_or(format!("{address:x}"), |(start, (_, offset, _))| format!("{start:x}+{:x}", address - start + offset))
            };
            frames.iter().skip(alike.saturating_sub(1)).take(4).map(of).collect::<Vec<_>>().join(" ")
        };
        outcome.contradicted.push(format!("after {alike} of {} frames: {} | framehop: {}", frames.len(), told(&frames), told(&theirs)));
    }
}

/// In the long form: a hundred thousand stacks of programs as Debian packages them.
#[test]
#[ignore = "root, perf, and the programs"]
fn an_independent_unwinder_sees_the_same_callers() {
    let only = std::env::var("MEMTRAIL_TEST_PROGRAM").ok();
    let (mut whole, mut contradicted) = (0, Vec::new());
    for (name, period, text) in PROGRAMS.iter().filter(|(name, ..)| only.as_deref().is_none_or(|only| only == *name)) {
        let folder = tempfile::tempdir().unwrap();
        let work = command(name, text, folder.path());
        let data = folder.path().join("perf.data");
        let mut perf = Command::new("perf");
        perf.args(["record", "-q", "-e", "page-faults", "-c", &period.to_string(), "--call-graph", "dwarf,32768", "-o"]).arg(&data);
        perf.args(["--", "sh", "-c", &work]).current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        assert!(perf.status().expect("perf is installed").success(), "{name}");
        let outcome = compare(&data);
        println!(
            "{name:8} {:7} stacks, {:7} whole with {:5.1} frames each: {:7} alike to the end, {:6} as far as framehop comes, {} contradicted",
            outcome.stacks,
            outcome.whole,
            outcome.frames as f64 / outcome.whole.max(1) as f64,
            outcome.same,
            outcome.shorter,
            outcome.contradicted.len()
        );
        for told in outcome.contradicted.iter().take(5) {
            println!("    {told}");
        }
        whole += outcome.whole;
        contradicted.extend(outcome.contradicted);
    }
    println!("{whole} whole stacks");
    assert!(only.is_some() || whole >= 100_000, "{whole} are too few to tell");
    assert_eq!(contradicted, Vec::<String>::new());
}
