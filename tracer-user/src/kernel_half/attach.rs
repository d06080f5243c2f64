//! Attaching: for each planned probe the first candidate that the kernel really loads and attaches, all of its programs or none.

use super::BpfError;
use crate::{
    host::kernel::targets::Targets,
    kernel_half::{
        plan::{Candidate, PlannedProbe},
        probes::{Attach, ProbeId, Tier},
    },
};
use aya::{
    Btf, Ebpf, Endianness,
    programs::{BtfTracePoint, FEntry, FExit, KProbe, Program, ProgramError, RawTracePoint},
};
use std::collections::HashSet;

/// What became of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Probe.
    pub id: ProbeId,
    /// Its provider, or `None`.
    pub tier: Option<Tier>,
    /// Reasons for every step down.
    pub reasons: Vec<String>,
}

/// What became of all of them.
#[derive(Clone, Debug, Default)]
pub struct Attachments(Vec<Attached>);

impl Attachments {
    /// The provider of a probe, if it has one.
    #[must_use]
    pub fn tier(&self, probe: ProbeId) -> Option<Tier> {
        self.0.iter().find(|attached| attached.id == probe)?.tier
    }

    /// Whether a probe has a provider.
    #[must_use]
    pub fn has(&self, probe: ProbeId) -> bool {
        self.tier(probe).is_some()
    }

    /// One by one.
    pub fn iter(&self) -> std::slice::Iter<'_, Attached> {
        self.0.iter()
    }
}

/// Attaches all probes; an error if a required one has no provider.
pub fn attach(bpf: &mut Ebpf, plan: &[PlannedProbe], targets: &Targets) -> Result<Attachments, BpfError> {
    let btf = &Btf::parse(&targets.to_btf(), Endianness::default()).map_err(|source| BpfError::Load(source.into()))?;
    // Programs shared by two probes (the LRU pair of the tracepoint tier) attach once to a target.
    let mut done = HashSet::new();
    // A program type that the kernel refuses is refused for every probe: the second try would only repeat it.
    let mut refused: Vec<(Type, String)> = Vec::new();
    let mut attached = Vec::new();
    for probe in plan {
        let mut outcome = Attached { id: probe.id, tier: None, reasons: probe.refused.clone() };
        for candidate in &probe.candidates {
            let has = |kind: Type| candidate.programs.iter().any(|target| type_of(target.attach) == kind);
            if let Some((_, why)) = refused.iter().find(|(kind, _)| has(*kind)) {
                outcome.reasons.push(format!("{}: {why}", candidate.tier));
                continue;
            }
            match attach_candidate(bpf, candidate, btf, &mut done) {
                Ok(()) => {
                    outcome.tier = Some(candidate.tier);
                    break;
                }
                Err(failure) => {
                    if let Some(kind) = failure.refused {
                        refused.push((kind, failure.reason.clone()));
                    }
                    outcome.reasons.push(format!("{}: {}", candidate.tier, failure.reason));
                }
            }
        }
        if probe.required && outcome.tier.is_none() {
            return Err(BpfError::NoProvider { probe: probe.id, reasons: outcome.reasons.join("; ") });
        }
        attached.push(outcome);
    }
    Ok(Attachments(attached))
}

struct Failure {
    reason: String,
    /// EPERM at load: the type itself is not allowed here.
    refused: Option<Type>,
}

/// What a kernel may allow of the ways to attach.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    RawTracepoint,
    TypedTracepoint,
    Trampoline,
    Kprobe,
}

fn type_of(attach: Attach) -> Type {
    match attach {
        Attach::RawTracepoint => Type::RawTracepoint,
        Attach::TypedTracepoint => Type::TypedTracepoint,
        Attach::Fentry | Attach::Fexit => Type::Trampoline,
        Attach::Kprobe | Attach::Kretprobe => Type::Kprobe,
    }
}

fn attach_candidate(
    bpf: &mut Ebpf,
    candidate: &Candidate,
    btf: &Btf,
    done: &mut HashSet<(&'static str, &'static str)>,
) -> Result<(), Failure> {
    let mut fresh = Vec::new();
    for target in &candidate.programs {
        if done.contains(&(target.program, target.target)) {
            continue;
        }
        match attach_program(bpf, target.program, target.attach, target.target, btf) {
            Ok(()) => {
                if let Some(Ok(info)) = bpf.program(target.program).map(Program::info) {
                    log::debug!("{}: verifier processed {:?} instructions", target.program, info.verified_instruction_count());
                }
                fresh.push((target.program, target.target));
            }
            Err(error) => {
                for (program, _) in fresh {
                    // Best effort on the way out of a failure that is reported; the links die with the object anyway.
                    let _ = unload(bpf, program);
                }
                return Err(Failure {
                    reason: format!("{}: {}", target.target, describe(&error)),
                    refused: is_permission_error(&error).then(|| type_of(target.attach)),
                });
            }
        }
    }
    done.extend(fresh);
    Ok(())
}

/// Loads a program and attaches it to a tracepoint.
pub(super) fn to_tracepoint(bpf: &mut Ebpf, name: &str, tracepoint: &str) -> Result<(), ProgramError> {
    let program: &mut RawTracePoint = named(bpf, name)?;
    program.load()?;
    program.attach(tracepoint).map(drop)
}

/// A program of a type.
fn named<'b, P>(bpf: &'b mut Ebpf, name: &str) -> Result<&'b mut P, ProgramError>
where
    &'b mut P: TryFrom<&'b mut Program, Error = ProgramError>,
{
    bpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()
}

/// Detaches a program and unloads it; one that is not loaded stays so.
pub(super) fn unload(bpf: &mut Ebpf, name: &str) -> Result<(), ProgramError> {
    match bpf.program_mut(name).map(program_unload) {
        None | Some(Ok(()) | Err(ProgramError::NotLoaded)) => Ok(()),
        Some(Err(error)) => Err(error),
    }
}

fn attach_program(bpf: &mut Ebpf, name: &'static str, how: Attach, target: &'static str, btf: &Btf) -> Result<(), ProgramError> {
    match how {
        Attach::RawTracepoint => to_tracepoint(bpf, name, target)?,
        Attach::TypedTracepoint => {
            let program: &mut BtfTracePoint = named(bpf, name)?;
            program.load(target, btf)?;
            program.attach()?;
        }
        Attach::Fentry => {
            let program: &mut FEntry = named(bpf, name)?;
            program.load(target, btf)?;
            program.attach()?;
        }
        Attach::Fexit => {
            let program: &mut FExit = named(bpf, name)?;
            program.load(target, btf)?;
            program.attach()?;
        }
        Attach::Kprobe | Attach::Kretprobe => {
            let program: &mut KProbe = named(bpf, name)?;
            // One program may serve several functions.
            if program.fd().is_err() {
                program.load()?;
            }
            program.attach(target, 0)?;
        }
    }
    Ok(())
}

fn program_unload(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::RawTracePoint(program) => program.unload(),
        Program::BtfTracePoint(program) => program.unload(),
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// The chain of causes in one line; a verifier log is cut to its last lines, which hold the reason.
pub fn describe(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        let log = verifier_log.to_string();
        let mut last: Vec<&str> = log.lines().rev().filter(|line| !line.trim().is_empty()).take(3).collect();
        last.reverse();
        return if last.is_empty() { format!("the kernel refuses it: {io_error}") } else { format!("{io_error}: {}", last.join(" | ")) };
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

fn is_permission_error(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EPERM))
}
