//! Events that the kernel half sends through its rings, decoded. Each ring gives a descriptor to wait on and its events one by one.

pub mod cgroup;
pub mod managed;
pub mod mapping;
pub mod oom;

use super::{BpfError, loaded::KernelHalf, tables::row::RingTable};
use aya::maps::{MapData, RingBuf};
use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, OwnedFd},
};
use zerocopy::FromBytes;

/// What can be read from an entry of a ring.
pub trait Decode: Sized {
    /// The event; `None` for what is none of ours.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// Reads a plain event, whatever its bytes are and wherever they stand; `None` if there are too few.
pub(super) fn plain<T: FromBytes>(bytes: &[u8]) -> Option<T> {
    T::read_from_prefix(bytes).ok().map(|(event, _)| event)
}

/// A ring of events. As an iterator it gives those that wait, and ends with the last one of them.
pub struct Ring<T> {
    ring: RingBuf<MapData>,
    gives: PhantomData<fn() -> T>,
}

impl<T> Ring<T> {
    pub(super) fn take(half: &mut KernelHalf, table: &RingTable) -> Result<Ring<T>, BpfError> {
        let name = table.name();
        let map = half.bpf.take_map(name).ok_or(BpfError::Missing(name))?;
        let ring = RingBuf::try_from(map).map_err(|source| BpfError::Map { name, source })?;
        Ok(Ring { ring, gives: PhantomData })
    }

    /// Readable while events wait. It stays open when the ring is dropped.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.ring.as_fd().try_clone_to_owned()
    }
}

impl<T: Decode> Iterator for Ring<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            let item = self.ring.next()?;
            if let Some(event) = T::decode(&item) {
                return Some(event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_common::{event::CgroupEvent, mapping::MappingEvent};

    #[test]
    fn an_event_is_read_from_any_address_and_what_is_longer_is_passed_over() {
        let mut bytes = vec![0; size_of::<MappingEvent>() + 9];
        bytes[1..9].copy_from_slice(&7_u64.to_ne_bytes());
        let event = MappingEvent::decode(&bytes[1..]).unwrap();
        assert_eq!(event, MappingEvent { process: 7, ..MappingEvent::default() });
    }

    #[test]
    fn what_is_too_short_is_no_event() {
        let bytes = vec![0xff; size_of::<CgroupEvent>()];
        assert!(CgroupEvent::decode(&bytes).is_some_and(|event| event.id == u64::MAX));
        assert!(CgroupEvent::decode(&bytes[1..]).is_none() && CgroupEvent::decode(&[]).is_none());
    }
}
