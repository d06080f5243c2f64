//! Programs that return at once: what they cost is what any tracer on these hooks costs.

use super::{BpfError, OBJECT};
use aya::{Ebpf, EbpfLoader, programs::RawTracePoint};

/// The program.
const EMPTY: &str = "empty";

/// Empty programs on tracepoints, for as long as this lives.
pub struct Empty {
    _bpf: Ebpf,
}

impl Empty {
    /// Loads the program and attaches it to these tracepoints.
    pub fn attach<'a>(tracepoints: impl IntoIterator<Item = &'a str>) -> Result<Empty, BpfError> {
        let failed = |error| BpfError::Run { program: EMPTY, error: Box::new(error) };
        let mut bpf = EbpfLoader::new().load(OBJECT)?;
        let program: &mut RawTracePoint = bpf.program_mut(EMPTY).ok_or(BpfError::Missing("program empty"))?.try_into().map_err(failed)?;
        program.load().map_err(failed)?;
        for tracepoint in tracepoints {
            program.attach(tracepoint).map_err(|error| BpfError::Attach {
                program: EMPTY,
                tracepoint: tracepoint.to_owned(),
                error: Box::new(error),
            })?;
        }
        Ok(Empty { _bpf: bpf })
    }
}
