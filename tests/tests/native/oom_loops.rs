//! Kills that repeat, warnings before a kill, and what is marked without being killed.

use crate::containers::{CART, OTHER, bundle};
use crate::oom::{Readings, hog_first, of_victim};
use harness::cgroup::TestCgroup;
use harness::hierarchy::Version;
use harness::memtrail::{Memtrail, Mode, forced_provider, record_args, record_args_of};
use harness::workload::Workload;
use memtrail::analyse::oom::loops::Loops;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// S6: a unit is killed again and again at the limit above it, while what grows beside it has none.
#[test]
#[ignore = "root"]
fn native_oom_loop_names_who_grew_and_not_who_died() {
    let node = TestCgroup::new("oom-loop").unwrap();
    node.limit(128 * MIB).unwrap();
    let (grower, unit) = (node.child("grower").unwrap(), node.child("agent.service").unwrap());
    let (memtrail, readings) = Readings::start(record_args(node.path(), Mode::Default));
    let mut growing = Workload::start(&grower, &["grow", "--bytes", "90M", "--milliseconds", "80"]).unwrap();
    growing.run_to("growing").unwrap();
    let mut victims = Vec::new();
    for _ in 0..10 {
        // Restarted after a moment, as a service manager does: memtrail has read the cgroups meanwhile.
        readings.wait(1);
        victims.push(hog_first(&unit));
    }
    let outcome = memtrail.stop().unwrap();
    for pid in &victims {
        assert_eq!(of_victim(&outcome, *pid).limit_cgroup.as_deref(), Some(node.path()));
    }
    let loops: Loops = serde_json::from_value(outcome.report["oom_loops"].clone()).unwrap();
    println!("{}", memtrail::output::autopsy::loops(&loops));
    assert_eq!((loops.kills, loops.memcg, loops.global), (10, 10, 0));
    let killed = &loops.victims[0];
    assert_eq!((killed.unit.as_str(), killed.kills, killed.restarts, killed.oom_score_adj), (unit.path(), 10, 9, Some(1000)));
    assert_eq!(loops.growers.iter().filter(|row| row.cgroup == grower.path()).map(|row| row.kills).max(), Some(loops.growers[0].kills));
    let ids: Vec<&str> = loops.verdicts.iter().map(|verdict| verdict.id.as_str()).collect();
    assert_eq!(ids, ["oom-loop"], "a cgroup's limit says nothing of the host's");
    let text = &loops.verdicts[0].text;
    let expected = format!("of {} was killed 10 times in ", unit.path());
    assert!(text.contains(&expected) && text.contains(&format!("what grew is {}, by ", grower.path())), "{text}");
    assert!(text.contains(&format!("Set a limit on {}, which has none", grower.path())), "{text}");
}

/// `memtrail oom` with these arguments, once it waits.
fn oom_command(args: &[&str]) -> Child {
    let mut command = harness::memtrail::command().unwrap();
    command.arg("oom").args(args);
    command.args(forced_provider().map(|provider| format!("--provider={provider}")));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("waiting for OOM kills") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "memtrail oom ended");
    }
    // It would end if nobody read the rest.
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    child
}

/// A cgroup that grows is warned of by its slope, then by its share; one that is flat is not, and of one where killing is off (v1) that its
/// tasks wait.
#[test]
#[ignore = "root"]
fn native_oom_warns_before_it_happens() {
    let above = TestCgroup::new("oom-warn").unwrap();
    let [growing, flat, waiting] = ["growing", "flat", "waiting"].map(|name| above.child(name).unwrap());
    growing.limit(160 * MIB).unwrap();
    flat.limit(64 * MIB).unwrap();
    waiting.limit(16 * MIB).unwrap();
    let memtrail = oom_command(&["--cgroup", above.path(), "--follow", "--warn", "50%", "--warn-within", "1m"]);
    let mut said = Said::of(memtrail);
    let mut holder = Workload::start(&flat, &["anon", "--bytes", "24M"]).unwrap();
    holder.run_to("touched").unwrap();
    let mut waits = None;
    if above.version() == Version::V1 {
        std::fs::write(waiting.directory().join("memory.oom_control"), "1").unwrap();
        let mut stuck = Workload::start(&waiting, &["grow", "--bytes", "64M", "--milliseconds", "1"]).unwrap();
        stuck.run_to("growing").unwrap();
        // Making the evidence takes a while.
        said.wait_for("killing is off there", 1);
        said.wait_for(&format!("{} holds ", waiting.path()), 1);
        waits = Some(stuck);
    }
    // Half of the limit comes long after five readings, however busy the machine is.
    let mut grower = Workload::start(&growing, &["grow", "--bytes", "100M", "--milliseconds", "200"]).unwrap();
    grower.run_to("growing").unwrap();
    said.wait_for(&format!("{} holds ", growing.path()), 2);
    let whole = said.all();
    let of_growing: Vec<&str> =
        whole.split("Warning at ").filter(|warning| warning.contains(&format!("recording {} holds ", growing.path()))).collect();
    let said = |part: &str| of_growing.iter().map(|warning| warning.contains(part)).collect::<Vec<bool>>();
    assert_eq!(said(", and reaches its limit in "), [true, false], "by its slope, first and once: {whole}");
    assert_eq!(said(", over 50 % of its limit"), [false, true], "then by its share: {whole}");
    assert!(of_growing[0].contains("> wl_grow_a_step"), "the same evidence as of a kill");
    assert!(!whole.contains(&format!("recording {} holds", flat.path())), "{whole}");
    if waits.is_some() {
        assert_eq!(
            whole.matches("and killing is off there (memory.oom_control): its tasks wait for memory").count(),
            1,
            "told once: {whole}"
        );
    }
}

/// What `memtrail oom` says, with each run of white space as one space: however it was wrapped.
struct Said {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
    text: String,
}

impl Said {
    fn of(mut child: Child) -> Said {
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Said { child, lines, text: String::new() }
    }

    fn add(&mut self, line: &str) {
        println!("{line}");
        for word in line.split_whitespace() {
            self.text.push_str(word);
            self.text.push(' ');
        }
    }

    /// Waits until it has said that so many times.
    fn wait_for(&mut self, part: &str, times: usize) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.text.matches(part).count() < times {
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            self.add(&line.unwrap_or_else(|error| panic!("{part:?} is not said {times} times: {error}")));
        }
    }

    /// Ends it with Ctrl-C; all that it said.
    fn all(mut self) -> String {
        // SAFETY: kill takes no pointers; the child has not been waited for, so the id is still its own.
        assert_eq!(unsafe { libc::kill(i32::try_from(self.child.id()).unwrap(), libc::SIGINT) }, 0);
        while let Ok(line) = self.lines.recv() {
            self.add(&line);
        }
        self.child.wait().unwrap();
        self.text
    }
}

/// A pod gets its name after one of its processes was killed: it is told of then, and no kill of another pod is.
#[test]
#[ignore = "root"]
fn native_oom_of_a_pod_whose_name_comes_later_is_told() {
    let root = tempfile::tempdir().unwrap();
    let kubepods = TestCgroup::new("oom-kubepods").unwrap();
    let pods = [CART, OTHER].map(|uid| kubepods.child(&format!("pod{uid}")).unwrap());
    let ids = ["a1", "b2"].map(|byte| byte.repeat(32));
    let mut said = Said::of(oom_command(&["--host-root", root.path().to_str().unwrap(), "--pod", "shop/cart-7", "--follow"]));
    let containers: Vec<TestCgroup> = pods.iter().zip(&ids).map(|(pod, id)| pod.child(id).unwrap()).collect();
    let victims: Vec<u32> = containers
        .iter()
        .map(|container| {
            container.limit(24 * MIB).unwrap();
            hog_first(container)
        })
        .collect();
    // The other pod's kill was the later one, and is known not to be wanted by now.
    bundle(root.path(), &ids[1], "db", "stock-1", OTHER);
    bundle(root.path(), &ids[0], "web", "cart-7", CART);
    said.wait_for(&format!("memtrail-worklo[{}] was killed because its cgroup ", victims[0]), 1);
    let all = said.all();
    assert_eq!((all.matches("OOM kill at ").count(), all.contains(&format!("[{}]", victims[1]))), (1, false), "{all}");
}

/// A group of the freezer's, cgroup v1: a process in it takes no signal before it is thawed, and the OOM killer thaws.
struct Freezer(PathBuf);

impl Freezer {
    fn new() -> Option<Freezer> {
        let path = PathBuf::from(format!("/sys/fs/cgroup/freezer/memtrail-test-{}", std::process::id()));
        std::fs::create_dir(&path).ok().map(|()| Freezer(path))
    }

    fn freeze(&self, pid: u32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
        std::fs::write(self.0.join("freezer.state"), "FROZEN").unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::fs::read_to_string(self.0.join("freezer.state")).unwrap().trim() != "FROZEN" {
            assert!(Instant::now() < deadline, "it does not freeze");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("freezer.state"), "THAWED");
        std::thread::sleep(Duration::from_millis(200));
        if let Err(error) = std::fs::remove_dir(&self.0) {
            eprintln!("left behind: {}: {error}", self.0.display());
        }
    }
}

/// A process that was killed by somebody else and has not ended yet is given the reserves: it is marked, and told from one that was killed
/// for memory.
#[test]
#[ignore = "root"]
fn native_oom_of_a_task_that_is_ending_already() {
    let Some(freezer) = Freezer::new() else {
        println!("no freezer of cgroup v1: nothing to test");
        return;
    };
    let cgroup = TestCgroup::new("oom-ending").unwrap();
    cgroup.limit(64 * MIB).unwrap();
    let memtrail = Memtrail::start(&record_args_of(&[cgroup.path()], Mode::Exact, None)).unwrap();
    let mut holder = crate::oom::holder(&cgroup, 40 * MIB);
    freezer.freeze(holder.pid());
    // SAFETY: kill takes no pointers; the child has not been waited for, so the id is still its own.
    assert_eq!(unsafe { libc::kill(i32::try_from(holder.pid()).unwrap(), libc::SIGKILL) }, 0);
    let mut other = Workload::start(&cgroup, &["oom", "--bytes", "48M"]).unwrap();
    other.run_to("ready").unwrap();
    // The frozen one's memory goes first, and that is enough.
    other.next_step().unwrap();
    holder.wait().unwrap();
    let outcome = memtrail.stop().unwrap();
    let autopsy = of_victim(&outcome, holder.pid());
    println!("{}", memtrail::output::autopsy::render(&autopsy));
    let victim = autopsy.victims.iter().find(|victim| victim.pid == Some(holder.pid())).unwrap();
    assert_eq!(victim.already_ending, Some(true));
    // The kernel prints nothing of it, so it has not flushed its figures either: those of the picture stand in.
    crate::oom::assert_sums(&autopsy);
    assert_eq!(autopsy.sources["before.anon"], memtrail::analyse::oom::source::NOT_FLUSHED);
    assert!(autopsy.verdict.unwrap().contains("was ending already and was given the last reserves"));
    let loops: Loops = serde_json::from_value(outcome.report["oom_loops"].clone()).unwrap();
    assert!(loops.victims.is_empty(), "nobody was killed for memory: {loops:?}");
}
