//! Reading the kernel half's tables.

use super::{BpfError, batch, stack::Stack};
use aya::{
    Ebpf, Pod, RawTracePointRunOptions, TestRun as _,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues},
    programs::RawTracePoint,
};
use tracer_common::{
    attribution::{Grave, KeyRecord, OwnerTotals, SWEPT_DIRTY, SWEPT_WRITEBACK, Sample},
    dirty::{DirtyKey, DirtyRecord},
    file::FileRecord,
    histogram::HistogramKey,
    kind::Kind,
    loss::{Loss, LossCount},
    owner::OwnerName,
    process::ProcessRecord,
    settings::Control,
    stack::StackRecord,
};

/// A hash table to be changed.
fn table<'a, K: Pod, V: Pod>(bpf: &'a mut Ebpf, name: &'static str) -> Result<HashMap<&'a mut MapData, K, V>, BpfError> {
    HashMap::try_from(bpf.map_mut(name).ok_or(BpfError::Missing(name))?).map_err(|source| BpfError::Map { name, source })
}

/// Removes entries of a table; those that are gone already are passed over.
pub(super) fn remove_all<K: Pod, V: Pod>(bpf: &mut Ebpf, name: &'static str, keys: &[K]) -> Result<(), BpfError> {
    let mut map = table::<K, V>(bpf, name)?;
    keys.iter().try_for_each(|key| match map.remove(key) {
        Err(source) if !is_gone(&source) => Err(BpfError::Map { name, source }),
        _ => Ok(()),
    })
}

/// Removes an entry of a table of that name and gives its last value; `None` if it is gone already, or `stays`.
fn take<K: Pod, V: Pod>(
    map: &mut HashMap<&mut MapData, K, V>,
    name: &'static str,
    key: &K,
    stays: impl FnOnce(&V) -> bool,
) -> Result<Option<V>, BpfError> {
    let value = map.get(key, 0).and_then(|value| if stays(&value) { Ok(None) } else { map.remove(key).map(|()| Some(value)) });
    match value {
        Err(error) if is_gone(&error) => Ok(None),
        value => value.map_err(|source| BpfError::Map { name, source }),
    }
}

/// Keys by identity.
pub fn keys(bpf: &Ebpf) -> Result<std::collections::HashMap<u64, KeyRecord>, BpfError> {
    batch::entries(bpf, "KEYS")
}

/// Removes a key and gives its last value, or leaves it and gives `None` if it has live bytes again.
pub fn take_key(bpf: &mut Ebpf, identity: u64) -> Result<Option<KeyRecord>, BpfError> {
    take(&mut table(bpf, "KEYS")?, "KEYS", &identity, |record| crate::analyse::accounts::live(record) != 0)
}

/// Removes stacks.
pub fn remove_stacks(bpf: &mut Ebpf, identities: &[u64]) -> Result<(), BpfError> {
    remove_all::<u64, StackRecord>(bpf, "STACKS", identities)
}

/// Removes processes.
pub fn remove_processes(bpf: &mut Ebpf, identities: &[u64]) -> Result<(), BpfError> {
    remove_all::<u64, ProcessRecord>(bpf, "PROCESSES", identities)
}

/// Removes files.
pub fn remove_files(bpf: &mut Ebpf, identities: &[u64]) -> Result<(), BpfError> {
    remove_all::<u64, FileRecord>(bpf, "FILES", identities)
}

/// Removes counters of distributions and gives their last values; those that are gone already are passed over.
pub fn take_histograms(bpf: &mut Ebpf, keys: &[HistogramKey]) -> Result<Vec<(HistogramKey, u64)>, BpfError> {
    let mut map = table(bpf, "HISTOGRAMS")?;
    let taken = keys.iter().map(|key| Ok(take(&mut map, "HISTOGRAMS", key, |_| false)?.map(|count| (*key, count))));
    taken.filter_map(Result::transpose).collect()
}

/// Threads in a table of those that wait, whose values have so many words.
pub fn threads<const WORDS: usize>(bpf: &Ebpf, name: &'static str) -> Result<usize, BpfError>
where
    [u64; WORDS]: Pod,
{
    Ok(batch::entries::<u64, [u64; WORDS]>(bpf, name)?.len())
}

/// Live samples by slot.
pub fn samples(bpf: &Ebpf) -> Result<std::collections::HashMap<u64, Sample>, BpfError> {
    batch::entries(bpf, "SAMPLES")
}

/// Samples kept for open pictures.
pub fn graveyard(bpf: &Ebpf) -> Result<std::collections::HashMap<Grave, Sample>, BpfError> {
    batch::entries(bpf, "GRAVEYARD")
}

/// Stacks by identity.
pub fn stacks(bpf: &Ebpf) -> Result<std::collections::HashMap<u64, Stack>, BpfError> {
    batch::entries_as(bpf, "STACKS", |record: &StackRecord| Stack::from(record))
}

/// Processes by identity.
pub fn processes(bpf: &Ebpf) -> Result<std::collections::HashMap<u64, ProcessRecord>, BpfError> {
    batch::entries(bpf, "PROCESSES")
}

/// What the kernel still knows of the name of the owner of the live sample in `slot`.
pub fn owner_name(bpf: &mut Ebpf, slot: u64) -> Result<OwnerName, BpfError> {
    let name = "OWNER_NAME";
    run(bpf, "run_owner_name", [slot, 0, 0])?;
    let failed = |source| BpfError::Map { name, source };
    let map = Array::<_, OwnerName>::try_from(bpf.map(name).ok_or(BpfError::Missing(name))?).map_err(failed)?;
    map.get(&0, 0).map_err(failed)
}

/// Files by identity.
pub fn files(bpf: &Ebpf) -> Result<std::collections::HashMap<u64, FileRecord>, BpfError> {
    batch::entries(bpf, "FILES")
}

/// Identities of the files that have a record; one that comes meanwhile may be there twice.
pub fn known_files(bpf: &Ebpf) -> Result<Vec<u64>, BpfError> {
    let mut files = Vec::new();
    batch::each(bpf, "FILES", |file, _: &FileRecord| files.push(*file))?;
    Ok(files)
}

/// Files of which something is live.
pub fn files_of_samples(bpf: &Ebpf) -> Result<std::collections::HashSet<u64>, BpfError> {
    let mut files = std::collections::HashSet::new();
    batch::each(bpf, "SAMPLES", |_: &u64, sample: &Sample| {
        files.insert(sample.file);
    })?;
    Ok(files)
}

/// Who made page cache dirty.
pub fn dirtied(bpf: &Ebpf) -> Result<std::collections::HashMap<DirtyKey, DirtyRecord>, BpfError> {
    batch::entries(bpf, "DIRTIED")
}

/// Removes an entry of that table and gives its last value; `None` if it is gone already.
pub fn take_dirtied(bpf: &mut Ebpf, key: &DirtyKey) -> Result<Option<DirtyRecord>, BpfError> {
    take(&mut table(bpf, "DIRTIED")?, "DIRTIED", key, |_| false)
}

/// Owners that have exact totals. One that goes while the table is walked may be left out.
pub fn owners_with_totals(bpf: &Ebpf) -> Result<Vec<u64>, BpfError> {
    let name = "OWNER_TOTALS";
    let failed = |source| BpfError::Map { name, source };
    let map = PerCpuHashMap::<_, u64, OwnerTotals>::try_from(bpf.map(name).ok_or(BpfError::Missing(name))?).map_err(failed)?;
    Ok(map.keys().filter_map(Result::ok).collect())
}

/// Removes exact totals and gives their last values, summed over CPUs; `None` if there are none.
pub fn take_owner_totals(bpf: &mut Ebpf, owner: u64) -> Result<Option<OwnerTotals>, BpfError> {
    let name = "OWNER_TOTALS";
    let failed = |source| BpfError::Map { name, source };
    let mut map = PerCpuHashMap::<_, u64, OwnerTotals>::try_from(bpf.map_mut(name).ok_or(BpfError::Missing(name))?).map_err(failed)?;
    let of_cpus = match map.get(&owner, 0) {
        Err(error) if is_gone(&error) => return Ok(None),
        of_cpus => of_cpus.map_err(failed)?,
    };
    map.remove(&owner).map_err(failed)?;
    let mut sum = OwnerTotals::default();
    of_cpus.iter().for_each(|one| sum.add(one));
    Ok(Some(sum))
}

/// Adds to what an owner was charged as a kind.
pub fn hand_over(bpf: &mut Ebpf, owner: u64, kind: Kind, bytes: i64) -> Result<(), BpfError> {
    run(bpf, "run_hand_over", [owner, kind as u64, bytes as u64])
}

/// Exact bytes by owner, summed over CPUs.
pub fn owner_totals(bpf: &Ebpf) -> Result<std::collections::HashMap<u64, OwnerTotals>, BpfError> {
    let name = "OWNER_TOTALS";
    let failed = |source| BpfError::Map { name, source };
    let map = PerCpuHashMap::<_, u64, OwnerTotals>::try_from(bpf.map(name).ok_or(BpfError::Missing(name))?).map_err(failed)?;
    let mut found = std::collections::HashMap::new();
    for entry in map.iter() {
        let (owner, values) = entry.map_err(failed)?;
        let mut sum = OwnerTotals::default();
        values.iter().for_each(|value| sum.add(value));
        found.insert(owner, sum);
    }
    Ok(found)
}

/// Losses by cause, summed over CPUs.
pub fn losses(bpf: &Ebpf) -> Result<Vec<(Loss, LossCount)>, BpfError> {
    let name = "LOSS_COUNTS";
    let failed = |source| BpfError::Map { name, source };
    let map = PerCpuArray::<_, LossCount>::try_from(bpf.map(name).ok_or(BpfError::Missing(name))?).map_err(failed)?;
    Loss::ALL
        .iter()
        .map(|cause| {
            let values = map.get(&(*cause as u32), 0).map_err(failed)?;
            let sum = values.iter().fold(LossCount::default(), |sum, one| LossCount {
                events: sum.events.wrapping_add(one.events),
                bytes: sum.bytes.wrapping_add(one.bytes),
            });
            Ok((*cause, sum))
        })
        .collect()
}

/// Calls of mem_cgroup_charge and their failures.
pub fn charge_calls(bpf: &Ebpf) -> Result<[u64; 2], BpfError> {
    Ok(of_cpus::<[u64; 2]>(bpf, "CHARGE_CALLS")?.iter().fold([0, 0], |sum, one| [sum[0] + one[0], sum[1] + one[1]]))
}

/// Each CPU's value of a table with one entry.
pub(super) fn of_cpus<V: Pod>(bpf: &Ebpf, name: &'static str) -> Result<PerCpuValues<V>, BpfError> {
    let failed = |source| BpfError::Map { name, source };
    let map = PerCpuArray::<_, V>::try_from(bpf.map(name).ok_or(BpfError::Missing(name))?).map_err(failed)?;
    map.get(&0, 0).map_err(failed)
}

/// What the sweep found about one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// What became of it.
    pub verdict: SweepVerdict,
    /// Frames that some page table maps, of an anonymous folio; of others all that are left.
    pub mapped_frames: u64,
    /// Frames not yet uncharged.
    pub frames_left: u64,
    /// Owner now, 0 if none.
    pub owner: u64,
    /// The folio waits to be written to disk.
    pub dirty: bool,
    /// It is on its way there.
    pub writeback: bool,
}

/// What became of a swept sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SweepVerdict {
    /// It stands.
    Stands,
    /// It was pending and has its owner now.
    Settled,
    /// It is pending still.
    Pending,
    /// Its end was missed; ended now.
    Stale,
    /// It ended meanwhile.
    Gone,
}

/// Looks again at the samples in `slots`.
pub fn sweep(bpf: &mut Ebpf, slots: impl Iterator<Item = u64>) -> Result<std::collections::HashMap<u64, Swept>, BpfError> {
    let mut found = std::collections::HashMap::new();
    for slot in slots {
        run(bpf, "run_sweep", [slot, 0, 0])?;
        let [word, mapped_frames, frames_left, owner] = run_result(bpf, 0)?;
        let (dirty, writeback) = (word & SWEPT_DIRTY != 0, word & SWEPT_WRITEBACK != 0);
        let verdict = match word & !(SWEPT_DIRTY | SWEPT_WRITEBACK) {
            0 => SweepVerdict::Stands,
            1 => SweepVerdict::Settled,
            2 => SweepVerdict::Pending,
            3 => SweepVerdict::Stale,
            _ => SweepVerdict::Gone,
        };
        found.insert(slot, Swept { verdict, mapped_frames, frames_left, owner, dirty, writeback });
    }
    Ok(found)
}

/// The state that both halves share while the trace runs.
pub fn control(bpf: &Ebpf) -> Result<Control, BpfError> {
    let name = "CONTROL";
    let failed = |source| BpfError::Map { name, source };
    let map = Array::<_, Control>::try_from(bpf.map(name).ok_or(BpfError::Missing(name))?).map_err(failed)?;
    map.get(&0, 0).map_err(failed)
}

/// Removes samples from the graveyard; those that are gone already are passed over.
pub fn remove_graves(bpf: &mut Ebpf, graves: &[Grave]) -> Result<(), BpfError> {
    remove_all::<Grave, Sample>(bpf, "GRAVEYARD", graves)
}

fn is_gone(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound | MapError::ElementNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}

/// Result of a program that is run by hand: 0 the sweep, 1 the baseline.
pub fn run_result(bpf: &Ebpf, index: u32) -> Result<[u64; 4], BpfError> {
    let name = "RUN_RESULTS";
    let failed = |source| BpfError::Map { name, source };
    let map = Array::<_, [u64; 4]>::try_from(bpf.map(name).ok_or(BpfError::Missing(name))?).map_err(failed)?;
    map.get(&index, 0).map_err(failed)
}

/// Runs one of the programs that exist to be run by hand.
pub fn run(bpf: &mut Ebpf, name: &'static str, args: [u64; 3]) -> Result<(), BpfError> {
    let failed = |error| BpfError::Run { program: name, error: Box::new(error) };
    let program: &mut RawTracePoint = bpf.program_mut(name).ok_or(BpfError::Missing(name))?.try_into().map_err(failed)?;
    match program.load() {
        Ok(()) | Err(aya::programs::ProgramError::AlreadyLoaded) => {}
        Err(source) => return Err(failed(source)),
    }
    let mut options = RawTracePointRunOptions::new();
    options.args[..3].copy_from_slice(&args);
    program.test_run(options).map_err(failed)?;
    Ok(())
}
