//! The share of whole stacks of programs as Debian packages them, under the load that they are for.

use harness::cgroup::TestCgroup;
use harness::child::KilledChild;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::place::Folder;
use harness::report;
use harness::workload::enter;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A program and what it has to do. All are scripts of sh, in a folder of their own.
struct Program {
    name: &'static str,
    /// Makes what the program needs.
    set_up: &'static str,
    /// Runs in the cgroup from before the recording on. Empty for programs that end by themselves.
    server: &'static str,
    /// Succeeds when the server answers.
    ready: &'static str,
    /// What it has to do; runs in the cgroup if there is no server, and beside it otherwise.
    load: &'static str,
    /// Threads that count begin so; empty for all.
    comms: &'static [&'static str],
    /// Stacks with a frame that begins so do not count: they are of threads that run code which a JIT wrote.
    without: &'static [&'static str],
    /// Least share of charged bytes whose stacks are whole, percent.
    least: f64,
}

const ALL: Program = Program { name: "", set_up: "", server: "", ready: "true", load: "", comms: &[], without: &[], least: 99.0 };

/// Frames of code that a JIT wrote, and of V8's that nothing describes either.
const JIT: &[&str] = &["[jit]", "Builtins_", "[cut: generated code]"];

const PROGRAMS: &[Program] = &[
    Program {
        name: "redis",
        server: "exec redis-server --port 0 --unixsocket $PWD/s --save '' --appendonly no --dir $PWD",
        ready: "redis-cli -s $PWD/s ping",
        load: "redis-benchmark -s $PWD/s -t set,lpush,hset,zadd -n 60000 -r 100000 -d 500 -q; redis-cli -s $PWD/s bgsave; sleep 1",
        ..ALL
    },
    Program {
        name: "nginx",
        set_up: "mkdir www && head -c 3000000 /dev/zero > www/large && echo x > www/small && mkdir logs && cat > n.conf <<'END'\n\
                 daemon off; user root; worker_processes 2; pid nginx.pid; error_log logs/error.log;\n\
                 events { worker_connections 400; }\n\
                 http { access_log logs/access.log; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n\
                 gzip on; gzip_min_length 1; gzip_types *;\n\
                 server { listen 127.0.0.1:18931; location / { root www; } location /p/ { proxy_pass http://127.0.0.1:18931/; } } }\n\
                 END",
        server: "exec nginx -p $PWD -c n.conf",
        ready: "python3 -c 'import urllib.request as u; u.urlopen(\"http://127.0.0.1:18931/small\")'",
        load: "for i in 1 2 3; do ab -q -n 20000 -c 100 http://127.0.0.1:18931/small; ab -q -n 300 -c 30 -H 'Accept-Encoding: gzip' http://127.0.0.1:18931/p/large; done",
        ..ALL
    },
    Program {
        name: "postgres",
        set_up: "mkdir d && chown postgres . d && setpriv --reuid postgres --clear-groups --regid postgres /usr/lib/postgresql/15/bin/initdb -A trust -D $PWD/d",
        server: "exec setpriv --reuid postgres --clear-groups --regid postgres /usr/lib/postgresql/15/bin/postgres -D $PWD/d -c listen_addresses= -k $PWD",
        ready: "psql -h $PWD -U postgres -c 'select 1'",
        load: "pgbench -h $PWD -U postgres -i -s 8 postgres && pgbench -h $PWD -U postgres -c 8 -j 2 -T 5 postgres && \
               for i in 1 2 3; do psql -h $PWD -U postgres -c 'set work_mem = 65536; select count(*), md5(string_agg(filler, $$x$$ order by random())) from pgbench_accounts group by aid % 7' postgres; done",
        ..ALL
    },
    Program {
        name: "mariadb",
        set_up: "mkdir d && chown mysql . d && mariadb-install-db --no-defaults --user=mysql --datadir=$PWD/d",
        server: "exec mariadbd --no-defaults --user=mysql --datadir=$PWD/d --socket=$PWD/s --skip-networking",
        ready: "mariadb-admin --no-defaults -S $PWD/s ping",
        load: "mariadb-slap --no-defaults -S $PWD/s --auto-generate-sql --auto-generate-sql-load-type=mixed --number-of-queries=8000 --concurrency=8 --number-char-cols=8",
        ..ALL
    },
    Program {
        name: "memcached",
        server: "exec memcached -u root -s $PWD/s -m 256",
        ready: "test -S s",
        load: "python3 -c 'import socket\n\
               s = socket.socket(socket.AF_UNIX); s.connect(\"s\"); f = s.makefile(\"rb\")\n\
               for i in range(60000): s.sendall(b\"set k%d 0 0 %d\\r\\n%s\\r\\n\" % (i, 900 + i % 2000, b\"x\" * (900 + i % 2000))); f.readline()'",
        ..ALL
    },
    Program {
        name: "git",
        set_up: "mkdir r && cd r && /usr/bin/git init -q . && for i in $(seq 1 60); do head -c 200000 /dev/urandom | base64 > $i; done && \
                 /usr/bin/git add . && /usr/bin/git -c user.name=x -c user.email=x commit -qm x",
        load: "cd r; for i in 1 2 3 4; do /usr/bin/git repack -qadfF; /usr/bin/git log -p > /dev/null; /usr/bin/git fsck; done",
        comms: &["git"],
        ..ALL
    },
    Program {
        name: "gcc",
        set_up: "python3 -c 'for i in range(3000): print(\"struct s%d { int a[%d]; }; int f%d(struct s%d *s, int n) { int t = 0; for (int i = 0; i < n; i++) \
                 { t += s->a[i %% 7] * %d; if (t > n) t -= i; } return t; }\" % (i, i + 7, i, i, i))' > x.c",
        load: "for i in 1 2 3 4 5 6; do gcc -O2 -c x.c -o x.o; done",
        comms: &["cc1", "as", "gcc"],
        ..ALL
    },
    Program {
        name: "perl",
        load: "for i in 1 2; do perl -e 'for my $i (1..400000) { $h{\"key $i\"} = [$i, \"x\" x 50]; } my @s = sort { $a cmp $b } keys %h; print scalar(@s), \"\\n\"; sleep 1'; done",
        ..ALL
    },
    Program {
        name: "php",
        load: "for i in 1 2; do php -r 'ini_set(\"memory_limit\", -1); for ($i = 0; $i < 400000; $i++) { $h[\"key $i\"] = [$i, str_repeat(\"x\", 50)]; } ksort($h); \
               echo strlen(json_encode($h)); sleep(1);'; done",
        ..ALL
    },
    Program {
        name: "ruby",
        load: "for i in 1 2 3 4; do ruby -rjson -e 'h = {}; 300000.times { |i| h[\"key #{i}\"] = [i, \"x\" * 50] }; puts h.sort.length, JSON.dump(h).length; sleep 1'; done",
        ..ALL
    },
    Program {
        name: "python3",
        load: "for i in 1 2; do /usr/bin/python3 -c 'import json, re, sqlite3, time\n\
               h = {\"key %d\" % i: [i, \"x\" * 50] for i in range(300000)}\n\
               t = json.dumps(h); print(len(re.findall(\"key\", t)), len(json.loads(t)))\n\
               c = sqlite3.connect(\":memory:\"); c.execute(\"create table t (k, v)\"); c.executemany(\"insert into t values (?, ?)\", ((k, v[1]) for k, v in h.items()))\n\
               print(c.execute(\"select count(*) from t a join t b using (k)\").fetchall()); time.sleep(1)'; done",
        ..ALL
    },
    Program {
        name: "c",
        set_up: "cat > c.c <<'END'\n\
                 #include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n\
                 struct n { struct n *l, *r; char b[200]; };\n\
                 static struct n *grow(int d) { struct n *n = malloc(sizeof *n); memset(n->b, d, sizeof n->b); n->l = d ? grow(d - 1) : 0; n->r = d ? grow(d - 1) : 0; return n; }\n\
                 static int cmp(const void *a, const void *b) { return *(int *)a - *(int *)b; }\n\
                 int main(void) { usleep(300000); struct n *n = grow(17); int *a = malloc(40 << 20); for (int i = 0; i < 10 << 20; i++) a[i] = rand(); qsort(a, 1 << 20, 4, cmp); usleep(500000); return n->b[0] != 17; }\n\
                 END\n\
                 gcc -O2 c.c -o c",
        load: "./c; ./c",
        comms: &["c"],
        ..ALL
    },
    Program {
        name: "c++",
        set_up: "cat > c.cc <<'END'\n\
                 #include <map>\n#include <string>\n#include <stdexcept>\n#include <unistd.h>\n#include <algorithm>\n#include <vector>\n\
                 static void put(std::map<std::string, std::vector<std::string>> &m, int i) { m[\"key \" + std::to_string(i % 50000)].push_back(std::string(100, 'x')); if (i % 100 == 0) throw std::runtime_error(std::string(500, 'y')); }\n\
                 int main() { usleep(300000); std::map<std::string, std::vector<std::string>> m; size_t n = 0; for (int i = 0; i < 400000; i++) try { put(m, i); } catch (const std::exception &e) { n += e.what()[0]; }\n\
                 std::vector<std::string> v; for (auto &p : m) v.push_back(p.first); std::stable_sort(v.begin(), v.end(), [](auto &a, auto &b) { return a > b; }); usleep(500000); return n == 0; }\n\
                 END\n\
                 g++ -O2 c.cc -o cpp",
        load: "./cpp; ./cpp",
        comms: &["cpp"],
        ..ALL
    },
    Program {
        name: "rust",
        set_up: "cat > r.rs <<'END'\n\
                 use std::collections::BTreeMap;\n\
                 fn main() { std::thread::sleep(std::time::Duration::from_millis(300)); let t: Vec<_> = (0..3u64).map(|t| std::thread::spawn(move || { let mut m: BTreeMap<String, Vec<u64>> = BTreeMap::new(); for i in 0..200000u64 { m.entry(format!(\"key {}\", i * t % 70001)).or_default().extend(0..20); } m.len() })).collect();\n\
                 println!(\"{}\", t.into_iter().map(|t| t.join().unwrap()).sum::<usize>()); std::thread::sleep(std::time::Duration::from_millis(500)); }\n\
                 END\n\
                 rustc -O r.rs -o r && rustc -O -C panic=abort r.rs -o ra",
        load: "./r; ./ra",
        comms: &["r", "ra", "<unnamed>"],
        ..ALL
    },
    Program {
        name: "caddy (Go)",
        set_up: "mkdir www && head -c 3000000 /dev/zero > www/large && echo x > www/small && printf '{\\nadmin off\\n}\\nhttp://127.0.0.1:18932 {\\nroot * www\\nencode gzip\\nfile_server\\n}\\n' > Caddyfile",
        server: "HOME=$PWD exec caddy run --config Caddyfile --adapter caddyfile",
        ready: "python3 -c 'import urllib.request as u; u.urlopen(\"http://127.0.0.1:18932/small\")'",
        load: "for i in 1 2 3; do ab -q -n 10000 -c 100 http://127.0.0.1:18932/small; ab -q -n 200 -c 30 -H 'Accept-Encoding: gzip' http://127.0.0.1:18932/large; done",
        comms: &["caddy"],
        least: 98.0,
        ..ALL
    },
    Program {
        name: "java",
        set_up: "cat > X.java <<'END'\n\
                 import java.util.*;\n\
                 public class X { public static void main(String[] a) throws Exception { Map<String, byte[]> m = new HashMap<>(); long n = 0;\n\
                 for (int i = 0; i < 3000000; i++) { m.put(\"key \" + i % 100000, new byte[300 + i % 500]); n += m.size(); } System.out.println(n); Thread.sleep(500); } }\n\
                 END",
        load: "java -Xmx300m -XX:+UseG1GC X.java; java -Xmx300m -XX:+UseParallelGC X.java",
        comms: &["java"],
        without: JIT,
        least: 95.0,
        ..ALL
    },
    Program {
        name: "node",
        load: "for i in 1 2; do node -e 'const m = new Map(); for (let i = 0; i < 600000; i++) m.set(\"key \" + i, [i, \"x\".repeat(50) + i]); \
               console.log(JSON.stringify([...m]).length); require(\"zlib\").gzip(Buffer.alloc(60000000, \"abc\"), (e, b) => console.log(b.length))'; done",
        comms: &["node"],
        without: JIT,
        least: 95.0,
        ..ALL
    },
];

fn shell(script: &str, folder: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/root/.cargo/bin");
    if std::env::var_os("MEMTRAIL_TEST_SHOW").is_none() {
        command.stderr(Stdio::null());
    }
    command
}

/// Bytes with whole stacks, bytes in all, and what is not whole, by why and innermost frames, most bytes first.
type Shares = (u64, u64, Vec<(u64, String)>);

fn shares(program: &Program) -> Shares {
    let cgroup = TestCgroup::new("package").unwrap();
    let folder = Folder::new("package").unwrap();
    assert!(shell(program.set_up, folder.path()).status().unwrap().success(), "{}", program.name);
    let _server = (!program.server.is_empty()).then(|| {
        let mut server = shell(program.server, folder.path());
        enter(&mut server, &cgroup).unwrap();
        let server = KilledChild(server.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        while !shell(program.ready, folder.path()).status().unwrap().success() {
            assert!(Instant::now() < deadline, "{} does not answer", program.name);
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    });
    let memtrail = Memtrail::start_with_tables(&record_args(cgroup.path(), Mode::Default)).unwrap();
    let mut load = shell(program.load, folder.path());
    if program.server.is_empty() {
        enter(&mut load, &cgroup).unwrap();
    }
    assert!(load.status().unwrap().success(), "{}", program.name);
    let outcome = memtrail.stop().unwrap();
    if let Some(folder) = std::env::var_os("MEMTRAIL_TEST_SHOW") {
        std::fs::write(Path::new(&folder).join(format!("{}.json", program.name)), outcome.report.to_string()).unwrap();
    }
    let (mut whole, mut all, mut others) = (0, 0, BTreeMap::<String, u64>::new());
    for stack in report::stacks(&outcome.report, cgroup.path()).unwrap() {
        let counts = program.comms.is_empty() || program.comms.iter().any(|comm| stack.comm.starts_with(comm));
        let is_of_jit = stack.frames.iter().any(|frame| program.without.iter().any(|begin| frame.starts_with(begin)));
        if !counts || stack.status == "none" || is_of_jit {
            continue;
        }
        all += stack.charged;
        if stack.status == "complete" {
            whole += stack.charged;
        } else {
            let innermost: Vec<&str> = stack.frames.iter().filter(|frame| !frame.ends_with("_[k]")).map(String::as_str).take(6).collect();
            *others.entry(format!("{} {}: {}", stack.comm, stack.status, innermost.join(" > "))).or_default() += stack.charged;
        }
    }
    let mut others: Vec<(u64, String)> = others.into_iter().map(|(why, bytes)| (bytes, why)).collect();
    others.sort_unstable_by(|one, other| other.cmp(one));
    (whole, all, others)
}

/// With the default options; `MEMTRAIL_TEST_PROGRAM` names one of them, `MEMTRAIL_TEST_SHOW` a folder for the reports.
#[test]
#[ignore = "root, and the packages"]
fn long_packaged_programs_have_whole_stacks() {
    let only = std::env::var("MEMTRAIL_TEST_PROGRAM").ok();
    let mut missed = Vec::new();
    for program in PROGRAMS.iter().filter(|program| only.as_deref().is_none_or(|only| only == program.name)) {
        let (whole, all, others) = shares(program);
        let share = 100.0 * whole as f64 / all as f64;
        println!("WHOLE {:12} {share:6.2} % of {:6.1} MiB", program.name, all as f64 / f64::from(1 << 20));
        for (bytes, why) in others.iter().take(5) {
            println!("      {:6.2} %  {why}", 100.0 * *bytes as f64 / all as f64);
        }
        assert!(all > 4 << 20, "{}: {all} bytes are too few to tell", program.name);
        if share < program.least {
            missed.push(format!("{}: {share:.2} %, at least {} %", program.name, program.least));
        }
    }
    assert_eq!(missed, Vec::<String>::new());
}
