"""Reads what a recording wrote with other programs' readers: HdrHistogram's Python port and Perfetto's own message classes.

Arguments: the folder with the files, and the cgroup. Fails with what differs.
"""

import json
import math
import pathlib
import sys

from hdrh.histogram import HdrHistogram
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as perfetto

folder, cgroup = pathlib.Path(sys.argv[1]), sys.argv[2]
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}


def empty():
    return HdrHistogram(1, 2**62, 3)


def same(what, found, wanted):
    assert found == wanted, f"{what}: {found}, not {wanted}"


def at_rank(histogram, rank):
    """The largest value like that of the given rank, counted from one."""
    for item in histogram.get_recorded_iterator():
        rank -= item.count_added_in_this_iter_step
        if rank <= 0:
            return histogram.get_highest_equivalent_value(item.value_iterated_to)
    raise AssertionError("a rank beyond the end")


def compare(what, histogram, row):
    count = row["count"]
    same(f"{what}: count", histogram.get_total_count(), count)
    for name, percentile in PERCENTILES.items():
        # Java and Rust take the first value that reaches the share; the Python port rounds the rank to the nearest.
        rank = max(math.ceil(percentile * count / 100 - 1e-9), 1)
        # Sizes are shown as their bucket's lowest value, readers take the highest that counts as equal.
        shown = histogram.get_highest_equivalent_value(row[name])
        same(f"{what}: {name}", at_rank(histogram, rank), shown)
        if int(percentile * count / 100 + 0.5) == rank:
            same(f"{what}: {name}", histogram.get_value_at_percentile(percentile), shown)
    same(f"{what}: max", histogram.get_max_value(), histogram.get_highest_equivalent_value(row["max"]))


def log(name):
    """Sums by tag; the lines as the format has them."""
    sums = {}
    for line in (folder / name).read_text().splitlines():
        if line.startswith(("#", '"')):
            continue
        tag, start, length, largest, encoded = line.split(",")
        assert tag.startswith("Tag=") and float(length) >= 0 and float(start) >= 0, line
        histogram = HdrHistogram.decode(encoded)
        same("largest of a line", histogram.get_max_value(), int(largest))
        sums.setdefault(tag[4:], empty()).add(histogram)
    return sums


report = json.loads((folder / "report.json").read_text())
rows = next(found for found in report["cgroups"] if found["path"] == cgroup)["histograms"]
assert {"memcg_reclaim_ns", "charge_bytes", "lifetime_ns", "live_age_ns"} <= rows.keys(), rows.keys()

for metric, row in rows.items():
    compare(f"payload of {metric}", HdrHistogram.decode(row["hdr"]), row)

tag = cgroup.replace(",", "\\x2c").replace(" ", "\\x20")
sums = log("log.hlog")
same("tags", {f"{tag};{metric}" for metric in rows if metric != "live_age_ns"}, set(sums))
for name, histogram in sums.items():
    compare(f"log {name}", histogram, rows[name.split(";")[1]])
for name, histogram in log("again.hlog").items():
    compare(f"log of the recording {name}", histogram, rows[name.split(";")[1]])

lines = [json.loads(line) for line in (folder / "stream.jsonl").read_text().splitlines()]
streamed = {}
for line in lines:
    for found in line.get("cgroups", []):
        for metric, row in found["histograms"].items():
            histogram = HdrHistogram.decode(row["hdr"])
            compare(f"line of {metric}", histogram, row)
            streamed.setdefault(metric, empty()).add(histogram)
same("metrics of the stream", set(streamed), rows.keys() - {"live_age_ns"})
for metric, histogram in streamed.items():
    compare(f"stream {metric}", histogram, rows[metric])
assert any(found["live"].get("anon", 0) > 0 for line in lines if line["type"] == "interval" for found in line["cgroups"])

series = json.loads((folder / "series.json").read_text())
for name in ("trace.pftrace", "again.pftrace"):
    trace = perfetto.Trace()
    trace.ParseFromString((folder / name).read_bytes())
    tracks, values, instants = {}, {}, []
    for packet in trace.packet:
        if packet.HasField("track_descriptor"):
            tracks[packet.track_descriptor.uuid] = packet.track_descriptor
        if packet.HasField("track_event"):
            event = packet.track_event
            assert event.track_uuid in tracks, "a track is described before its first event"
            if event.type == perfetto.TrackEvent.TYPE_COUNTER:
                values.setdefault(event.track_uuid, []).append((packet.timestamp, event.counter_value))
            else:
                instants.append(event.name)
    same(f"{name}: marks", instants, ["half"])
    counters = {tracks[uuid].name: points for uuid, points in values.items() if tracks[tracks[uuid].parent_uuid].name == cgroup}
    own = next(found["id"] for found in report["cgroups"] if found["path"] == cgroup)
    for kind, points in counters.items():
        # A counter is written where it changes: the series without repetitions.
        wanted = []
        for interval in series:
            figures = interval["cgroups"][own]
            value = figures["usage_bytes"] if kind == "usage" else figures["kinds"][kind]
            if not wanted or wanted[-1][1] != value:
                wanted.append((interval["clocks"][1], value))
        same(f"{name}: {kind}", points, wanted)
    assert {"usage", "anon", "file"} <= counters.keys(), counters.keys()
    unit = next(track for track in tracks.values() if track.name == "usage").counter.unit
    same("unit", unit, perfetto.CounterDescriptor.UNIT_SIZE_BYTES)

print(f"{len(sums)} tags, {len(lines)} lines, {len(series)} intervals agree")
