"""Differences from Prometheus that are meant. Each has its row in intended.md."""

import math
import re

from compare import by_time, number, table

# Digits that a running mean of numbers around 1e9 keeps.
VARIANCE_TOLERANCE = 1e-6


def intended(question, first, second, ask):
    """The name of the intended difference that explains two answers, or None. `ask` gets both answers to a part."""
    statuses = (first[0], second[0])
    if statuses == (400, 200) and re.search(r"(?<!@)(?<!@ )\b(start|end)\(\)", question.text):
        return "start-and-end-are-functions"
    if statuses != (200, 200):
        return None
    if re.search(r"\\x[89a-fA-F]|\\[23]\d\d", question.text) and first[1]["data"]["resultType"] == "string":
        return "bytes-in-texts"
    if "sort_by_label" in question.text and misses_a_sorted_label(question.text, first[1]["data"]):
        return "sorted-without-label"
    for part in calls(question.text, "histogram_fraction"):
        if only_nan_in_first(*ask(question.with_text(part))):
            return "first-bucket-begins-at-zero"
    if re.search(r"\bstd(dev|var)\b", question.text):
        for name in ("stddev", "stdvar"):
            for part in calls(question.text, name):
                if nearly(*ask(question.with_text(part)), VARIANCE_TOLERANCE):
                    return "digits-of-the-variance"
    for part in calls(question.text, "count_values"):
        if counted_nearly(*ask(question.with_text(part))):
            return "last-digit-of-a-function"
    return None


def calls(text, name):
    """The calls of a function or aggregation in a text, whole, with a grouping behind."""
    for match in re.finditer(rf"\b{name}\b( (by|without) \([^()]*\))?\s*\(", text):
        depth, quote, at = 1, None, match.end()
        while at < len(text) and depth:
            c = text[at]
            if quote:
                quote = None if c == quote and text[at - 1] != "\\" else quote
            elif c in "\"'`":
                quote = c
            else:
                depth += (c == "(") - (c == ")")
            at += 1
        behind = re.match(r"\s*(by|without) \([^()]*\)", text[at:])
        yield text[match.start() : at + (behind.end() if behind else 0)]


def points(answer):
    if answer[0] != 200 or answer[1]["data"]["resultType"] not in ("vector", "matrix"):
        return None
    return {(labels, time): number(value) for labels, values in table(answer[1]["data"]).items() for time, value in values.items()}


def only_nan_in_first(first, second):
    """The same, but where the first has NaN the second may have a number, and somewhere has."""
    a, b = points(first), points(second)
    if a is None or b is None or a.keys() != b.keys():
        return False
    differs = [key for key in a if not same_number(a[key], b[key], 1e-9)]
    return bool(differs) and all(math.isnan(a[key]) for key in differs)


def nearly(first, second, tolerance):
    a, b = points(first), points(second)
    if a is None or b is None or a.keys() != b.keys() or all(same_number(a[key], b[key], 1e-9) for key in a):
        return False
    # A variance of what hardly varies is lost in the digits of the numbers; what is left is nothing but their rounding.
    return all(same_number(a[key], b[key], tolerance) or abs(a[key] - b[key]) < tolerance for key in a)


def same_number(a, b, tolerance):
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b or (math.isfinite(a) and math.isfinite(b) and abs(a - b) <= tolerance * max(abs(a), abs(b)))


def counted_nearly(first, second):
    """`count_values` of numbers whose last digits differ: the same counts under texts that are nearly equal."""
    if first[0] != 200 or second[0] != 200 or first[1]["data"]["resultType"] not in ("vector", "matrix"):
        return False
    a, b = by_time(table(first[1]["data"])), by_time(table(second[1]["data"]))
    if a == b or a.keys() != b.keys():
        return False
    for time in a:
        if len(a[time]) != len(b[time]):
            return False
        left, right = (sorted((rounded(labels), count) for labels, count in one[time].items()) for one in (a, b))
        for (one, count), (other, others) in zip(left, right):
            if count != others or not all(x == y or (isinstance(x, float) and isinstance(y, float) and same_number(x, y, 1e-9)) for x, y in zip(one, other)):
                return False
    return True


def rounded(labels):
    out = []
    for name, value in labels:
        try:
            out += [name, float(value)]
        except ValueError:
            out += [name, value]
    return tuple(out)


def misses_a_sorted_label(text, data):
    names = [name for arguments in re.findall(r"sort_by_label(?:_desc)?\(.*?((?:,\s*\"[^\"]*\"\s*)+)\)", text) for name in re.findall(r'"([^"]*)"', arguments)]
    return any(name not in one["metric"] for one in data.get("result", []) if isinstance(one, dict) for name in names)


def intended_request(line, first, second):
    """The same for the requests besides queries."""
    return None
