"""Whether two answers of the Prometheus API say the same: numbers within 1e-9, order where it is defined."""

import json
import math
import re

TOLERANCE = 1e-9
# Which series these choose among equals is chance; see below.
CHOOSES = re.compile(r"^\s*(topk|bottomk)\b")
LIMITS = re.compile(r"^\s*limitk\b")
SORTS = re.compile(r"^\s*sort(_desc)?\b")
SORTS_BY_LABEL = re.compile(r"^\s*sort_by_label(_desc)?\b")


def number(text):
    return float(text.replace("Inf", "inf")) if isinstance(text, str) else float(text)


def same(a, b):
    if isinstance(a, dict) or isinstance(b, dict):
        return isinstance(a, dict) and isinstance(b, dict) and same_histogram(a, b)
    a, b = number(a), number(b)
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b or (math.isfinite(a) and math.isfinite(b) and abs(a - b) <= TOLERANCE * max(abs(a), abs(b)))


def same_histogram(a, b):
    """Count, sum and buckets: which bounds they hold, bounds and counts."""
    if not same(a["count"], b["count"]) or not same(a["sum"], b["sum"]):
        return False
    a, b = a.get("buckets", []), b.get("buckets", [])
    # What is left of a difference is not exactly nothing.
    largest = max((abs(number(bucket[3])) for bucket in a + b), default=0.0)
    a, b = ([bucket for bucket in buckets if abs(number(bucket[3])) > TOLERANCE * largest] for buckets in (a, b))
    return len(a) == len(b) and all(x[0] == y[0] and all(same(v, w) for v, w in zip(x[1:], y[1:])) for x, y in zip(a, b))


def key(metric):
    return tuple(sorted((name, rounded(value)) for name, value in metric.items()))


def rounded(text):
    """What `count_values` makes of a histogram: its bounds' last digits come from a table there and are computed here."""
    if not text.startswith("{count:"):
        return text
    return re.sub(r"-?\d[\d.]*(?:e[-+]\d+)?", lambda found: f"{float(found.group()):.9g}", text)


def show(labels):
    return "{" + ", ".join(f"{name}={value!r}" for name, value in labels) + "}"


def difference(query, first, second):
    """What differs between two answers (status, body), or None."""
    if first[0] != second[0]:
        return f"status {first[0]} and {second[0]}"
    a, b = first[1], second[1]
    if not isinstance(a, dict) or not isinstance(b, dict):
        return None if a == b else "bodies differ"
    if a.get("status") != "success":
        return None if a.get("errorType") == b.get("errorType") else f"errorType {a.get('errorType')} and {b.get('errorType')}"
    for notes in ("warnings", "infos"):
        if notes_of(a.get(notes)) != notes_of(b.get(notes)):
            return f"{notes}: {a.get(notes)} and {b.get(notes)}"
    a, b = a["data"], b["data"]
    if a["resultType"] != b["resultType"]:
        return f"resultType {a['resultType']} and {b['resultType']}"
    if a["resultType"] in ("scalar", "string"):
        (at, x), (bt, y) = a["result"], b["result"]
        if at != bt:
            return f"time {at} and {bt}"
        is_same = x == y if a["resultType"] == "string" else same(x, y)
        return None if is_same else f"{x} and {y}"
    ours, theirs = table(a), table(b)
    if len({json.dumps(one["metric"], sort_keys=True) for one in b["result"]}) != len(b["result"]):
        return "a series stands twice in the second answer"
    if LIMITS.match(query):
        return counted(ours, theirs)
    if CHOOSES.match(query):
        return chosen(ours, theirs)
    for labels in ours.keys() - theirs.keys():
        return f"{show(labels)} only in the first: {str(ours[labels])[:100]}"
    for labels in theirs.keys() - ours.keys():
        return f"{show(labels)} only in the second: {str(theirs[labels])[:100]}"
    for labels, points in ours.items():
        other = theirs[labels]
        if list(points) != list(other):
            missing, more = sorted(points.keys() - other.keys()), sorted(other.keys() - points.keys())
            return f"{show(labels)}: times differ, not in the second: {missing[:3]}, only there: {more[:3]}"
        for time, value in points.items():
            if not same(value, other[time]):
                return f"{show(labels)} at {time}: {value} and {other[time]}"
    # Series are ordered by their labels; texts that differ in their last digits may stand the other way round.
    is_rounded = any(rounded(value) != value for one in a["result"] for value in one["metric"].values())
    if a["resultType"] == "matrix" and not is_rounded and [key(one["metric"]) for one in a["result"]] != [key(one["metric"]) for one in b["result"]]:
        return "the series' order differs" if not SORTS_BY_LABEL.match(query) else None
    if a["resultType"] == "vector":
        if SORTS.match(query) and not all(same(x["value"][1], y["value"][1]) for x, y in zip(a["result"], b["result"])):
            return "the order of values differs"
        if SORTS_BY_LABEL.match(query) and [key(one["metric"]) for one in a["result"]] != [key(one["metric"]) for one in b["result"]]:
            return "the order of labels differs"
    return None


def notes_of(notes):
    """Warnings without the places in the text, which only one of the two knows, each once."""
    notes = {re.sub(r"\s*\(\d+:\d+\)$", "", note) for note in notes or []}
    # Of many each shows some.
    return "many" if any("annotations omitted" in note for note in notes) else sorted(notes)


def table(data):
    if data["resultType"] == "vector":
        points = lambda one: [one["value"]] if "value" in one else [one["histogram"]]
    else:
        points = lambda one: sorted(one.get("values", []) + one.get("histograms", []), key=lambda point: point[0])
    series = {}
    for one in data["result"]:
        values = series.setdefault(key(one["metric"]), {})
        for time, value in points(one):
            # Two texts of `count_values` may be one when they are rounded.
            values[time] = value if time not in values else str(number(values[time]) + number(value))
    return series


def by_time(table):
    times = {}
    for labels, points in table.items():
        for time, value in points.items():
            times.setdefault(time, {})[labels] = number(value)
    return times


def chosen(ours, theirs):
    """The k greatest: where the two chose different series, those must have equal values."""
    ours, theirs = by_time(ours), by_time(theirs)
    if ours.keys() != theirs.keys():
        return f"times differ: {sorted(ours.keys() ^ theirs.keys())[:3]}"
    for time, points in ours.items():
        other = theirs[time]
        for labels in points.keys() & other.keys():
            if not same(points[labels], other[labels]):
                return f"{show(labels)} at {time}: {points[labels]} and {other[labels]}"
        order = lambda value: (math.isnan(value), value)
        left = sorted((value for labels, value in points.items() if labels not in other), key=order)
        right = sorted((value for labels, value in other.items() if labels not in points), key=order)
        if len(left) != len(right) or not all(same(a, b) for a, b in zip(left, right)):
            return f"at {time} only in the first: {left[:5]}, only in the second: {right[:5]}"
    return None


def counted(ours, theirs):
    """Any k series: as many at each time."""
    ours, theirs = ({time: len(points) for time, points in by_time(one).items()} for one in (ours, theirs))
    return None if ours == theirs else f"numbers of series differ: {str(sorted(ours.items() ^ theirs.items()))[:100]}"
