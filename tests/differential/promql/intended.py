"""Differences from Prometheus that are meant. Each has its row in intended.md."""

import math
import re

from compare import by_time, number, same, table

# Digits that a running mean of numbers around 1e9 keeps.
VARIANCE_TOLERANCE = 1e-6
# Digits that are left when the slope of an inverse function has multiplied the last one.
STEEP_TOLERANCE = 1e-6
STEEP = ("acos", "asin", "acosh", "atanh", "tan")
AGGREGATIONS_OF_A_NUMBER = ("quantile", "topk", "bottomk", "limitk", "limit_ratio")


# Digits that are the same in everything, and numbers of which a rest has few of them.
DIGITS = 1e-9
LARGE = 1e6
# Of a fraction's sum of parts of buckets.
FRACTION_TOLERANCE = 1e-12
# How many of a range's times are looked at one by one.
TIMES_LOOKED_AT = 8
# What looks for counters that began anew.
COUNTS_UP = ("rate", "increase", "irate", "resets")
# Reasons why histograms have no sum.
MIXTURE = "mix of histograms with exponential and custom|histograms with incompatible custom|mix of histograms and floats"
# What adds histograms with zero buckets of different widths.
ADDS_HISTOGRAMS = ("sum", "avg", "sum_over_time", "avg_over_time", "rate", "increase", "delta", "irate", "idelta")


def only_second_adds_up(first, second):
    """Whether histograms of the first answer hold more or less in their buckets than they count where the second's do not;
    counts and sums are the same. (A zero bucket with less than nothing is not shown, so not each may add up.)"""
    if first[0] != 200 or second[0] != 200 or first[1]["data"]["resultType"] not in ("vector", "matrix"):
        return False
    a, b = table(first[1]["data"]), table(second[1]["data"])
    pairs = [(points[time], b.get(labels, {}).get(time)) for labels, points in a.items() for time in points]
    differs = [(x, y) for x, y in pairs if y is None or not same(x, y)]
    if not all(isinstance(x, dict) and isinstance(y, dict) for x, y in differs):
        return False
    is_like = all(same(x["count"], y["count"]) and same(x["sum"], y["sum"]) for x, y in differs)
    return is_like and any(not is_full(x) and is_full(y) for x, y in differs)


def is_full(one):
    """Whether a histogram's buckets hold what it counts; one that overflowed has no such sum."""
    counts = [number(bucket[3]) for bucket in one.get("buckets", [])]
    if not all(map(math.isfinite, [*counts, number(one["count"])])):
        return True
    return abs(sum(counts) - number(one["count"])) <= 1e-9 * max(1.0, sum(map(abs, counts)))


def intended(question, first, second, ask):
    """The name of the intended difference that explains two answers, or None. `ask` gets both answers to a part."""
    statuses = (first[0], second[0])
    if statuses == (400, 200) and re.search(r"(?<!@)(?<!@ )\b(start|end)\(\)", question.text):
        return "start-and-end-are-functions"
    for part in calls(question.text, "timestamp"):
        if re.search(r"@.*\boffset\b|\boffset\b.*@", part) and lacks_only_points(*ask(question.with_text(part))):
            return "timestamp-without-offset"
    if statuses == (200, 200) and re.search(r"/ (?:bool )?-?0\)", question.text) and "histogram_fraction" in question.text:
        return "fraction-of-nothing"
    if statuses == (422, 200) and "runtime error" in first[1].get("error", ""):
        return "fails-by-itself"
    if statuses == (422, 200) and first[1].get("error") == "unexpected number of samples" and question.text.startswith("("):
        bare = ask(question.with_text(question.text[1:-1]))
        if [one[0] for one in bare] == [200, 200] and table(bare[0][1]["data"]) == table(second[1]["data"]):
            return "a-fixed-range-in-parentheses"
    if statuses != (200, 200):
        return None
    if first[1]["data"] == second[1]["data"]:
        return of_notes_only(question, first[1], second[1])
    for name in COUNTS_UP:
        for part in calls(question.text, name):
            if misses_a_reset(question.with_text(part), ask):
                return "a-reset-behind-the-last-bucket"
    for part in calls(question.text, "avg"):
        if overflowed(*ask(question.with_text(part))):
            return "beyond-the-largest-number"
    for name in ADDS_HISTOGRAMS:
        for part in calls(question.text, name):
            if only_second_adds_up(*ask(question.with_text(part))):
                return "buckets-that-add-up"
    if re.search(r"\) (\+|-) ", question.text) and only_second_adds_up(first, second):
        return "buckets-that-add-up"
    for name in ("min", "max"):
        for part in calls(question.text, name):
            if differ_in_a_zeros_sign(*ask(question.with_text(part))):
                return "zeros-of-both-signs"
    if re.search(r"\\x[89a-fA-F]|\\[23]\d\d", question.text) and first[1]["data"]["resultType"] == "string":
        return "bytes-in-texts"
    if "sort_by_label" in question.text and misses_a_sorted_label(question.text, first[1]["data"]):
        return "sorted-without-label"
    for part in calls(question.text, "histogram_fraction"):
        # In a subquery it is asked at other times.
        if only_nan_in_first(*ask(question.with_text(part))) or only_nan_in_first(*ask(question.before(part))):
            return "first-bucket-begins-at-zero"
        if nearly(*ask(question.with_text(part)), FRACTION_TOLERANCE, 0.0):
            return "last-digit-of-a-function"
    if re.search(r"\bstd(dev|var)\b", question.text):
        for name in ("stddev", "stdvar"):
            for part in calls(question.text, name):
                if nearly(*ask(question.with_text(part)), VARIANCE_TOLERANCE):
                    return "digits-of-the-variance"
    for name in STEEP:
        for part in calls(question.text, name):
            if of_a_function(part, name) and nearly(*ask(question.with_text(part)), STEEP_TOLERANCE):
                return "steep-functions"
    if re.search(r"\w\(.*\) % |% \w+\s*\(", question.text) and nearly(first, second, STEEP_TOLERANCE):
        return "steep-functions"
    for part in left_of_rests(question.text):
        if differ_where_large(first, second, *ask(question.with_text(part))):
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
    for name in ("absent", "absent_over_time"):
        for part in calls(question.text, name):
            if re.match(r"absent\w*\s*\(\s*\+", part) and same_but_for_labels(*ask(question.with_text(part))):
                return "a-plus-is-nothing"
    if question.step:
        for name in AGGREGATIONS_OF_A_NUMBER:
            for part in calls(question.text, name):
                if fixed_but_for_its_number(part) and same_points(*ask(question.at_its_start(part))):
                    return "a-moving-parameter"
                if "@" in part.partition(",")[0] and same_one_by_one(question.with_text(part), ask):
                    return "a-fixed-parameter"
    for part in calls(question.text, "count_values"):
        if counted_nearly(*ask(question.with_text(part))):
            return "last-digit-of-a-function"
    return None


def left_of_rests(text):
    """What stands in parentheses before a `%`."""
    for found in re.finditer(r"\) % ", text):
        depth = 0
        for place in range(found.start(), -1, -1):
            depth += {")": 1, "(": -1}.get(text[place], 0)
            if depth == 0:
                yield text[place + 1:found.start()]
                break


def differ_where_large(first, second, theirs, ours):
    """Whether two rests differ only at times at which the numbers divided, the same but for their last digits, are large."""
    if [one[0] for one in (theirs, ours)] != [200, 200] or theirs[1]["data"]["resultType"] != ours[1]["data"]["resultType"]:
        return False
    a, b = table(first[1]["data"]), table(second[1]["data"])
    if theirs[1]["data"]["resultType"] == "scalar":
        values = [number(one[1]["data"]["result"][1]) for one in (theirs, ours)]
        large = {time for times in a.values() for time in times if abs(values[0]) > LARGE} if same_number(*values, DIGITS) else set()
    else:
        divided = [points(one) for one in (theirs, ours)]
        if None in divided or divided[0].keys() != divided[1].keys():
            return False
        if not all(same_number(divided[0][key], divided[1][key], DIGITS) for key in divided[0]):
            return False
        large = {key[1] for key, value in divided[0].items() if abs(value) > LARGE}
    if a.keys() != b.keys() or any(a[labels].keys() != b[labels].keys() for labels in a):
        return False
    return all(time in large for labels in a for time in a[labels] if not same(a[labels][time], b[labels][time]))


def of_notes_only(question, first, second):
    """The difference of two answers that only differ in what they note."""
    if only_digits_of_notes(first, second):
        return "last-digit-of-a-function"
    if any(fixed_but_for_its_number(part) for name in AGGREGATIONS_OF_A_NUMBER for part in calls(question.text, name)):
        if not (kinds_of_notes(first) ^ kinds_of_notes(second)):
            return "a-moving-parameter"
    if more_notes_in_second(first, second):
        if "@" in question.text:
            return "notes-of-what-is-fixed"
        if {"warnings", "infos"} & second.keys() and re.search(r"\) ?(?:%|\*|/|\+|-|\^|[<>=!]=?|atan2) ", question.text):
            return "one-note-of-an-operator"
    reasons = [{note for note in kinds_of_notes(one) if re.search(MIXTURE, note)} for one in (first, second)]
    if all(reasons) and not ((kinds_of_notes(first) - reasons[0]) ^ (kinds_of_notes(second) - reasons[1])):
        return "one-reason-of-two"
    return None


def kinds_of_notes(answer):
    """What an answer notes, without numbers and places."""
    notes = [note for kind in ("warnings", "infos") for note in answer.get(kind) or []]
    return {re.sub(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?|[-+]Inf|NaN", "#", re.sub(r" \(\d+:\d+\)$", "", note)) for note in notes}


def misses_a_reset(question, ask):
    """Whether two answers to a function of counters differ only where some histogram lost nothing but its last buckets."""
    first, second = ask(question)
    if first[0] != 200 or second[0] != 200:
        return False
    differs = times_that_differ(first, second)
    inner = argument(question.text)
    return bool(differs) and all(has_lost_its_end(ask(question.at(inner, float(time)))[0]) for time in differs[:TIMES_LOOKED_AT])


def has_lost_its_end(answer):
    """Whether, from one histogram to the next, everything that became less lies beyond the last bucket that is left."""
    if answer[0] != 200 or answer[1]["data"]["resultType"] != "matrix":
        return False
    for one in answer[1]["data"]["result"]:
        histograms = [histogram for _, histogram in one.get("histograms", [])]
        if any(lost_its_end(before, now) for before, now in zip(histograms, histograms[1:])):
            return True
    return False


def lost_its_end(before, now):
    sides = [{}, {}]
    for side, one in zip(sides, (before, now)):
        for inclusion, lower, upper, count in one.get("buckets", []):
            # The zero bucket is of neither side.
            if number(lower) * number(upper) >= 0:
                side.setdefault(number(upper) > 0, {})[f"{max(abs(number(lower)), abs(number(upper))):.9g}"] = number(count)
    lost_any = False
    for sign in (False, True):
        own, its = sides[1].get(sign, {}), sides[0].get(sign, {})
        end = max((float(bound) for bound in own), default=0.0)
        lost = [bound for bound, count in its.items() if own.get(bound, 0.0) < count]
        if any(float(bound) <= end for bound in lost):
            return False
        lost_any = lost_any or bool(lost)
    return lost_any and number(now["count"]) >= number(before["count"])


def times_that_differ(first, second):
    """The times at which two answers are not the same."""
    if first[1]["data"]["resultType"] not in ("vector", "matrix"):
        return []
    a, b = table(first[1]["data"]), table(second[1]["data"])
    times = set()
    for labels in a.keys() | b.keys():
        left, right = a.get(labels, {}), b.get(labels, {})
        times |= {time for time in left.keys() | right.keys() if time not in left or time not in right or not same(left[time], right[time])}
    return sorted(times)


def overflowed(first, second):
    """Whether both answers differ in histograms that are larger than any number."""
    if first[0] != 200 or second[0] != 200:
        return False
    values = [value for one in (first, second) for points in table(one[1]["data"]).values() for value in points.values()]
    return any(isinstance(value, dict) and not math.isfinite(number(value["count"])) for value in values)


def same_but_for_labels(first, second):
    a, b = points(first), points(second)
    return a is not None and b is not None and sorted((time, value) for (_, time), value in a.items()) == sorted((time, value) for (_, time), value in b.items())


def same_one_by_one(question, ask):
    """Whether what differs over a range is the same when each of its times is asked alone."""
    first, second = ask(question)
    if first[0] != 200 or second[0] != 200:
        return False
    differs = times_that_differ(first, second)
    return bool(differs) and all(same_points(*ask(question.at(question.text, float(time)))) for time in differs[:TIMES_LOOKED_AT])


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
    is_fixed = re.search(r"@ *(\d|start|end)|^\s*vector\s*\(\s*-?[\d.]", operand)
    return bool(moves) and "@" not in number and is_fixed is not None


def points(answer):
    if answer[0] != 200 or answer[1]["data"]["resultType"] not in ("vector", "matrix"):
        return None
    found = {(labels, time): value for labels, values in table(answer[1]["data"]).items() for time, value in values.items()}
    return None if any(isinstance(value, dict) for value in found.values()) else {at: number(value) for at, value in found.items()}


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


def nearly(first, second, tolerance, relative=None):
    """Whether numbers differ, and within a tolerance: absolute, and relative to their size (as much, if it is not given)."""
    relative = tolerance if relative is None else relative
    a, b = points(first), points(second)
    if a is None or b is None or a.keys() != b.keys() or all(same_number(a[key], b[key], 1e-9) for key in a):
        return False
    # A variance of what hardly varies is lost in the digits of the numbers; what is left is nothing but their rounding.
    return all(same_number(a[key], b[key], relative) or abs(a[key] - b[key]) < tolerance for key in a)


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
