//! `memtrail serve` on a real kernel: Prometheus reads what is true and fires the committed alerts on real kills; hostile requests change nothing;
//! the last hours are on disk, also after a start anew.

use harness::accuracy::size;
use harness::cgroup::TestCgroup;
use harness::child::KilledChild;
use harness::place::{Tmpfs, own_machine};
use harness::serve::{Server, send, series};
use harness::workload::Workload;
use harness::{kernel, watchdog};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What cgroup v2's counters, and samples of page cache, may be off by.
const BESIDES: u64 = 1 << 20;

fn sleep(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds));
}

/// Waits until it is so; what it waited for is told by the watchdog.
fn until<T>(what: &str, longest: Duration, mut found: impl FnMut() -> Option<T>) -> T {
    let _wait = watchdog::waiting(what);
    let end = Instant::now() + longest;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {longest:?}");
        sleep(0.5);
    }
}

fn packaging(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(file)
}

/// Debian's Prometheus, which scrapes a server each second.
struct Prometheus {
    _child: KilledChild,
    address: String,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(server: &Server) -> Prometheus {
        let folder = tempfile::tempdir().unwrap();
        let rules = std::fs::read_to_string(packaging("prometheus/memtrail.rules.yml")).unwrap();
        // The alerts as they are committed, but that nobody waits for minutes.
        let rules: String = rules
            .lines()
            .map(|line| if line.trim_start().starts_with("for: ") { "        for: 2s\n".to_owned() } else { format!("{line}\n") })
            .collect();
        std::fs::write(folder.path().join("rules.yml"), rules).unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\n\
             scrape_configs:\n- job_name: memtrail\n  honor_labels: true\n  static_configs: [{{targets: ['{}']}}]\n",
            server.address()
        );
        std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--web.listen-address={port}")).args([
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--enable-feature=native-histograms",
            "--log.level=warn",
        ]);
        let child = command.current_dir(folder.path()).stdin(Stdio::null()).spawn().expect("Debian's package prometheus");
        let prometheus = Prometheus { _child: KilledChild(child), address: port.to_string(), _folder: folder };
        until("Prometheus is ready", Duration::from_secs(60), || prometheus.get("/-/ready").filter(|text| !text.is_empty()));
        prometheus
    }

    fn get(&self, path: &str) -> Option<String> {
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address);
        send(&self.address, request.as_bytes()).ok().filter(|answer| answer.status == 200).map(|answer| answer.text())
    }

    /// The only value of an expression.
    fn value(&self, expression: &str) -> Option<f64> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer: Value = serde_json::from_str(&self.get(&format!("/api/v1/query?query={encoded}"))?).unwrap();
        match answer["data"]["result"].as_array().unwrap().as_slice() {
            [] => None,
            [one] => Some(one["value"][1].as_str().unwrap().parse().unwrap()),
            more => panic!("{expression}: {} series", more.len()),
        }
    }

    /// Alerts that fire, with what they are about.
    fn firing(&self) -> Vec<(String, String)> {
        let answer: Value = serde_json::from_str(&self.get("/api/v1/alerts").unwrap()).unwrap();
        let alerts = answer["data"]["alerts"].as_array().unwrap().iter().filter(|alert| alert["state"] == "firing");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        alerts.map(|alert| (text(&alert["labels"]["alertname"]), text(&alert["labels"]["cgroup"]))).collect()
    }
}

#[test]
#[ignore = "root"]
fn native_prometheus_reads_what_is_true_and_fires_the_alerts() {
    if own_machine() {
        println!("the machine has no Prometheus");
        return;
    }
    let bytes = size(64 << 20).unwrap();
    let (held, killed, growing) =
        (TestCgroup::new("served").unwrap(), TestCgroup::new("served-killed").unwrap(), TestCgroup::new("served-growing").unwrap());
    let mut removed = TestCgroup::new("served-removed").unwrap();
    held.limit(8 * bytes).unwrap();
    killed.limit(24 << 20).unwrap();
    growing.limit(900 << 20).unwrap();
    let server = Server::start(&["--cgroup", "/memtrail-test/**", "--exact", "--map-memory", "2G", "--snapshot-every", "10s"]).unwrap();
    let prometheus = Prometheus::start(&server);

    let path = held.path();
    let mut workload = Workload::start(&held, &["anon", "--bytes", &bytes.to_string()]).unwrap();
    workload.run_to("touched").unwrap();
    let truth = held.settled_kinds().unwrap();
    let allowed = (bytes / 100 + BESIDES + kernel::stat_batching().unwrap()) as f64;
    let near = |expression: &str, expected: f64| {
        let value =
            until(expression, Duration::from_secs(20), || prometheus.value(expression).filter(|value| (value - expected).abs() <= allowed));
        println!("{expression} = {value}, expected {expected} ± {allowed}");
    };
    near(&format!("memtrail_container_memory_bytes{{cgroup='{path}',kind='anon'}}"), truth.anon as f64);
    near(&format!("memtrail_container_memory_charged_bytes_total{{cgroup='{path}',kind='anon'}}"), bytes as f64);
    near(&format!("memtrail_container_memory_limit_left_bytes{{cgroup='{path}'}}"), (8 * bytes - held.usage().unwrap()) as f64);
    near("sum(memtrail_container_memory_bytes) + (sum(memtrail_dead_memory_bytes) or vector(0)) - sum(memtrail_node_memory_bytes)", 0.0);

    // A counter begins at 0, so that the first kill counts.
    let of_killed = format!("memtrail_container_oom_kills_total{{cgroup='{}'}}", killed.path());
    until("no kill yet", Duration::from_secs(20), || prometheus.value(&of_killed).filter(|kills| *kills == 0.0));
    for _ in 0..4 {
        // It is killed on its way.
        let _killed = Workload::start(&killed, &["anon", "--bytes", "64M"]).unwrap().run_to("touched");
    }
    let tmpfs = Tmpfs::new("served").unwrap();
    let args = ["tmpfs", "--keep", "--dir", tmpfs.path().to_str().unwrap(), "--bytes", &(160_u64 << 20).to_string()];
    let mut gone = Workload::start(&removed, &args).unwrap();
    gone.run_to("ready").unwrap();
    gone.finish().unwrap();
    removed.remove().unwrap();
    let mut grower = Workload::start(&growing, &["grow", "--bytes", "800M", "--milliseconds", "250"]).unwrap();
    grower.run_to("growing").unwrap();
    until(&of_killed, Duration::from_secs(20), || prometheus.value(&of_killed).filter(|kills| *kills == 4.0));
    for (alert, of) in [("MemtrailOomLoop", killed.path()), ("MemtrailDeadTmpfs", removed.path()), ("MemtrailOomPredicted", growing.path())]
    {
        until(alert, Duration::from_secs(60), || prometheus.firing().contains(&(alert.to_owned(), of.to_owned())).then_some(()));
        println!("{alert} fires for {of}");
    }
    // The killed ones reclaimed before they were killed: native histograms, by protocol buffers.
    let count = until("reclaims", Duration::from_secs(20), || {
        prometheus.value("histogram_count(memtrail_node_reclaim_seconds)").filter(|count| *count > 0.0)
    });
    let median = prometheus.value("histogram_quantile(0.5, memtrail_node_reclaim_seconds)").unwrap();
    println!("{count} reclaims, median {median} s");
    assert!(median > 1e-7 && median < 10.0, "{median}");

    let kills: Value = serde_json::from_slice(&server.get("/oom").unwrap().body).unwrap();
    let id = kills[0]["id"].as_str().unwrap();
    assert_eq!(kills.as_array().unwrap().len(), 4, "{kills}");
    for (format, says) in [("json", "\"victims\""), ("text", "was killed because"), ("svg", "<svg"), ("html", "<html")] {
        let answer = server.get(&format!("/oom/{id}?format={format}")).unwrap();
        assert!(answer.status == 200 && answer.text().contains(says), "{format}: {answer:?}");
    }
    workload.finish().unwrap();
}

/// What checks it must be content with it: Prometheus' own tool, and the strictest reader of OpenMetrics.
#[test]
#[ignore = "root"]
fn native_metrics_are_as_the_formats_say() {
    if own_machine() {
        println!("the machine has no Prometheus");
        return;
    }
    let cgroup = TestCgroup::new("formats").unwrap();
    let mut workload = Workload::start(&cgroup, &["anon", "--bytes", "8M"]).unwrap();
    workload.run_to("touched").unwrap();
    let server = Server::start(&[]).unwrap();
    let plain = server.get("/metrics").unwrap();
    assert!(plain.head.contains("text/plain; version=0.0.4"), "{}", plain.head);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(&plain.body).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stdout.is_empty(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let rules = Command::new("promtool").args(["check", "rules"]).arg(packaging("prometheus/memtrail.rules.yml")).output().unwrap();
    assert!(rules.status.success(), "{}", String::from_utf8_lossy(&rules.stderr));

    let open = server.get_with("/metrics", &["Accept: application/openmetrics-text;version=1.0.0"]).unwrap();
    assert!(open.head.contains("application/openmetrics-text; version=1.0.0"), "{}", open.head);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("metrics"), &open.body).unwrap();
    let python = super::histograms::python().unwrap();
    let script = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as read\n\
                  print(sum(len(family.samples) for family in read(open(sys.argv[1]).read())))";
    let output = Command::new(python).args(["-c", script]).arg(folder.path().join("metrics")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let samples: usize = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    let lines = open.text().lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(samples, lines, "each line is a sample");
    workload.finish().unwrap();
}

fn capabilities(pid: u32) -> Vec<(String, u64)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |task: &Path| -> Option<(String, u64)> {
        let status = std::fs::read_to_string(task.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:\t"))?;
        Some((std::fs::read_to_string(task.join("comm")).ok()?.trim().to_owned(), u64::from_str_radix(line, 16).unwrap()))
    };
    tasks.filter_map(|task| of(&task.unwrap().path())).collect()
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
#[ignore = "root"]
fn native_hostile_requests_change_nothing() {
    let cgroup = TestCgroup::new("hostile-http").unwrap();
    let mut workload = Workload::start(&cgroup, &["anon", "--bytes", "16M"]).unwrap();
    workload.run_to("touched").unwrap();
    let server = Server::start(&["--cgroup", cgroup.path()]).unwrap();
    let memory = format!("memtrail_container_memory_bytes{{cgroup=\"{}\",kind=\"anon\"}}", cgroup.path());
    let told = |server: &Server| series(&server.get("/metrics").unwrap().text(), &memory).unwrap();
    let before = (told(&server), resident(server.pid()));
    assert!(before.0 >= (16 << 20) as f64);

    let request = |head: &str| server.send(head.as_bytes()).unwrap();
    let host = server.address();
    for (head, status) in [
        ("GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".to_owned(), 421),
        ("GET /metrics HTTP/1.0\r\n\r\n".to_owned(), 421),
        (format!("GET http://evil.example/metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"), 421),
        (format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nOrigin: http://evil\r\nConnection: close\r\n\r\n"), 403),
        (format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Site: cross-site\r\nConnection: close\r\n\r\n"), 403),
        (format!("POST /metrics HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), 405),
        (format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"), 413),
        (format!("GET /../../etc/passwd HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"), 404),
        (format!("GET /profile?pod=%ff%fe&x=1 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: {}\r\n\r\n", "x".repeat(20_000)), 431),
        (format!("GET / HTTP/1.1\r\nHost: {host}\r\n{}\r\n", "A: b\r\n".repeat(200)), 431),
        ("NONSENSE\r\n\r\n".to_owned(), 400),
    ] {
        assert_eq!(request(&head).status, status, "{}", &head[..head.len().min(120)]);
    }
    let page = server.get("/").unwrap();
    assert!(page.head.contains("content-security-policy: default-src 'none'") && page.head.contains("nosniff"), "{}", page.head);

    // Who sends a head that does not end, and who does not read what was asked for.
    let slow: Vec<_> =
        (0..200).map(|_| server.connect().map(|mut stream| stream.write_all(b"GET / HTTP/1.1\r\nHost: x").map(|()| stream))).collect();
    let began = Instant::now();
    assert_eq!(server.get("/healthz").unwrap().status, 200);
    println!("answered {:?} after 200 connections that say nothing more", began.elapsed());
    drop(slow);

    // Who asks for everything and reads nothing: what is made for them is bounded, and others are answered.
    let deaf: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = server.connect().unwrap();
            stream.write_all(format!("GET /report HTTP/1.1\r\nHost: {host}\r\n\r\n").repeat(3).as_bytes()).unwrap();
            stream
        })
        .collect();
    sleep(3.0);
    assert_eq!(server.get("/healthz").unwrap().status, 200);
    drop(deaf);

    // Bytes that are no requests, and half of ones that are.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words = [
        "GET",
        "HEAD",
        "/",
        "/profile?",
        "value=",
        "format=svg",
        "&",
        "from=-",
        "%",
        "HTTP/1.1",
        "\r\n",
        "Host: localhost",
        "Content-Length: ",
        "Transfer-Encoding: chunked",
        "\0",
        "\u{202e}",
        " ",
        "9999999999",
        ":",
    ];
    for _ in 0..2000 {
        let length = random() % 12;
        let text: String = (0..length).map(|_| words[random() as usize % words.len()]).collect();
        let mut stream = server.connect().unwrap();
        // It may be refused before it is sent whole.
        let _ = stream.write_all(text.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let _ = stream.read(&mut [0; 512]);
    }

    let threads = capabilities(server.pid());
    assert!(threads.contains(&("memtrail-http".to_owned(), 0)), "{threads:x?}");
    assert!(threads.iter().all(|(name, permitted)| !name.starts_with("memtrail-answer") || *permitted == 0), "{threads:x?}");
    let after = (told(&server), resident(server.pid()));
    println!("{before:?} before, {after:?} after");
    assert!((after.0 - before.0).abs() < (1 << 20) as f64, "the trace goes on");
    assert!(after.1 < before.1 + (24 << 20), "memory is bounded");
    let took = server.stop().unwrap();
    assert!(took < Duration::from_secs(30), "{took:?}");
    workload.finish().unwrap();
}

#[test]
#[ignore = "root"]
fn native_the_window_goes_on_after_a_start_anew() {
    let bytes = size(32 << 20).unwrap();
    let cgroup = TestCgroup::new("window").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("state");
    let args = ["--cgroup", cgroup.path(), "--exact", "--map-memory", "2G", "--dir", dir.to_str().unwrap(), "--snapshot-every", "10s"];
    let server = Server::start(&args).unwrap();
    let mut workload = Workload::start(&cgroup, &["anon", "--bytes", &bytes.to_string()]).unwrap();
    workload.run_to("touched").unwrap();
    let folded = |server: &Server, query: &str| -> (u16, u64) {
        let answer = server.get(&format!("/profile?format=folded&{query}")).unwrap();
        let lines = answer.text();
        let bytes = lines.lines().filter(|line| line.contains("wl_")).filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum();
        (answer.status, bytes)
    };
    let near = |bytes: u64, expected: u64| bytes.abs_diff(expected) <= expected / 20 + BESIDES;
    let (status, live) = folded(&server, "value=live");
    assert!(status == 200 && near(live, bytes), "{status} {live}");
    until("a snapshot with it is on disk", Duration::from_secs(120), || {
        let (status, live) = folded(&server, "value=live&to=-1s");
        (status == 200 && near(live, bytes)).then_some(())
    });
    let (status, _) = folded(&server, "value=live&to=2000-01-01T00:00:00Z");
    assert_eq!(status, 404, "before the window");
    drop(workload);
    // A look into processes is as good as a new one for five seconds.
    sleep(6.0);
    // What was live is charged no more, and what was charged stays so.
    let (_, live) = folded(&server, "value=live");
    assert!(live < bytes / 10, "{live}");
    assert!(server.stop().unwrap() < Duration::from_secs(30));

    let server = Server::start(&args).unwrap();
    let (status, before) = folded(&server, "value=charged&to=-1s");
    assert!(status == 200 && near(before, bytes), "the earlier one's recording is told from: {status} {before}");
    let (_, live) = folded(&server, "value=live");
    assert!(live < bytes / 10, "{live}");
    let parts: Vec<String> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(parts.contains(&"window.1.mtrail".to_owned()) && parts.contains(&"window.mtrail".to_owned()), "{parts:?}");

    // Another memtrail asks this one.
    let report = harness::memtrail::command()
        .unwrap()
        .args(["report", &format!("http://{}", server.address()), "--view", "cgroups"])
        .output()
        .unwrap();
    assert!(report.status.success() && String::from_utf8_lossy(&report.stdout).contains(cgroup.path()), "{report:?}");
    let top = harness::memtrail::command().unwrap().args(["top", "--once", &format!("http://{}", server.address())]).output().unwrap();
    assert!(top.status.success() && String::from_utf8_lossy(&top.stdout).contains("CONTAINER OR CGROUP"), "{top:?}");
}

/// With the capabilities of the committed unit, as another user than root, everything is served.
#[test]
#[ignore = "root"]
fn native_the_units_capabilities_suffice() {
    use std::os::unix::fs::PermissionsExt as _;
    if own_machine() {
        println!("the machine has no setpriv");
        return;
    }
    let unit = std::fs::read_to_string(packaging("systemd/memtrail.service")).unwrap();
    let named = unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities=")).unwrap();
    let named: Vec<String> = named.split_whitespace().map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase())).collect();
    let named = named.join(",");
    let bytes = size(24 << 20).unwrap();
    let cgroup = TestCgroup::new("as-nobody").unwrap();
    let mut workload = Workload::start(&cgroup, &["anon", "--bytes", &bytes.to_string()]).unwrap();
    workload.run_to("touched").unwrap();

    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let program = folder.path().join("memtrail");
    std::fs::copy(harness::memtrail::binary().unwrap(), &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=nobody",
        "--regid=nogroup",
        "--clear-groups",
        "--no-new-privs",
        &format!("--inh-caps={named}"),
        &format!("--ambient-caps={named}"),
    ]);
    command.arg(format!("--bounding-set=-all,{named}")).arg(&program);
    harness::signals::plain(&mut command);
    let dir = folder.path().join("state");
    let server = Server::start_by(command, folder, &["--dir", dir.to_str().unwrap(), "--snapshot-every", "10s"]).unwrap();
    let memory = format!("memtrail_container_memory_bytes{{cgroup=\"{}\",kind=\"anon\"}}", cgroup.path());
    assert!(series(&server.get("/metrics").unwrap().text(), &memory).unwrap() >= bytes as f64);
    // What was there before the start is told by pages' frames, which takes the most capabilities.
    let text = server.get(&format!("/profile?format=text&cgroup={}", cgroup.path())).unwrap().text();
    assert!(text.contains("anon") && text.contains("before the start"), "{text}");
    assert!(capabilities(server.pid()).contains(&("memtrail-http".to_owned(), 0)));
    until("a snapshot is on disk", Duration::from_secs(60), || (server.get("/profile?to=-1s").unwrap().status == 200).then_some(()));
    println!("ended within {:?}", server.stop().unwrap());
    workload.finish().unwrap();
}

#[test]
#[ignore = "root"]
fn native_who_may_ask_is_checked_before_anything_is_traced() {
    let run = |args: &[&str]| {
        let mut command = harness::memtrail::command().unwrap();
        command.args(["serve", "--no-socket", "--duration", "1s"]).args(args).stdin(Stdio::null());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, said) = run(&["--listen", "0.0.0.0:0"]);
    assert!(status == Some(2) && said.contains("--token-file") && said.lines().count() == 1, "{said}");
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef-secret\n").unwrap();
    let (status, said) = run(&["--listen", "127.0.0.1:0", "--token-file", token.to_str().unwrap()]);
    assert!(status == Some(2) && said.contains("chmod 600"), "{said}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (status, said) = run(&["--listen", &taken.local_addr().unwrap().to_string()]);
    assert!(status == Some(1) && said.contains("in use"), "{said}");

    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let server = Server::start(&["--token-file", token.to_str().unwrap()]).unwrap();
    assert_eq!(server.get("/metrics").unwrap().status, 401);
    assert_eq!(server.get("/healthz").unwrap().status, 200);
    assert_eq!(server.get_with("/metrics", &["Authorization: Bearer 0123456789abcdef-secret"]).unwrap().status, 200);
    std::fs::write(&token, "another-0123456789\n").unwrap();
    // SAFETY: a signal to a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(server.pid().cast_signed(), libc::SIGHUP) }, 0);
    until("the new token holds", Duration::from_secs(30), || {
        (server.get_with("/metrics", &["Authorization: Bearer another-0123456789"]).unwrap().status == 200).then_some(())
    });
    assert_eq!(server.get_with("/metrics", &["Authorization: Bearer 0123456789abcdef-secret"]).unwrap().status, 401);
}
