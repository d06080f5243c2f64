//! OOM kills in cgroups of the tests' own: each autopsy is compared with the kernel's log, field by field, and with what the workloads
//! are known to have done. Nothing here can run the host out of memory: every cgroup has a limit.

use harness::cgroup::TestCgroup;
use harness::kernel;
use harness::memtrail::{Memtrail, Mode, Outcome, forced_provider, providers, record_args, record_args_of};
use harness::report;
use harness::workload::Workload;
use memtrail::analyse::oom::log::{self, Incident};
use memtrail::report::autopsy::{Autopsy, Victim};
use memtrail::trace::kmsg::Kmsg;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// What a CPU may hold back of a counter (MEMCG_CHARGE_BATCH).
const BATCH: u64 = 64 * 4096;
/// The kernel prints the long report so many times in so long at most, for all kills together.
const REPORTS: (usize, Duration) = (10, Duration::from_secs(5));
/// Long reports that a scenario needs.
const REPORTS_NEEDED: usize = 5;
/// When processes were killed.
static KILLS: Mutex<Vec<Instant>> = Mutex::new(Vec::new());

fn killed() {
    KILLS.lock().unwrap().push(Instant::now());
}

/// Waits until the kernel prints the long report of the kills to come.
fn wait_for_reports() {
    let recent = || KILLS.lock().unwrap().iter().filter(|at| at.elapsed() <= REPORTS.1).count();
    while recent() + REPORTS_NEEDED > REPORTS.0 {
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn batch() -> u64 {
    BATCH * std::thread::available_parallelism().unwrap().get() as u64
}

/// Touches memory without end until it is killed; its pid.
fn hog(cgroup: &TestCgroup) -> u32 {
    hog_with(cgroup, None)
}

/// The same, of a process that the kernel kills before any other.
pub fn hog_first(cgroup: &TestCgroup) -> u32 {
    hog_with(cgroup, Some("1000"))
}

fn hog_with(cgroup: &TestCgroup, oom_score_adj: Option<&str>) -> u32 {
    let mut hog = Workload::start(cgroup, &["oom", "--bytes", "4G"]).unwrap();
    hog.run_to("ready").unwrap();
    if let Some(adjustment) = oom_score_adj {
        std::fs::write(format!("/proc/{}/oom_score_adj", hog.pid()), adjustment).unwrap();
    }
    assert!(hog.next_step().unwrap().is_none(), "the hog survived");
    killed();
    assert!(!hog.wait().unwrap().success());
    hog.pid()
}

/// A process that touches so much and then waits.
pub fn holder(cgroup: &TestCgroup, bytes: u64) -> Workload {
    let mut holder = Workload::start(cgroup, &["anon", "--bytes", &bytes.to_string()]).unwrap();
    holder.run_to("touched").unwrap();
    holder
}

/// A recording that tells when it has read the cgroups: what an autopsy compares with must have been seen, however slow the machine is.
pub struct Readings(tempfile::TempDir);

impl Readings {
    pub fn start(mut args: Vec<String>) -> (Memtrail, Readings) {
        let readings = Readings(tempfile::tempdir().unwrap());
        args.extend(["--stream".to_owned(), readings.stream().to_str().unwrap().to_owned()]);
        (Memtrail::start(&args).unwrap(), readings)
    }

    fn stream(&self) -> std::path::PathBuf {
        self.0.path().join("readings")
    }

    fn count(&self) -> usize {
        std::fs::read_to_string(self.stream()).unwrap_or_default().lines().count()
    }

    /// Waits for so many more.
    pub fn wait(&self, more: usize) {
        let (before, deadline) = (self.count(), Instant::now() + Duration::from_secs(120));
        while self.count() < before + more {
            assert!(Instant::now() < deadline, "no reading comes");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Waits until that many `Killed process` lines of these processes are in the log.
pub fn logged(kmsg: &mut Kmsg, pids: &[u32]) -> Vec<Incident> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let messages = kmsg.messages().unwrap();
        let incidents = log::incidents(messages.iter().map(String::as_str));
        let has = |pid: &u32| incidents.iter().any(|incident| incident.victims.iter().any(|killed| killed.pid == *pid));
        if pids.iter().all(has) {
            return incidents;
        }
        assert!(Instant::now() < deadline, "not in the log: {pids:?} of {messages:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn autopsies(outcome: &Outcome) -> Vec<Autopsy> {
    outcome.report["oom"].as_array().unwrap().iter().map(|value| serde_json::from_value::<Autopsy>(value.clone()).unwrap()).collect()
}

pub fn of_victim(outcome: &Outcome, pid: u32) -> Autopsy {
    let all = autopsies(outcome);
    let found = all.iter().find(|autopsy| autopsy.victims.iter().any(|victim| victim.pid == Some(pid)));
    found.unwrap_or_else(|| panic!("no autopsy of {pid} among {all:#?}")).clone()
}

pub fn victim(autopsy: &Autopsy, pid: u32) -> Victim {
    autopsy.victims.iter().find(|victim| victim.pid == Some(pid)).unwrap().clone()
}

/// The autopsy and the log say the same, and of enough fields.
pub fn assert_agrees(autopsy: &Autopsy, incidents: &[Incident], least: u32) {
    let agreement = log::compare(autopsy, incidents, batch() / 1024).expect("the log has this kill");
    println!("{}\n  log: {agreement:?}", memtrail::output::autopsy::render(autopsy));
    assert_eq!(agreement.differences, Vec::<String>::new());
    assert!(agreement.compared >= least, "{} of {least} fields compared", agreement.compared);
}

/// Kinds and remainder sum to the usage, and the remainder is small.
pub fn assert_sums(autopsy: &Autopsy) {
    let in_usage = |kind: &str| kind != "swap" && (kind != "sock" || !harness_is_v1());
    let sum: i64 = autopsy.before.iter().filter(|(kind, _)| in_usage(kind)).map(|(_, bytes)| bytes.unwrap_or(0)).sum();
    assert_eq!(Some(sum), autopsy.usage_bytes.map(|usage| usage as i64), "{:?}", autopsy.before);
    let remainder = autopsy.before["remainder"].unwrap().unsigned_abs();
    for kind in ["anon", "file", "shmem", "kernel", "sock"] {
        assert!(autopsy.before.contains_key(kind), "{kind} has no line: {:?}", autopsy.before);
    }
    let allowed = (autopsy.limit_bytes.unwrap() / 50).max(batch());
    assert!(remainder <= allowed, "remainder {remainder}, allowed {allowed}: {:?}", autopsy.before);
}

/// Runs a scenario with each provider. The kernel's long report must be printed for each.
pub fn with_each_provider(scenario: impl Fn(&str, Option<&str>)) {
    for provider in providers() {
        let name = provider.as_deref().unwrap_or("best");
        println!("provider: {name}");
        wait_for_reports();
        scenario(name, provider.as_deref());
    }
}

fn harness_is_v1() -> bool {
    memtrail::cgroup::Hierarchy::find().unwrap().version == memtrail::cgroup::Version::V1
}

/// Bytes of the hog's memory in the picture: by stacks through its function, with their error.
fn through(autopsy: &Autopsy, function: &str) -> (u64, u64) {
    let rows: Vec<_> = autopsy.stacks.iter().filter(|row| row.frames.iter().any(|frame| frame == function)).collect();
    let variance: f64 = rows.iter().map(|row| (row.live_stderr as f64).powi(2)).sum();
    (rows.iter().map(|row| row.live).sum(), variance.sqrt() as u64)
}

/// What an autopsy must say beside what the kernel's log says.
type Check = Box<dyn FnOnce(&Autopsy, &Outcome)>;

/// A kill that was made, and its victim.
struct Made {
    pid: u32,
    check: Check,
}

/// Kills of each sort in one recording. All figures of each agree with the kernel's log and sum up to the usage.
#[test]
#[ignore = "root"]
fn native_oom_kills_of_each_sort_agree_with_the_kernels_log() {
    with_each_provider(|name, provider| {
        let above = TestCgroup::new(&format!("oom-{name}")).unwrap();
        let mut kmsg = Kmsg::from_now().unwrap();
        let memtrail = Memtrail::start(&record_args_of(&[above.path()], Mode::Default, provider)).unwrap();
        let mut kills = vec![alone_at_its_own_limit(&above), neither_first_nor_at_its_own_limit(&above)];
        if harness_is_v1() {
            println!("cgroup v1 has no memory.oom.group");
        } else {
            kills.push(with_its_group(&above));
        }
        kills.push(gone_before_it_is_read(&above, &memtrail));
        let pids: Vec<u32> = kills.iter().map(|kill| kill.pid).collect();
        let incidents = logged(&mut kmsg, &pids);
        let outcome = memtrail.stop().unwrap();
        assert_known_once(&autopsies(&outcome), &incidents);
        for Made { pid, check } in kills {
            let autopsy = of_victim(&outcome, pid);
            // Constraint, cgroups, trigger, usage, limit, failures, three kinds and seven figures of the victim.
            assert_agrees(&autopsy, &incidents, 16);
            assert_sums(&autopsy);
            assert_eq!((autopsy.constraint.as_deref(), autopsy.picture.as_str()), (Some("memcg"), "frozen"));
            if report::tier(&outcome.report).unwrap() == "tracepoint" {
                assert_eq!(autopsy.order, None);
                assert!(autopsy.sources["limit_cgroup"].contains("counters"), "{:?}", autopsy.sources);
            } else {
                assert_eq!((autopsy.order, autopsy.sources["limit_cgroup"].as_str()), (Some(0), "probe"));
            }
            check(&autopsy, &outcome);
        }
        let losses = report::losses(&outcome.report).unwrap();
        assert_eq!((losses.get("oom_event_lost"), losses.get("picture_refused")), (None, None));
        assert!(
            outcome.report["oom_loops"]["verdicts"].as_array().is_some_and(Vec::is_empty),
            "nobody was killed again: {:?}",
            outcome.report["oom_loops"]
        );
    });
}

/// Nobody is told of twice, nor of whom the kernel's log does not know. A small one may be killed after the large one, where that ends slowly.
fn assert_known_once(autopsies: &[Autopsy], incidents: &[Incident]) {
    let killed = autopsies.iter().flat_map(|autopsy| &autopsy.victims).filter(|victim| victim.already_ending != Some(true));
    let mut seen: Vec<u32> = killed.map(|victim| victim.pid.unwrap()).collect();
    let logged = |pid: &u32| incidents.iter().any(|incident| incident.victims.iter().any(|killed| killed.pid == *pid));
    assert!(seen.iter().all(logged), "{seen:?} of {incidents:#?}");
    let all = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), all, "{autopsies:#?}");
}

fn alone_at_its_own_limit(above: &TestCgroup) -> Made {
    let cgroup = above.child("own").unwrap();
    cgroup.limit(96 * MIB).unwrap();
    let pid = hog(&cgroup);
    let check = move |autopsy: &Autopsy, _: &Outcome| {
        assert_eq!((autopsy.limit_cgroup.as_deref(), autopsy.limit_bytes), (Some(cgroup.path()), Some(96 * MIB)));
        assert_eq!(autopsy.trigger.as_ref().unwrap().pid, Some(pid), "the victim itself");
        assert_eq!((victim(autopsy, pid).cgroup.as_deref(), victim(autopsy, pid).already_ending), (Some(cgroup.path()), Some(false)));
        let (live, error) = through(autopsy, "wl_touch_oom");
        assert!(live.abs_diff(95 * MIB) <= 3 * error + 2 * MIB, "{live} ± {error} of 95 MiB");
        assert!(autopsy.verdict.as_ref().unwrap().contains(&format!("of it by memtrail-worklo[{pid}] through")), "{:?}", autopsy.verdict);
        assert_eq!(autopsy.verdicts, [], "a heap that grows is none of the known cases");
        let grown = autopsy.growth.iter().find(|row| row.frames.iter().flatten().any(|frame| frame == "wl_touch_oom"));
        assert!(grown.is_some_and(|row| row.kind == "anon" && row.pid == Some(pid) && row.bytes as u64 > 64 * MIB), "{:?}", autopsy.growth);
    };
    Made { pid, check: Box::new(check) }
}

/// The second process of a container, at the limit of the pod, which has another container.
fn neither_first_nor_at_its_own_limit(above: &TestCgroup) -> Made {
    let pod = above.child("pod").unwrap();
    pod.limit(128 * MIB).unwrap();
    let web = pod.child("web").unwrap();
    web.limit(512 * MIB).unwrap();
    let sidecar = pod.child("sidecar").unwrap();
    let first = holder(&web, 4 * MIB);
    let neighbour = holder(&sidecar, 32 * MIB);
    let pid = hog(&web);
    let check = move |autopsy: &Autopsy, _: &Outcome| {
        assert_ne!(pid, first.pid());
        assert_eq!((autopsy.limit_cgroup.as_deref(), autopsy.limit_bytes), (Some(pod.path()), Some(128 * MIB)));
        assert_eq!(victim(autopsy, pid).cgroup.as_deref(), Some(web.path()));
        let siblings: Vec<&str> = autopsy.siblings.iter().map(|sibling| sibling.cgroup.as_str()).collect();
        assert_eq!(siblings, [web.path(), sidecar.path()], "largest first: {:?}", autopsy.siblings);
        assert_eq!(autopsy.siblings[0].source, "probe");
        let levels: Vec<&str> = autopsy.levels.iter().map(|level| level.cgroup.as_str()).collect();
        assert_eq!(levels[..2], [web.path(), pod.path()]);
        drop((neighbour, first, sidecar, web));
    };
    Made { pid, check: Box::new(check) }
}

/// One kill, and all its victims.
fn with_its_group(above: &TestCgroup) -> Made {
    let cgroup = above.child("group").unwrap();
    cgroup.limit(64 * MIB).unwrap();
    std::fs::write(cgroup.directory().join("memory.oom.group"), "1").unwrap();
    let mut holders = [holder(&cgroup, 4 * MIB), holder(&cgroup, 8 * MIB)];
    let pid = hog(&cgroup);
    let mut pids: Vec<u32> = holders.iter().map(Workload::pid).chain([pid]).collect();
    pids.sort_unstable();
    for holder in &mut holders {
        assert!(!holder.wait().unwrap().success(), "all of the group are killed");
    }
    let check = move |autopsy: &Autopsy, _: &Outcome| {
        assert_eq!((autopsy.limit_cgroup.as_deref(), autopsy.group_kill), (Some(cgroup.path()), Some(true)));
        let mut found: Vec<u32> = autopsy.victims.iter().filter_map(|victim| victim.pid).collect();
        found.sort_unstable();
        assert_eq!(found, pids);
        let known = autopsy.victims.iter().filter(|victim| victim.anon.is_some_and(|bytes| bytes > 3 * MIB) && victim.comm.is_some());
        assert_eq!(known.count(), 3, "each with its figures: {:?}", autopsy.victims);
    };
    Made { pid, check: Box::new(check) }
}

/// All of its memory is gone before the collector runs again.
fn gone_before_it_is_read(above: &TestCgroup, memtrail: &Memtrail) -> Made {
    let bytes = if kernel::in_own_machine() { 100 * MIB } else { 400 * MIB };
    let cgroup = above.child("frozen").unwrap();
    // Less than half of it is left for the small one.
    cgroup.limit(bytes + 8 * MIB).unwrap();
    let mut holder = holder(&cgroup, bytes);
    memtrail.pause().unwrap();
    // A small one's failure kills the large one.
    let mut small = Workload::start(&cgroup, &["oom", "--bytes", &(16 * MIB).to_string()]).unwrap();
    small.run_to("ready").unwrap();
    small.next_step().unwrap();
    let small_pid = small.pid();
    drop(small);
    assert!(!holder.wait().unwrap().success(), "the holder was killed");
    killed();
    let deadline = Instant::now() + Duration::from_secs(60);
    while cgroup.usage().unwrap() > bytes / 4 {
        assert!(Instant::now() < deadline, "{} bytes are charged still", cgroup.usage().unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    memtrail.resume().unwrap();
    let check = move |autopsy: &Autopsy, outcome: &Outcome| {
        assert_eq!(autopsy.trigger.as_ref().unwrap().pid, Some(small_pid), "{:?}", autopsy.trigger);
        let (live, error) = through(autopsy, "wl_touch_anon");
        assert!(live.abs_diff(bytes) <= 3 * error + 2 * MIB, "{live} ± {error} of {bytes}");
        let now = report::stack_sum(&outcome.report, cgroup.path(), "anon", Some(&["wl_touch_anon"]), |row| row.live).unwrap();
        assert_eq!(now, 0, "the report of the end has nothing of it");
        let sentence = autopsy.verdict.as_ref().unwrap();
        assert!(sentence.contains("the allocation that failed was memtrail-worklo["), "{sentence}");
    };
    Made { pid: holder.pid(), check: Box::new(check) }
}

#[test]
#[ignore = "root"]
fn native_oom_ten_kills_while_nobody_reads_are_ten_autopsies_and_four_pictures() {
    let cgroup = TestCgroup::new("oom-ten").unwrap();
    cgroup.limit(16 * MIB).unwrap();
    let mut kmsg = Kmsg::from_now().unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Default)).unwrap();
    memtrail.pause().unwrap();
    let pids: Vec<u32> = (0..10).map(|_| hog(&cgroup)).collect();
    let incidents = logged(&mut kmsg, &pids);
    memtrail.resume().unwrap();
    let outcome = memtrail.stop().unwrap();

    let autopsies = autopsies(&outcome);
    let victims: Vec<u32> = autopsies.iter().flat_map(|autopsy| autopsy.victims.iter().filter_map(|victim| victim.pid)).collect();
    assert_eq!(victims, pids, "each in its order");
    let frozen = autopsies.iter().filter(|autopsy| autopsy.picture == "frozen").count();
    let refused = autopsies.iter().filter(|autopsy| autopsy.picture.contains("as many as there can be")).count();
    assert_eq!((frozen, refused), (4, 6));
    assert!(autopsies[..4].iter().all(|autopsy| !autopsy.stacks.is_empty()), "the first four have their stacks");
    let losses = report::losses(&outcome.report).unwrap();
    assert_eq!(losses.get("picture_refused"), Some(&6), "{losses:?}");
    assert_eq!((losses.get("oom_event_lost"), losses.get("oom_victims_without_kill")), (None, None));
    for autopsy in &autopsies {
        assert_eq!(autopsy.limit_cgroup.as_deref(), Some(cgroup.path()));
        // The long report is printed for some only; the line of the victim always.
        let agreement = log::compare(autopsy, &incidents, batch() / 1024).unwrap();
        assert!(agreement.differences.is_empty() && agreement.compared >= 7, "{agreement:?}");
    }
    assert_eq!(outcome.status.code(), Some(3), "what was refused is a loss");
}

/// A picture whose event did not fit in the ring is closed again: later kills have theirs.
#[test]
#[ignore = "root"]
fn native_oom_events_that_do_not_fit_are_counted_and_leave_no_picture_open() {
    let cgroup = TestCgroup::new("oom-ring").unwrap();
    cgroup.limit(16 * MIB).unwrap();
    let mut args = record_args(cgroup.path(), Mode::Default);
    args.extend(["--table".to_owned(), "OOM_EVENTS=4096".to_owned()]);
    let memtrail = Memtrail::start(&args).unwrap();
    memtrail.pause().unwrap();
    for _ in 0..5 {
        hog(&cgroup);
    }
    memtrail.resume().unwrap();
    // It has seen the loss once its last second's reading is over.
    std::thread::sleep(Duration::from_secs(3));
    let last = hog(&cgroup);
    let outcome = memtrail.stop().unwrap();
    let losses = report::losses(&outcome.report).unwrap();
    assert!(losses.get("oom_event_lost").is_some_and(|lost| *lost > 0), "{losses:?}");
    let kept = autopsies(&outcome);
    assert!((2..6).contains(&kept.len()), "{} of 6", kept.len());
    assert_eq!(of_victim(&outcome, last).picture, "frozen", "{losses:?}");
}

#[test]
#[ignore = "root"]
fn native_oom_command_prints_keeps_and_checks() {
    wait_for_reports();
    let cgroup = TestCgroup::new("oom-command").unwrap();
    cgroup.limit(64 * MIB).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("kill.html");
    let mut command = harness::memtrail::command().unwrap();
    command.args(["oom", "--check-log", "--duration", "60s", "--cgroup", cgroup.path(), "--dir"]).arg(dir.path()).arg("-o").arg(&page);
    command.args(forced_provider().map(|provider| format!("--provider={provider}")));
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("waiting for OOM kills") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0, "memtrail oom ended");
    }
    let pid = hog(&cgroup);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    println!("{text}");
    // As one line, however it was wrapped.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(output.status.success(), "{}: {text}", output.status);
    assert!(text.contains(&format!("memtrail-worklo[{pid}] was killed because its cgroup {} was at its limit", cgroup.path())), "{text}");
    assert!(text.contains("fields agree with the kernel's log"), "{text}");
    assert!(std::fs::read_to_string(&page).unwrap().contains("<svg"));
    let kept =
        std::fs::read_dir(dir.path()).unwrap().filter_map(Result::ok).filter(|e| e.path().extension().is_some_and(|e| e == "json")).count();
    assert_eq!(kept, 1);
}

/// Bounded, and nothing is lost in silence.
#[test]
#[ignore = "root"]
fn long_oom_two_hundred_kills_are_seen_or_counted() {
    const KILLS: usize = 200;
    const AT_ONCE: usize = 4;
    let above = TestCgroup::new("oom-many").unwrap();
    let cgroups: Vec<TestCgroup> = (0..AT_ONCE).map(|n| above.child(&n.to_string()).unwrap()).collect();
    cgroups.iter().for_each(|cgroup| cgroup.limit(4 * MIB).unwrap());
    // From its start to its death, one in each cgroup at a time.
    let series = |kills: usize| {
        let one_by_one = |cgroup: &TestCgroup| -> Vec<Duration> {
            let one = |_| {
                let began = Instant::now();
                hog(cgroup);
                began.elapsed()
            };
            (0..kills / AT_ONCE).map(one).collect()
        };
        let mut all: Vec<Duration> = std::thread::scope(|scope| {
            let series: Vec<_> = cgroups.iter().map(|cgroup| scope.spawn(|| one_by_one(cgroup))).collect();
            series.into_iter().flat_map(|series| series.join().unwrap()).collect()
        });
        all.sort();
        all
    };
    let without = series(40);
    let memtrail = Memtrail::start(&record_args(above.path(), Mode::Default)).unwrap();
    let began = Instant::now();
    let with = series(KILLS);
    let took = began.elapsed();
    let outcome = memtrail.stop().unwrap();
    let losses = report::losses(&outcome.report).unwrap();
    let kept = autopsies(&outcome).len();
    println!(
        "{KILLS} kills in {took:?}: {kept} autopsies, losses {losses:?}; from start to death: median {:?} without tracing, {:?} with; {} bytes \
         resident",
        without[without.len() / 2],
        with[with.len() / 2],
        outcome.report["cost"]["collector_rss_bytes"]
    );
    let counted = ["oom_event_lost", "oom_autopsies_dropped"].iter().map(|cause| losses.get(*cause).copied().unwrap_or(0)).sum::<u64>();
    assert!(kept as u64 + counted >= KILLS as u64, "{kept} kept, {counted} counted");
    assert!(kept <= 256);
    assert!(outcome.report["cost"]["collector_rss_bytes"].as_u64().unwrap() < 512 * MIB);
}
