"""Worlds with native histograms: whole and float ones, schemas that change, bounds of their own, gauges, resets, series that
mix histograms with numbers; their remote-write encoding, and random queries over them."""

import itertools
import math
import random
import struct

import data
from data import STALE_BYTES, Series, base_of, field, snappy, varint

# Numbers of these worlds, far from the others'.
FIRST = 1_000
SPAN = data.SPAN
STALE_SUM = struct.unpack("<d", STALE_BYTES)[0]
CUSTOM = -53
BOUNDS = [[0.1, 0.5, 1, 2.5, 10], [-5, 0, 5, 50], [1, 10, 100]]


class Histogram:
    def __init__(self, schema, bounds=(), threshold=0.001):
        self.schema, self.bounds, self.threshold = schema, list(bounds), 0.0 if schema == CUSTOM else threshold
        self.count, self.sum, self.zeros, self.positive, self.negative = 0, 0.0, 0, {}, {}

    def observe(self, value):
        self.count += 1
        self.sum += value
        if self.schema == CUSTOM:
            place = next((at for at, bound in enumerate(self.bounds) if value <= bound), len(self.bounds))
            self.positive[place] = self.positive.get(place, 0) + 1
        elif abs(value) <= self.threshold:
            self.zeros += 1
        else:
            side = self.positive if value > 0 else self.negative
            place = math.ceil(math.log2(abs(value)) * 2**self.schema)
            side[place] = side.get(place, 0) + 1

    def coarser(self, schema):
        other = Histogram(schema, threshold=self.threshold)
        other.count, other.sum, other.zeros = self.count, self.sum, self.zeros
        for own, its in ((self.positive, other.positive), (self.negative, other.negative)):
            for place, count in own.items():
                place = ((place - 1) >> (self.schema - schema)) + 1
                its[place] = its.get(place, 0) + count
        return other


def zigzag(number):
    return varint(number << 1 ^ number >> 63)


def double(number, value):
    return varint(number << 3 | 1) + struct.pack("<d", value)


def encoded(time, one, kind, factor=1.0):
    """A `Histogram` of remote write: whole counts, or doubles that are `factor` times as much."""
    if one is None:
        count = double(2, 0.0) if kind in ("float", "gauge") else b""
        return count + double(3, STALE_SUM) + varint(15 << 3) + varint(time)
    is_float = kind == "float" or kind == "gauge"
    out = double(2, one.count * factor) if is_float else varint(1 << 3) + varint(one.count)
    out += double(3, one.sum * factor) + varint(4 << 3) + zigzag(one.schema)
    if one.threshold:
        out += double(5, one.threshold)
    out += double(7, one.zeros * factor) if is_float else varint(6 << 3) + varint(one.zeros)
    for spans, deltas, counts, side in ((8, 9, 10, one.negative), (11, 12, 13, one.positive)):
        places, runs, end = sorted(side), [], 0
        for place in places:
            if runs and place == end:
                runs[-1][1] += 1
            else:
                runs.append([place - end, 1])
            end = place + 1
        for offset, length in runs:
            out += field(spans, varint(1 << 3) + zigzag(offset) + varint(2 << 3) + varint(length))
        if places and is_float:
            out += field(counts, b"".join(struct.pack("<d", side[place] * factor) for place in places))
        elif places:
            values = [side[place] for place in places]
            out += field(deltas, b"".join(zigzag(now - before) for before, now in zip([0, *values], values)))
    if kind == "gauge":
        out += varint(14 << 3) + varint(3)
    out += varint(15 << 3) + varint(time)
    if one.schema == CUSTOM:
        out += field(16, b"".join(struct.pack("<d", bound) for bound in one.bounds))
    return out


class Native:
    """A series; samples are (milliseconds, bytes, whether they are a histogram)."""

    def __init__(self, labels):
        self.labels, self.samples = dict(labels), []


def histograms(chance, base, name, labels, kind):
    made = Native({"__name__": name, **labels})
    schema = CUSTOM if kind == "custom" else chance.choice([-2, 0, 1, 3, 5])
    bounds = chance.choice(BOUNDS[:1] if chance.random() < 0.7 else BOUNDS)
    threshold = chance.choice([0.001, 0.001, 0.001, 0.3])
    one, factor = Histogram(schema, bounds, threshold), chance.choice([1.0, 0.1, 2.5])
    signs, resets = chance.choice([[1], [1], [1, -1], [-1]]), chance.choice([0.0, 0.02, 0.05])
    scale = chance.choice([0.01, 1.0, 20.0])
    # Prometheus' chunks know buckets of all their histograms, empty ones too, and quantiles around zero look at that: so each
    # histogram has something beside zero.
    for time in data.times(chance, base):
        if chance.random() < resets:
            one = Histogram(one.schema, bounds, threshold)
        if kind == "whole" and one.schema > 0 and chance.random() < 0.01:
            one = one.coarser(one.schema - 1)
        if kind == "gauge":
            one = Histogram(schema, bounds, threshold)
        if one.count == 0:
            for sign in signs:
                one.observe(sign * (1 + threshold) * 2)
        for _ in range(chance.randrange(6)):
            one.observe(chance.choice(signs) * chance.lognormvariate(0, 1.5) * scale if chance.random() < 0.95 else 0.0)
        made.samples.append((time, encoded(time, one, kind, factor if kind in ("float", "gauge") else 1.0), True))
    if made.samples and chance.random() < 0.3:
        time = made.samples[-1][0] + 15_000
        made.samples.append((time, encoded(time, None, kind), True))
    return made


def world(number):
    chance, base, made = random.Random(f"native data {number}"), base_of(number), []
    kinds = {"whole_seconds": "whole", "float_seconds": "float", "custom_seconds": "custom", "gauge_bytes": "gauge"}
    for name, kind in kinds.items():
        for job in ("api", "db"):
            for instance in chance.sample(data.INSTANCES, chance.choice([1, 2, 3])):
                made.append(histograms(chance, base, name, {"job": job, "instance": instance}, kind))
    # Numbers beside them, and one series that is both.
    for job in ("api", "db"):
        for instance in data.INSTANCES:
            numbers = Series({"__name__": "weight", "job": job, "instance": instance})
            for time, value in data.gauge(chance, base):
                numbers.add(time, value)
            made.append(plain(numbers))
        mixed = histograms(chance, base, "mixed_seconds", {"job": job, "instance": "a:1"}, "whole")
        numbers = 0.0
        for at, (time, _, is_histogram) in enumerate(mixed.samples):
            numbers += chance.random()
            if at // 20 % 2 and is_histogram:
                mixed.samples[at] = (time, struct.pack("<d", numbers), False)
        made.append(mixed)
    # Classic buckets whose name a native one has as well.
    made += [plain(one) for one in data.histogram(chance, "both_seconds", {"job": "api", "instance": "a:1"}, base)]
    made.append(histograms(chance, base, "both_seconds", {"job": "api", "instance": "a:1"}, "whole"))
    return [one for one in made if one.samples]


def plain(series):
    made = Native(series.labels)
    made.samples = [(time, value, False) for time, value in series.samples]
    return made


def requests(series, base):
    """Bodies of remote write, oldest first."""
    last = max(one.samples[-1][0] for one in series)
    start = base * 1000
    while start <= last:
        end, body = start + data.SLICE_SECONDS * 1000, bytearray()
        for one in series:
            some = sorted({time: (time, value, native) for time, value, native in one.samples if start <= time < end}.values())
            labels = b"".join(field(1, field(1, name.encode()) + field(2, value.encode())) for name, value in sorted(one.labels.items()))
            # Prometheus keeps a request's numbers before its histograms: what changes comes in requests of its own.
            runs = [list(run) for _, run in itertools.groupby(some, key=lambda sample: sample[2])]
            for run in runs:
                samples = [field(4, value) if native else field(2, b"\x09" + value + b"\x10" + varint(time)) for time, value, native in run]
                message = field(1, labels + b"".join(samples))
                if len(runs) == 1:
                    body += message
                else:
                    yield snappy(message)
        if body:
            yield snappy(bytes(body))
        start = end


NAMES = ["whole_seconds", "whole_seconds", "float_seconds", "custom_seconds", "gauge_bytes", "mixed_seconds", "both_seconds"]
RANGES = ["1m", "2m", "5m", "5m", "20m", "1h"]
OVER_TIME = ["rate", "rate", "increase", "irate", "delta", "idelta", "sum_over_time", "avg_over_time", "count_over_time", "last_over_time",
             "present_over_time", "resets", "min_over_time", "max_over_time", "stddev_over_time", "deriv",
             "ts_of_last_over_time"]
AGGREGATIONS = ["sum", "sum", "avg", "count", "group", "min", "max", "stddev", "stdvar"]
OF_HISTOGRAMS = ["histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev", "histogram_stdvar"]
OF_NUMBERS = ["abs", "ceil", "sqrt", "sgn", "exp", "hour", "-", "sort"]


class Queries:
    """Random queries over such worlds."""

    def __init__(self, chance):
        self.chance = chance

    def selector(self):
        name, chance = self.chance.choice(NAMES), self.chance
        matchers = chance.choice(["", "", '{job="api"}', '{instance=~"a.*|d"}', '{job!="db",instance="a:1"}'])
        shift = chance.choice(["", "", "", "", " offset 5m", " offset -1m"])
        return name, matchers, shift

    def series(self, depth):
        """Something with histograms in it, mostly."""
        chance = self.chance
        name, matchers, shift = self.selector()
        kind = chance.random()
        if depth <= 0 or kind < 0.2:
            return f"{name}{matchers}{shift}"
        if kind < 0.55:
            function = chance.choice(OVER_TIME)
            if chance.random() < 0.15:
                return f"{function}(({self.series(depth - 1)})[{chance.choice(['5m:1m', '20m:90s'])}])"
            return f"{function}({name}{matchers}[{chance.choice(RANGES)}]{shift})"
        if kind < 0.75:
            by = chance.choice(["", " by (job)", " by (instance)", " without (instance)", " by (job, instance)"])
            return f"{chance.choice(AGGREGATIONS)}{by} ({self.series(depth - 1)})"
        if kind < 0.95:
            return self.binary(depth)
        return chance.choice([f'label_replace({self.series(depth - 1)}, "x", "$1", "job", "(.*)")', f"limit_ratio(0.5, {self.series(depth - 1)})", f"absent({self.series(depth - 1)})"])

    def binary(self, depth):
        chance, operator = self.chance, self.chance.choice(["+", "+", "-", "-", "*", "/", "==", "!=", "and", "or", "unless", ">", "^", "%", "== bool", "< bool"])
        number = chance.choice(["2", "0.5", "0"])
        if operator not in ("and", "or", "unless") and chance.random() < 0.4:
            parts = [f"({self.series(depth - 1)})", number]
            if chance.random() < 0.4:
                parts.reverse()
            return f"{parts[0]} {operator} {parts[1]}"
        matching = chance.choice(["", "", " ignoring (x)", " on (job, instance)"])
        other = "weight" if chance.random() < 0.3 else f"({self.series(depth - 1)})"
        return f"({self.series(depth - 1)}) {operator}{matching} {other}"

    def query(self):
        chance = self.chance
        inner = self.series(3)
        kind = chance.random()
        if kind < 0.3:
            return f"histogram_quantile({chance.choice(['0.5', '0.9', '0.99', '0', '1', '0.1', 'NaN', '1.5'])}, {inner})"
        if kind < 0.4:
            lower, upper = chance.choice([("0", "1"), ("-Inf", "0.5"), ("0.2", "+Inf"), ("-1", "1"), ("0.3", "0.4"), ("1", "0"), ("NaN", "1")])
            return f"histogram_fraction({lower}, {upper}, {inner})"
        if kind < 0.6:
            return f"{chance.choice(OF_HISTOGRAMS)}({inner})"
        if kind < 0.66:
            function = chance.choice(OF_NUMBERS)
            return f"-({inner})" if function == "-" else f"{function}({inner})"
        if kind < 0.7:
            return f'count_values("v", {inner})'
        return inner
