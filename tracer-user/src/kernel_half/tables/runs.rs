//! Programs that exist to be run by hand, and their results: a raw tracepoint program's return value does not reach user space.

use super::row::ArrayTable;
use crate::kernel_half::{BpfError, loaded::KernelHalf};
use aya::{
    RawTracePointRunOptions, TestRun as _,
    programs::{ProgramError, RawTracePoint},
};
use std::os::fd::{AsFd as _, OwnedFd};

/// Entry 0: the sweep; 1: folios kept by the baseline; 2: a file; 3: a walk.
pub static RUN_RESULTS: ArrayTable<[u64; 4]> = ArrayTable::named("RUN_RESULTS").fixed(4);

/// Result of a program that is run by hand, by its entry.
pub fn run_result(half: &KernelHalf, index: u32) -> Result<[u64; 4], BpfError> {
    RUN_RESULTS.get(half, index)
}

/// The descriptor of such a program, loaded, for a thread that runs it by itself.
pub(in super::super) fn descriptor(half: &mut KernelHalf, name: &'static str) -> Result<OwnedFd, BpfError> {
    let program = loaded(half, name)?;
    let descriptor = program.fd().map(|fd| fd.as_fd().try_clone_to_owned());
    let failed = |error| BpfError::Run { program: name, error: Box::new(error) };
    descriptor.map_err(failed)?.map_err(|error| failed(ProgramError::IOError(error)))
}

fn loaded<'h>(half: &'h mut KernelHalf, name: &'static str) -> Result<&'h mut RawTracePoint, BpfError> {
    let failed = |error| BpfError::Run { program: name, error: Box::new(error) };
    let program: &mut RawTracePoint = half.bpf.program_mut(name).ok_or(BpfError::Missing(name))?.try_into().map_err(failed)?;
    match program.load() {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(program),
        Err(source) => Err(failed(source)),
    }
}

/// Runs one of the programs that exist to be run by hand.
pub fn run(half: &mut KernelHalf, name: &'static str, args: [u64; 3]) -> Result<(), BpfError> {
    let failed = |error| BpfError::Run { program: name, error: Box::new(error) };
    let program = loaded(half, name)?;
    let mut options = RawTracePointRunOptions::new();
    options.args[..3].copy_from_slice(&args);
    program.test_run(options).map_err(failed)?;
    Ok(())
}
