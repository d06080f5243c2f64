//! Compiles the workloads. They are C so that their frame pointers, symbol names and sizes are certain whatever profile cargo builds.

use std::error::Error;
use std::path::Path;

/// Everything but [`WITHOUT_FRAME_POINTERS`].
const WITH_FRAME_POINTERS: [&str; 16] = [
    "main.c",
    "anon.c",
    "causes.c",
    "beside.c",
    "churn.c",
    "huge.c",
    "collapse.c",
    "swap.c",
    "file.c",
    "logs.c",
    "shmem.c",
    "process.c",
    "regions.c",
    "storm.c",
    "times.c",
    "hung.c",
];
const WITHOUT_FRAME_POINTERS: [&str; 2] = ["omit_fp.c", "chains.c"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/workload");
    let source = Path::new("src/workload");
    let build = |files: &[&str], frame_pointer_flag: &str, name: &str| -> Result<(), cc::Error> {
        cc::Build::new()
            .files(files.iter().map(|file| source.join(file)))
            .cargo_metadata(false)
            .opt_level(2)
            .debug(true)
            .std("gnu11")
            .warnings(true)
            .extra_warnings(true)
            // Sibling calls and cold or partial clones would take the known names off the stack.
            .flag("-fno-optimize-sibling-calls")
            .flag("-fno-shrink-wrap")
            .flag_if_supported("-fno-reorder-blocks-and-partition")
            .flag_if_supported("-fno-partial-inlining")
            // After cc's own flags, so that it has the last word.
            .flag(frame_pointer_flag)
            .try_compile(name)
    };
    build(&WITH_FRAME_POINTERS, "-fno-omit-frame-pointer", "workload_fp")?;
    build(&WITHOUT_FRAME_POINTERS, "-fomit-frame-pointer", "workload_nofp")?;
    // C has `main` and the Rust side refers to nothing, so the linker is told to take all of it.
    let out = std::env::var("OUT_DIR")?;
    println!("cargo:rustc-link-arg-bin=memtrail-workload=-Wl,--whole-archive");
    println!("cargo:rustc-link-arg-bin=memtrail-workload={out}/libworkload_fp.a");
    println!("cargo:rustc-link-arg-bin=memtrail-workload={out}/libworkload_nofp.a");
    println!("cargo:rustc-link-arg-bin=memtrail-workload=-Wl,--no-whole-archive");
    println!("cargo:rustc-link-arg-bin=memtrail-workload=-lpthread");
    Ok(())
}
