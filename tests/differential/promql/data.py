"""Random series, and their remote-write 1.0 encoding. One world covers SPAN seconds from its base; worlds never meet."""

import random
import struct

# Worlds lie this far apart, so that no range or offset of one reaches another.
WORLD_SECONDS = 86_400
# How long a world's data is.
SPAN = 5_400
FIRST_BASE = 1_700_006_400
# Samples of one request. Prometheus refuses samples that are much older than the newest, so they go in slices of time.
SLICE_SECONDS = 600
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
STALE_BYTES = struct.pack("<Q", 0x7FF0000000000002)
NAN_BYTES = struct.pack("<Q", 0x7FF8000000000001)

GAUGES = ["temperature", "queue_length", "load"]
COUNTERS = ["requests_total", "errors_total", "bytes_total"]
HISTOGRAMS = ["latency_seconds", "size_bytes"]
JOBS = ["api", "db", "web"]
INSTANCES = ["a:1", "b:1", "c:2", "d"]


def base_of(world):
    return FIRST_BASE + world * WORLD_SECONDS


class Series:
    def __init__(self, labels):
        # Pairs of milliseconds and the eight bytes of a double.
        self.labels, self.samples = dict(labels), []

    def add(self, millis, value):
        self.samples.append((millis, value if isinstance(value, bytes) else struct.pack("<d", value)))


def times(chance, base):
    """Scrape times in milliseconds: even, jittered or wild; sometimes only a part of the world, sometimes with gaps."""
    interval = chance.choice([15_000, 15_000, 30_000, 60_000, 7_777])
    kind = chance.choice(["even", "even", "jitter", "jitter", "wild"])
    first, last = base * 1000, (base + SPAN) * 1000
    part = chance.random()
    if part < 0.1:
        last = first + chance.randrange(SPAN * 500)
    elif part < 0.2:
        first = first + chance.randrange(SPAN * 500)
    elif part < 0.23:
        first = last - chance.randrange(SPAN * 500)
        last = first + 1
    gap = None
    if chance.random() < 0.3:
        start = chance.randrange(first, max(first + 1, last))
        gap = (start, start + chance.choice([60_000, 280_000, 310_000, 900_000]))
    now, offset = first, chance.choice([0, 0, chance.randrange(interval)])
    while now < last:
        time = now + offset
        if kind == "jitter":
            time += chance.randrange(max(1, interval // 5))
        elif kind == "wild":
            time += chance.randrange(interval)
        if gap is None or not gap[0] <= time < gap[1]:
            yield time
        now += interval if kind != "wild" else interval + chance.randrange(interval)
    # The rest is silence; whether it is marked as such is decided by the caller.


def finish(chance, series, base):
    """Stale markers: at the end, and here and there where the series goes on afterwards."""
    if not series.samples:
        return
    if chance.random() < 0.3 and series.samples[-1][0] < (base + SPAN) * 1000 - 20_000:
        series.add(series.samples[-1][0] + 15_000, STALE_BYTES)
    if chance.random() < 0.2:
        at = chance.randrange(len(series.samples))
        series.samples[at] = (series.samples[at][0], STALE_BYTES)


def gauge(chance, base):
    kind = chance.choice(["walk", "walk", "round", "constant", "special", "huge", "tiny", "bits"])
    value = chance.uniform(-50, 100)
    for time in times(chance, base):
        if kind == "walk":
            value += chance.gauss(0, 3)
            yield time, value
        elif kind == "round":
            yield time, float(chance.randrange(-5, 20))
        elif kind == "constant":
            yield time, float(round(value))
        elif kind == "bits":
            yield time, chance.choice([-0.0, 0.0, 0.5, -0.5, 1.5, 2.5])
        elif kind == "special" and chance.random() < 0.25:
            yield time, chance.choice([NAN_BYTES, float("inf"), float("-inf"), -0.0, 0.0])
        elif kind == "huge":
            yield time, chance.uniform(-1, 1) * 1e300 * chance.choice([1, 1e8])
        elif kind == "tiny":
            yield time, chance.uniform(-1, 1) * 1e-300
        else:
            yield time, chance.uniform(-10, 10)


def counter(chance, base):
    value, fine = float(chance.choice([0, 0, 5, 1000, 10**6])), chance.random() < 0.5
    quiet, resets = chance.random() < 0.2, chance.choice([0.0, 0.01, 0.05])
    for time in times(chance, base):
        if chance.random() < resets:
            value = float(chance.choice([0, 1, 3]))
        elif not quiet or chance.random() < 0.05:
            value += chance.randrange(50) if not fine else chance.random() * 20
        yield time, value


def histogram(chance, name, labels, base):
    bounds = chance.choice([[0.1, 0.5, 1, 2.5, 10], [-5, 0, 5, 50], [1, 10, 100, 1000], [0.25], [0, 1]])
    texts = [chance.choice([str(bound), repr(float(bound)), f"{bound:e}"]) for bound in bounds]
    if chance.random() < 0.9:
        bounds, texts = bounds + [float("inf")], texts + [chance.choice(["+Inf", "+Inf", "Inf", "+inf"])]
    if chance.random() < 0.1:
        bounds, texts = bounds + [float("nan")], texts + [chance.choice(["wrong", "0x", ""])]
    buckets = [Series({"__name__": f"{name}_bucket", "le": text, **labels}) for text in texts]
    total, count = Series({"__name__": f"{name}_sum", **labels}), Series({"__name__": f"{name}_count", **labels})
    counts, summed = [0.0] * len(buckets), 0.0
    resets, ragged = chance.choice([0.0, 0.02]), chance.random() < 0.3
    seen = 0.0
    for time in times(chance, base):
        if chance.random() < resets:
            counts, summed, seen = [0.0] * len(buckets), 0.0, 0.0
        for _ in range(chance.randrange(6)):
            value = chance.uniform(bounds[0] - 1, 3 * abs(bounds[min(2, len(bounds) - 1)]) if abs(bounds[min(2, len(bounds) - 1)]) < 1e9 else 30)
            summed += value
            seen += 1
            for at, bound in enumerate(bounds):
                if value <= bound or bound != bound:
                    counts[at] += 1
        for at, one in enumerate(buckets):
            # A bucket that lags behind: scrapes are not atomic.
            lag = chance.choice([0, 0, 0, 1]) if ragged else 0
            one.add(time, max(0.0, counts[at] - lag))
        total.add(time, summed)
        count.add(time, seen)
    return [*buckets, total, count]


def world(number):
    """All series of a world, by its number alone."""
    chance, base, made = random.Random(f"promql data {number}"), base_of(number), []
    for name in GAUGES:
        for job in chance.sample(JOBS, chance.choice([2, 3])):
            for instance in chance.sample(INSTANCES, chance.choice([1, 2, 3])):
                one = Series({"__name__": name, "job": job, "instance": instance})
                if chance.random() < 0.4:
                    one.labels["zone"] = chance.choice(["north", "south", "ö/1 \"x\""])
                for time, value in gauge(chance, base):
                    one.add(time, value)
                finish(chance, one, base)
                made.append(one)
    for name in COUNTERS:
        for job in chance.sample(JOBS, 2):
            for instance in chance.sample(INSTANCES, chance.choice([1, 2])):
                for code in chance.sample(["200", "404", "500"], chance.choice([1, 2, 3])):
                    one = Series({"__name__": name, "job": job, "instance": instance, "code": code})
                    for time, value in counter(chance, base):
                        one.add(time, value)
                    finish(chance, one, base)
                    made.append(one)
    for name in HISTOGRAMS:
        for job in chance.sample(JOBS, 2):
            for instance in chance.sample(INSTANCES, chance.choice([1, 2])):
                made.extend(histogram(chance, name, {"job": job, "instance": instance}, base))
    for job in JOBS:
        for instance in INSTANCES:
            up = Series({"__name__": "up", "job": job, "instance": instance})
            for time in times(chance, base):
                up.add(time, float(chance.random() < 0.9))
            finish(chance, up, base)
            made.append(up)
            if chance.random() < 0.8:
                about = Series({"__name__": "build_info", "job": job, "instance": instance, "version": chance.choice(["1.0", "1.1", "2.0-rc.1"])})
                for time in range(base * 1000, (base + SPAN) * 1000, 60_000):
                    about.add(time, 1.0)
                made.append(about)
    dotted = Series({"__name__": "disk.read bytes", "dc.name": "west", "job": "api"})
    for time, value in counter(chance, base):
        dotted.add(time, value)
    made.append(dotted)
    return [one for one in made if one.samples]


def varint(number):
    out = bytearray()
    number &= (1 << 64) - 1
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def message(parts):
    """A WriteRequest of pairs of labels and samples."""
    out = bytearray()
    for labels, samples in parts:
        one = b"".join(field(1, field(1, name.encode()) + field(2, value.encode())) for name, value in sorted(labels.items()) if value)
        one += b"".join(field(2, b"\x09" + value + b"\x10" + varint(time)) for time, value in samples)
        out += field(1, one)
    return bytes(out)


def snappy(payload):
    """A snappy block of literals only."""
    out = bytearray(varint(len(payload)))
    for start in range(0, len(payload), 65_536):
        piece = payload[start : start + 65_536]
        out += b"\xf4" + struct.pack("<H", len(piece) - 1) + piece
    return bytes(out)


def requests(series, base):
    """Bodies of remote write, oldest first."""
    last = max(one.samples[-1][0] for one in series)
    start = base * 1000
    while start <= last:
        end = start + SLICE_SECONDS * 1000
        parts = [(one.labels, [sample for sample in one.samples if start <= sample[0] < end]) for one in series]
        parts = [(labels, sorted(dict(samples).items())) for labels, samples in parts if samples]
        if parts:
            yield snappy(message(parts))
        start = end
