//! The kernel's own log of OOM kills (mm/oom_kill.c), and whether an autopsy agrees with it. Pure: lines in, differences out.
//!
//! Kernels limit how often the long report is printed; the `Killed process` line always is. Names in the lines are chosen by others: a
//! task may be called `a,pid=1`, so what follows a name is looked for from the end.

use crate::report::autopsy::{Autopsy, Victim};
use std::collections::BTreeMap;

/// One kill as the log has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incident {
    /// Who invoked the killer, from the long report.
    pub trigger: Option<String>,
    /// Flags of the allocation.
    pub gfp_mask: Option<u32>,
    /// Its order; -1 for SysRq.
    pub order: Option<i32>,
    /// Usage, limit and failures of the limit's cgroup, kB.
    pub memory: Option<[u64; 3]>,
    /// Lines of memory.stat, as printed.
    pub stat: BTreeMap<String, u64>,
    /// "memcg", "none", "cpuset", "mempolicy".
    pub constraint: Option<String>,
    /// The limit's cgroup.
    pub oom_memcg: Option<String>,
    /// The victim's.
    pub task_memcg: Option<String>,
    /// All of a cgroup was killed (memory.oom.group).
    pub group: bool,
    /// Those killed, in order.
    pub victims: Vec<Killed>,
}

/// A `Killed process` line. Sizes in kB; `None` where that kernel prints none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Killed {
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// Address space.
    pub total_vm: Option<u64>,
    /// Anonymous.
    pub anon: Option<u64>,
    /// File.
    pub file: Option<u64>,
    /// Shmem.
    pub shmem: Option<u64>,
    /// Page tables.
    pub pagetables: Option<u64>,
    /// oom_score_adj.
    pub oom_score_adj: Option<i32>,
}

/// The message of a /dev/kmsg record, its lines apart: without the prefix, the dictionary, and the escapes of newlines.
pub fn messages(record: &str) -> impl Iterator<Item = &str> {
    let message = record.split_once(';').map_or(record, |(_, message)| message);
    let message = message.split_once('\n').map_or(message, |(first, _)| first);
    message.split("\\x0a")
}

/// Puts kills together from messages in their order; what is of no kill is passed over.
#[must_use]
pub fn incidents<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Incident> {
    let mut found: Vec<Incident> = Vec::new();
    let mut current = Incident::default();
    let mut in_stat = false;
    let mut finish = |current: &mut Incident| {
        let done = std::mem::take(current);
        if !done.victims.is_empty() {
            found.push(done);
        }
    };
    for line in lines {
        if in_stat {
            if let Some((key, number)) = stat_line(line) {
                current.stat.insert(key.to_owned(), number);
                continue;
            }
            in_stat = false;
        }
        if let Some((trigger, rest)) = line.split_once(" invoked oom-killer: ") {
            finish(&mut current);
            current.trigger = Some(trigger.to_owned());
            current.gfp_mask = field(rest, "gfp_mask=0x").and_then(|hex| u32::from_str_radix(digits(hex, 16), 16).ok());
            current.order = field(rest, "order=").and_then(|number| number.split(',').next()?.trim().parse().ok());
        } else if let Some(rest) = line.strip_prefix("memory: usage ") {
            let numbers: Vec<u64> = rest.split(' ').filter_map(|word| digits(word, 10).parse().ok()).collect();
            current.memory = numbers.try_into().ok();
        } else if line.starts_with("Memory cgroup stats for ") {
            in_stat = true;
        } else if let Some(rest) = line.strip_prefix("oom-kill:") {
            current.constraint = constraint(rest);
            current.oom_memcg = between(rest, "oom_memcg=", ",task_memcg=");
            current.task_memcg = between(rest, ",task_memcg=", ",task=");
        } else if let Some(killed) = killed(line) {
            // Without the long report nothing tells two kills apart; of one group only the first has it.
            if !current.victims.is_empty() && !current.group {
                finish(&mut current);
            }
            current.victims.push(killed);
        } else if line.contains("memory.oom.group set") {
            current.group = true;
        }
    }
    finish(&mut current);
    found
}

fn digits(text: &str, radix: u32) -> &str {
    let end = text.find(|c: char| !c.is_digit(radix)).unwrap_or(text.len());
    &text[..end]
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split_once(name).map(|(_, rest)| rest)
}

fn stat_line(line: &str) -> Option<(&str, u64)> {
    let (key, number) = line.trim().split_once(' ')?;
    let named = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    Some((key, number.parse().ok()?)).filter(|_| named)
}

fn constraint(rest: &str) -> Option<String> {
    let name = rest.strip_prefix("constraint=CONSTRAINT_")?.split(',').next()?;
    Some(match name {
        "MEMORY_POLICY" => "mempolicy".to_owned(),
        name => name.to_ascii_lowercase(),
    })
}

/// What stands between two marks; the second is looked for from the end, since the name before it may hold anything.
fn between(text: &str, from: &str, to: &str) -> Option<String> {
    let rest = field(text, from)?;
    rest.rfind(to).map(|end| rest[..end].to_owned())
}

/// `Killed process 4621 (python3) total-vm:75196kB, anon-rss:65280kB, file-rss:6472kB, shmem-rss:0kB, UID:0 pgtables:192kB
/// oom_score_adj:0`; up to 5.5 without the last two.
fn killed(line: &str) -> Option<Killed> {
    let (_, rest) = line.split_once("Killed process ")?;
    let (pid, rest) = rest.split_once(" (")?;
    let (comm, sizes) = rest.rsplit_once(") ")?;
    let size = |name: &str| field(sizes, name).and_then(|text| digits(text, 10).parse().ok());
    Some(Killed {
        pid: pid.parse().ok()?,
        comm: comm.to_owned(),
        total_vm: size("total-vm:"),
        anon: size("anon-rss:"),
        file: size("file-rss:"),
        shmem: size("shmem-rss:"),
        pagetables: size("pgtables:"),
        oom_score_adj: field(sizes, "oom_score_adj:").and_then(|text| text.trim().parse().ok()),
    })
}

/// How an autopsy and the log compare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Fields compared.
    pub compared: u32,
    /// Fields that only one of them has, or that the autopsy took from the log.
    pub left_out: u32,
    /// `FIELD: autopsy X, log Y`.
    pub differences: Vec<String>,
}

impl Agreement {
    /// `None` from the autopsy or from the log leaves the field out.
    fn same<T: PartialEq + std::fmt::Debug>(&mut self, field: &str, autopsy: Option<T>, log: Option<T>) {
        self.within(field, autopsy, log, |a, b| a == b);
    }

    fn within<T: std::fmt::Debug>(&mut self, field: &str, autopsy: Option<T>, log: Option<T>, agree: impl Fn(&T, &T) -> bool) {
        match (autopsy, log) {
            (Some(autopsy), Some(log)) => {
                self.compared += 1;
                if !agree(&autopsy, &log) {
                    self.differences.push(format!("{field}: autopsy {autopsy:?}, log {log:?}"));
                }
            }
            (None, None) => {}
            _ => self.left_out += 1,
        }
    }
}

/// Compares; `None` if no incident has a victim of the autopsy's.
///
/// The log rounds to kB. Its long report is printed before the picture is taken, and others charge meanwhile: `batch_kb` is what CPUs may
/// hold back between them.
#[must_use]
pub fn compare(autopsy: &Autopsy, incidents: &[Incident], batch_kb: u64) -> Option<Agreement> {
    let pids: Vec<u32> = autopsy.victims.iter().filter_map(|victim| victim.pid).collect();
    // The last one: ids are used again.
    let incident = incidents.iter().rfind(|incident| incident.victims.iter().any(|killed| pids.contains(&killed.pid)))?;
    let from_log = |field: &str| autopsy.sources.get(field).is_some_and(|from| from == super::source::LOG);
    let mut agreement = Agreement::default();
    agreement.same("constraint", autopsy.constraint.clone().filter(|_| !from_log("constraint")), incident.constraint.clone());
    agreement.same("limit_cgroup", autopsy.limit_cgroup.clone().filter(|_| !from_log("limit_cgroup")), incident.oom_memcg.clone());
    let trigger = autopsy.trigger.as_ref().and_then(|trigger| trigger.comm.clone());
    agreement.same("trigger", trigger, incident.trigger.clone());
    agreement.same("order", autopsy.order.map(|order| order as i32), incident.order);
    agreement.same("gfp_mask", autopsy.gfp_mask, incident.gfp_mask);
    let near = |a: &u64, b: &u64| a.abs_diff(*b) <= batch_kb;
    let [usage, limit, failcnt] = incident.memory.map_or([None; 3], |memory| memory.map(Some));
    agreement.within("usage kB", autopsy.usage_bytes.map(kb), usage, near);
    agreement.same("limit kB", autopsy.limit_bytes.map(kb), limit);
    // Others go on failing until somebody is dead.
    agreement.within("failcnt", autopsy.failcnt, failcnt, |autopsy, log| autopsy >= log && autopsy - log <= 1000);
    compare_kinds(&mut agreement, autopsy, incident, batch_kb);
    if let (Some(first), Some(path)) = (autopsy.victims.first(), &incident.task_memcg) {
        agreement.same("victim's cgroup", first.cgroup.clone(), Some(path.clone()));
    }
    for victim in autopsy.victims.iter().filter(|victim| victim.already_ending != Some(true)) {
        match incident.victims.iter().find(|killed| Some(killed.pid) == victim.pid) {
            Some(killed) => compare_victim(&mut agreement, victim, killed, batch_kb),
            None => agreement.differences.push(format!("victim {:?}: not in the log", victim.pid)),
        }
    }
    for killed in incident.victims.iter().filter(|killed| !pids.contains(&killed.pid)) {
        agreement.differences.push(format!("victim {}: not in the autopsy", killed.pid));
    }
    Some(agreement)
}

fn kb(bytes: u64) -> u64 {
    bytes / 1024
}

/// Kinds against the lines of memory.stat: v1's of the subtree, or v2's.
fn compare_kinds(agreement: &mut Agreement, autopsy: &Autopsy, incident: &Incident, batch_kb: u64) {
    let line = |v1: &str, v2: &str| incident.stat.get(v1).or_else(|| incident.stat.get(v2)).copied();
    let shmem = line("total_shmem", "shmem");
    let file = line("total_cache", "file").zip(shmem).map(|(file, shmem)| file.saturating_sub(shmem));
    for (kind, log) in [("anon", line("total_rss", "anon")), ("shmem", shmem), ("file", file)] {
        let kept = autopsy.before.get(kind).copied().flatten().and_then(|bytes| u64::try_from(bytes).ok());
        agreement.within(&format!("{kind} kB"), kept.map(kb), log.map(kb), |a, b| a.abs_diff(*b) <= batch_kb);
    }
}

fn compare_victim(agreement: &mut Agreement, victim: &Victim, killed: &Killed, batch_kb: u64) {
    let name = |field: &str| format!("victim {}: {field}", killed.pid);
    agreement.same(&name("name"), victim.comm.clone(), Some(killed.comm.clone()));
    agreement.same(&name("total_vm kB"), victim.total_vm.map(kb), killed.total_vm);
    let near = |a: &u64, b: &u64| a.abs_diff(*b) <= batch_kb;
    agreement.within(&name("anon kB"), victim.anon.map(kb), killed.anon, near);
    agreement.within(&name("file kB"), victim.file.map(kb), killed.file, near);
    agreement.within(&name("shmem kB"), victim.shmem.map(kb), killed.shmem, near);
    agreement.same(&name("page tables kB"), victim.pagetables.map(kb), killed.pagetables);
    agreement.same(&name("oom_score_adj"), victim.oom_score_adj, killed.oom_score_adj);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "log_tests.rs"]
mod tests;
