//! Temporary probe of the pieces.
use memtrail::{
    bpf::{self, sizes},
    kernel::facts,
    plan,
};
use tracer_common::settings::{Control, Settings};

struct N<'a>(&'a memtrail::kernel::btf::Btf, bool);
impl plan::Names for N<'_> {
    fn function(&self, n: &str) -> Option<u32> {
        self.0.function_parameters(n)
    }
    fn tracepoint(&self, n: &str) -> bool {
        self.0.has_tracepoint(n)
    }
    fn kprobes(&self) -> bool {
        self.1
    }
}

fn main() -> anyhow::Result<()> {
    let t = std::time::Instant::now();
    let btf = facts::running_btf()?;
    let f = facts::read(&btf)?;
    println!("{f:?} {:?}", t.elapsed());
    let layout = facts::layout(&btf);
    layout.for_each(|n, _, v| {
        if v.is_none() {
            print!("-{n} ")
        }
    });
    println!();
    let exact = std::env::args().any(|a| a == "--exact");
    let s = sizes::plan(&sizes::Wish {
        exact,
        traced_bytes: f.ram_bytes,
        ram_bytes: f.ram_bytes,
        frames: f.frames,
        cpus_possible: f.cpus_possible,
        map_memory: if exact { 4 << 30 } else { sizes::DEFAULT_MAP_MEMORY },
    })?;
    println!("{s:?}");
    let mut settings = Settings {
        abi_version: 1,
        log2_mean: s.log2_mean,
        frames: s.frames,
        vmemmap: 0,
        page_struct_shift: 6,
        filtered: 0,
        own_tgid: std::process::id(),
        kernel_stacks: 1,
        owner_totals: 0,
        gfp_movable: 8,
    };
    let small = sizes::Sizes { frames: 64, samples: 1, keys: 1, stacks: 1, processes: 1, graveyard: 1, owners: 1, ..s };
    let mut cal = bpf::load(&layout, &settings, &small)?;
    settings.vmemmap = bpf::calibrate::find(&mut cal, 64)?;
    drop(cal);
    println!("vmemmap {:#x} {:?}", settings.vmemmap, t.elapsed());
    let mut b = bpf::load(&layout, &settings, &s)?;
    println!("loaded {:?}", t.elapsed());
    let aya_btf = aya::Btf::from_sys_fs()?;
    println!("btf {:?}", t.elapsed());
    let p = plan::plan(&N(&btf, f.kprobes), None)?;
    let a = bpf::attach::attach(&mut b, &p, &aya_btf)?;
    for a in a {
        println!("{a:?}");
    }
    println!("attached {:?}", t.elapsed());
    bpf::set_control(&mut b, Control { enabled: 1, baseline: 1, epoch: 0, open_pictures: 0, reserved: 0 })?;
    let scan = bpf::baseline::take(&mut b, s.frames, s.log2_mean, 7)?;
    bpf::set_control(&mut b, Control { enabled: 1, baseline: 0, epoch: 0, open_pictures: 0, reserved: 0 })?;
    println!("{scan:?} {:?}", t.elapsed());
    std::thread::sleep(std::time::Duration::from_secs(5));
    let keys = bpf::tables::keys(&b)?;
    let mut by: std::collections::BTreeMap<(u64, u32, u32), (u64, i64, u64)> = Default::default();
    for k in keys.values() {
        let e = by.entry((k.key.owner, k.key.kind, k.key.flags)).or_default();
        let c: u64 = k.charged.iter().sum();
        let u: u64 = k.uncharged.iter().sum();
        e.0 += c;
        e.1 += c as i64 - u as i64;
        e.2 += k.samples;
    }
    for (k, v) in by {
        println!("{k:?} charged {} live {} samples {}", v.0, v.1, v.2);
    }
    println!("keys {} samples {} stacks {}", keys.len(), bpf::tables::samples(&b)?.len(), bpf::tables::stacks(&b)?.len());
    for (l, c) in bpf::tables::losses(&b)? {
        if c.events > 0 {
            println!("{} {c:?}", l.name());
        }
    }
    Ok(())
}
