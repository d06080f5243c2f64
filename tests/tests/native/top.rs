//! `memtrail top` in a real terminal: keys, sizes, and the terminal afterwards.

use harness::accuracy::size;
use harness::cgroup::TestCgroup;
use harness::memtrail;
use harness::place::own_machine;
use harness::watchdog;
use harness::workload::Workload;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A terminal with a shell in it. Dropped, both are ended.
struct Terminal {
    name: String,
}

impl Terminal {
    fn new(folder: &Path, (columns, rows): (u16, u16)) -> Terminal {
        let terminal = Terminal { name: format!("memtrail-test-{}-{columns}", std::process::id()) };
        let size = ["-x", &columns.to_string(), "-y", &rows.to_string()].map(str::to_owned);
        terminal.tmux(
            &[
                &["new-session", "-d", "-c", folder.to_str().unwrap()],
                &size.each_ref().map(String::as_str)[..],
                &["env PS1='ready> ' LC_ALL=C.UTF-8 sh"],
            ]
            .concat(),
        );
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux").args(["-L", &self.name, "-f", "/dev/null"]).args(args).output().expect("Debian's package tmux");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn shown(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until something is shown, and gives all of it.
    fn until(&self, part: &str) -> String {
        let _wait = watchdog::waiting(format!("{part:?} on the terminal"));
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let shown = self.shown();
            if shown.contains(part) {
                return shown;
            }
            assert!(Instant::now() < end, "{part:?} is not shown:\n{shown}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.name, "kill-server"]).output();
    }
}

#[test]
#[ignore = "root"]
fn native_top_shows_what_is_held_and_leaves_the_terminal_as_it_was() {
    if own_machine() {
        println!("the machine has no tmux");
        return;
    }
    let bytes = size(48 << 20).unwrap();
    let cgroup = TestCgroup::new("top").unwrap();
    cgroup.limit(4 * bytes).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (columns, rows) in [(80, 24), (120, 40)] {
        let terminal = Terminal::new(folder.path(), (columns, rows));
        terminal.until("ready>");
        terminal.press(&["stty -a > before", "Enter"]);
        let program = memtrail::binary().unwrap();
        let began = Instant::now();
        terminal.press(&[&format!("{} top --cgroup {}", program.display(), cgroup.path()), "Enter"]);
        terminal.until("CONTAINER OR CGROUP");
        println!("{columns}x{rows}: the first screen after {:?}", began.elapsed());
        let mut workload = Workload::start(&cgroup, &["anon", "--bytes", &bytes.to_string()]).unwrap();
        workload.run_to("touched").unwrap();
        let shown = terminal.until(" MiB");
        assert!(shown.lines().all(|line| line.chars().count() <= usize::from(columns)), "{shown}");
        terminal.press(&["Enter"]);
        let shown = terminal.until("wl_");
        assert!(shown.contains("[stacks]") && shown.contains("MiB"), "{shown}");
        terminal.press(&["f"]);
        terminal.until("flame graph of");
        terminal.tmux(&["resize-window", "-x", "100", "-y", "30"]);
        terminal.press(&["Down"]);
        terminal.until("(100.0 %)");
        terminal.press(&["x"]);
        terminal.until("written: memtrail-");
        terminal.press(&["Escape"]);
        terminal.until("[stacks]");
        terminal.press(&["4"]);
        terminal.until("memtrail-worklo[");
        terminal.press(&["Escape"]);
        terminal.until("CONTAINER OR CGROUP");
        terminal.press(&["z"]);
        terminal.until("frozen");
        terminal.press(&["z", "/", "nothing-has-this-name", "Enter"]);
        terminal.until("nothing is shown");
        terminal.press(&["Escape", "?"]);
        terminal.until("sort by usage");
        terminal.press(&["q", "q"]);
        // What is typed before that goes to memtrail.
        terminal.until("ready>");
        terminal.press(&["stty -a > after; echo ov''er", "Enter"]);
        terminal.until("over\n");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        // The size was changed on the way.
        let modes = |text: String| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(modes(read("before")), modes(read("after")), "the terminal is as it was");
        let exported: Vec<String> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".folded"))
            .collect();
        let folded = read(&exported[0]);
        assert!(folded.contains("wl_"), "{folded}");
        std::fs::remove_file(folder.path().join(&exported[0])).unwrap();

        // A signal ends it as well.
        terminal.press(&[&format!("clear; {} top --cgroup {}; stty -a > killed; echo en''ded", program.display(), cgroup.path()), "Enter"]);
        terminal.until("CONTAINER OR CGROUP");
        let pids = Command::new("pgrep").args(["-f", &format!("top --cgroup {}$", cgroup.path())]).output().unwrap();
        let pid: i32 = String::from_utf8_lossy(&pids.stdout).lines().next().unwrap().parse().unwrap();
        // SAFETY: a signal to a process that this test started.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
        terminal.until("ended\n");
        assert_eq!(modes(read("killed")), modes(read("after")), "the terminal is as it was");
        workload.finish().unwrap();
    }
}
