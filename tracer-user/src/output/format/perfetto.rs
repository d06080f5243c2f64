//! Kinds of memory over time as counter tracks for Perfetto's viewer (`.pftrace`): <https://perfetto.dev>, trace packets of
//! protos/perfetto/trace. A track for each cgroup, below it one for each kind and for its usage; marks are instants.
//!
//! A trace is a sequence of packets, so it can be written while a recording runs. A counter is written when it changes. Names are written as
//! they are: the viewer escapes.

use super::Growing;
use crate::recording::Mark;
use crate::report::Interval;
use prost::Message;
use std::collections::{BTreeMap, HashMap};
use tracer_common::mix64;

/// All packets come from one writer.
const SEQUENCE: u32 = 1;
/// The boot clock (`BUILTIN_CLOCK_BOOTTIME`).
const BOOT_CLOCK: u32 = 6;
/// Of a counter: bytes (`UNIT_SIZE_BYTES`).
const SIZE_BYTES: i32 = 3;
/// Of an event (`TYPE_INSTANT`, `TYPE_COUNTER`).
const INSTANT: i32 = 3;
const COUNTER: i32 = 4;
/// Track of the marks.
const MARKS: u64 = 1;

/// Turns intervals into packets; remembers what the trace has already.
#[derive(Debug, Default)]
pub struct Encoder {
    /// Counters by cgroup and name, with the last value written.
    counters: BTreeMap<String, HashMap<String, u64>>,
    marks: bool,
}

impl Encoder {
    /// The packets of an interval. `path_of` names a cgroup by its id.
    #[must_use]
    pub fn interval(&mut self, interval: &Interval, path_of: impl Fn(&str) -> String) -> Vec<u8> {
        let at = interval.clocks[1];
        let mut trace = Trace::default();
        for (id, cgroup) in &interval.cgroups {
            if !self.counters.contains_key(id) {
                let parent = TrackDescriptor { uuid: track(id, ""), name: path_of(id), ..TrackDescriptor::default() };
                trace.packet.push(descriptor(at, parent));
                self.counters.insert(id.clone(), HashMap::new());
            }
            let Some(known) = self.counters.get_mut(id) else { continue };
            let usage = cgroup.usage_bytes.map(|usage| ("usage", usage));
            for (name, bytes) in cgroup.kinds.iter().map(|(kind, bytes)| (kind.as_str(), *bytes)).chain(usage) {
                // Most did not change; nothing is made for these.
                if known.get(name) == Some(&bytes) {
                    continue;
                }
                let uuid = track(id, name);
                if known.insert(name.to_owned(), bytes).is_none() {
                    let (parent_uuid, counter) = (track(id, ""), Some(CounterDescriptor { unit: SIZE_BYTES }));
                    trace.packet.push(descriptor(at, TrackDescriptor { uuid, name: name.to_owned(), parent_uuid, counter }));
                }
                let counter_value = Some(i64::try_from(bytes).unwrap_or(i64::MAX));
                trace.packet.push(event(at, TrackEvent { r#type: COUNTER, track_uuid: uuid, counter_value, name: None }));
            }
        }
        let gone: Vec<String> = self.counters.keys().filter(|id| !interval.cgroups.contains_key(*id)).cloned().collect();
        for id in gone {
            self.counters.remove(&id);
            trace.packet.push(instant(at, track(&id, ""), "removed"));
        }
        trace.encode_to_vec()
    }

    /// The packet of a mark.
    #[must_use]
    pub fn mark(&mut self, mark: &Mark) -> Vec<u8> {
        let at = mark.clocks[1];
        let mut trace = Trace::default();
        if !std::mem::replace(&mut self.marks, true) {
            trace.packet.push(descriptor(at, TrackDescriptor { uuid: MARKS, name: "marks".to_owned(), ..TrackDescriptor::default() }));
        }
        trace.packet.push(instant(at, MARKS, &mark.name));
        trace.encode_to_vec()
    }
}

impl Growing for Encoder {
    fn interval(&mut self, interval: &Interval, path_of: &dyn Fn(&str) -> String) -> Vec<u8> {
        Encoder::interval(self, interval, path_of)
    }

    fn mark(&mut self, mark: &Mark) -> Vec<u8> {
        Encoder::mark(self, mark)
    }
}

/// Number of a track. Ids of tracks only have to differ.
fn track(id: &str, name: &str) -> u64 {
    let hash = |hash, text: &str| text.bytes().fold(hash, |hash, byte| mix64(hash, u64::from(byte)));
    hash(mix64(hash(0, id), 256), name) | 2
}

fn descriptor(at: u64, descriptor: TrackDescriptor) -> TracePacket {
    TracePacket { track_descriptor: Some(descriptor), ..packet(at) }
}

fn event(at: u64, event: TrackEvent) -> TracePacket {
    TracePacket { track_event: Some(event), ..packet(at) }
}

fn instant(at: u64, track_uuid: u64, name: &str) -> TracePacket {
    event(at, TrackEvent { r#type: INSTANT, track_uuid, counter_value: None, name: Some(name.to_owned()) })
}

fn packet(at: u64) -> TracePacket {
    TracePacket { timestamp: at, timestamp_clock_id: BOOT_CLOCK, sequence: SEQUENCE, ..TracePacket::default() }
}

// The messages of trace_packet.proto and those that it holds, as far as they are written; numbers and types are the format's.

#[derive(Clone, PartialEq, Message)]
struct Trace {
    #[prost(message, repeated, tag = "1")]
    packet: Vec<TracePacket>,
}

#[derive(Clone, PartialEq, Message)]
struct TracePacket {
    #[prost(uint64, tag = "8")]
    timestamp: u64,
    #[prost(uint32, tag = "10")]
    sequence: u32,
    #[prost(message, optional, tag = "11")]
    track_event: Option<TrackEvent>,
    #[prost(uint32, tag = "58")]
    timestamp_clock_id: u32,
    #[prost(message, optional, tag = "60")]
    track_descriptor: Option<TrackDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct TrackDescriptor {
    #[prost(uint64, tag = "1")]
    uuid: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint64, tag = "5")]
    parent_uuid: u64,
    #[prost(message, optional, tag = "8")]
    counter: Option<CounterDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct CounterDescriptor {
    #[prost(int32, tag = "3")]
    unit: i32,
}

#[derive(Clone, PartialEq, Message)]
struct TrackEvent {
    #[prost(int32, tag = "9")]
    r#type: i32,
    #[prost(uint64, tag = "11")]
    track_uuid: u64,
    #[prost(string, optional, tag = "23")]
    name: Option<String>,
    #[prost(int64, optional, tag = "30")]
    counter_value: Option<i64>,
}
