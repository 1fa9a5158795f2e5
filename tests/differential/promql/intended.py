"""Differences from Prometheus that are meant. Each has its row in intended.md."""

import math
import re

from compare import by_time, number, table

# Digits that a running mean of numbers around 1e9 keeps.
VARIANCE_TOLERANCE = 1e-6
# Digits that are left when the slope of an inverse function has multiplied the last one.
STEEP_TOLERANCE = 1e-6
STEEP = ("acos", "asin", "acosh", "atanh", "tan")
AGGREGATIONS_OF_A_NUMBER = ("quantile", "topk", "bottomk", "limitk", "limit_ratio")


def intended(question, first, second, ask):
    """The name of the intended difference that explains two answers, or None. `ask` gets both answers to a part."""
    statuses = (first[0], second[0])
    if statuses == (400, 200) and re.search(r"(?<!@)(?<!@ )\b(start|end)\(\)", question.text):
        return "start-and-end-are-functions"
    for part in calls(question.text, "timestamp"):
        if re.search(r"@.*\boffset\b|\boffset\b.*@", part) and lacks_only_points(*ask(question.with_text(part))):
            return "timestamp-without-offset"
    if statuses != (200, 200):
        return None
    for name in ("min", "max"):
        for part in calls(question.text, name):
            if differ_in_a_zeros_sign(*ask(question.with_text(part))):
                return "zeros-of-both-signs"
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
    for name in STEEP:
        for part in calls(question.text, name):
            if of_a_function(part, name) and nearly(*ask(question.with_text(part)), STEEP_TOLERANCE):
                return "steep-functions"
    for name in ("sin", "cos", "tan"):
        for part in calls(question.text, name):
            if far_out(*ask(question.with_text(part)), *ask(question.with_text(argument(part)))):
                return "steep-functions"
    for part in calls(question.text, "timestamp"):
        if re.match(r"timestamp\s*\(\s*\+", part):
            theirs, ours = ask(question.with_text(part)), ask(question.with_text(f"timestamp(1 * ({argument(part)}))"))
            if same_points(theirs[0], ours[1]):
                return "a-plus-is-nothing"
    if only_digits_of_notes(first[1], second[1]):
        return "last-digit-of-a-function"
    if "@" in question.text and first[1]["data"] == second[1]["data"] and more_notes_in_second(first[1], second[1]):
        return "notes-of-what-is-fixed"
    if question.step:
        for name in AGGREGATIONS_OF_A_NUMBER:
            for part in calls(question.text, name):
                if fixed_but_for_its_number(part) and same_points(*ask(question.at_its_start(part))):
                    return "a-moving-parameter"
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


def argument(call):
    return call[call.index("(") + 1 : call.rindex(")")]


def far_out(first, second, first_inner, second_inner):
    """Whether answers differ only where the angles, equal to 1e-9, are so large that this is no small part of a turn."""
    a, b, inner = points(first), points(second), points(first_inner)
    if a is None or b is None or inner is None or a.keys() != b.keys() or not same_points(first_inner, second_inner):
        return False
    unnamed = {(tuple(label for label in labels if label[0] != "__name__"), time): value for (labels, time), value in inner.items()}
    differs = [key for key in a if not same_number(a[key], b[key], 1e-9)]
    return bool(differs) and all(abs(unnamed.get((tuple(key[0]), key[1]), 0.0)) > 1e5 for key in differs)


def only_digits_of_notes(first, second):
    """The same answers, and notes that tell of the same numbers but for the last digits."""
    if first["data"] != second["data"]:
        return False
    differs = False
    for kind in ("warnings", "infos"):
        left, right = (sorted(re.sub(r" \(\d+:\d+\)$", "", note) for note in one.get(kind) or []) for one in (first, second))
        if len(left) != len(right):
            return False
        for one, other in zip(left, right):
            if one == other:
                continue
            number_of = r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?"
            if re.sub(number_of, "#", one) != re.sub(number_of, "#", other):
                return False
            pairs = zip(*(re.finditer(number_of, note) for note in (one, other)))
            if not all(same_number(float(x.group()), float(y.group()), 1e-9) for x, y in pairs):
                return False
            differs = True
    return differs


def more_notes_in_second(first, second):
    bare = lambda one, kind: {re.sub(r" \(\d+:\d+\)$", "", note) for note in one.get(kind) or []}
    return all(bare(first, kind) <= bare(second, kind) for kind in ("warnings", "infos"))


def of_a_function(call, name):
    """Whether a function is called with what another one has computed: that one's last digit may differ."""
    return re.match(rf"{name}\s*\(\s*(a?(cos|sin|tan)h?|exp|ln|log2|log10|sqrt|deg|rad)\b", call) is not None


def fixed_but_for_its_number(call):
    """Whether an aggregation's number changes with time, and the selector that it aggregates does not."""
    number, _, operand = call.partition(",")
    moves = re.search(r"\b(time|scalar|minute|hour|day_of_\w+|days_in_month|month|year)\s*\(", number)
    return bool(moves) and "@" not in number and re.search(r"@ *(\d|start|end)", operand) is not None


def points(answer):
    if answer[0] != 200 or answer[1]["data"]["resultType"] not in ("vector", "matrix"):
        return None
    return {(labels, time): number(value) for labels, values in table(answer[1]["data"]).items() for time, value in values.items()}


def same_points(first, second):
    a, b = points(first), points(second)
    return a is not None and b is not None and a.keys() == b.keys() and all(same_number(a[key], b[key], 1e-9) for key in a)


def lacks_only_points(first, second):
    """Whether the first lacks points of the second, and all that it has are the same."""
    a, b = points(first), points(second)
    if a is None or b is None or not a.keys() < b.keys():
        return False
    return all(same_number(a[key], b[key], 1e-9) for key in a)


def differ_in_a_zeros_sign(first, second):
    """Whether two answers are the same but for zeros, one of them with a minus."""
    if not same_points(first, second):
        return False
    a, b = table(first[1]["data"]), table(second[1]["data"])
    signs = [{a[labels][time], b[labels][time]} for labels in a for time in a[labels]]
    return {"0", "-0"} in signs


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
