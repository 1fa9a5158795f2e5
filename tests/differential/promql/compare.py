"""Whether two answers of the Prometheus API say the same: numbers within 1e-9, order where it is defined."""

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
    a, b = number(a), number(b)
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b or (math.isfinite(a) and math.isfinite(b) and abs(a - b) <= TOLERANCE * max(abs(a), abs(b)))


def key(metric):
    return tuple(sorted(metric.items()))


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
    if len(theirs) != len(b["result"]):
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
    if a["resultType"] == "matrix" and [key(one["metric"]) for one in a["result"]] != [key(one["metric"]) for one in b["result"]]:
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
        return {key(one["metric"]): {one["value"][0]: one["value"][1]} for one in data["result"]}
    return {key(one["metric"]): dict((time, value) for time, value in one["values"]) for one in data["result"]}


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
