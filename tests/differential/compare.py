"""Whether two answers say the same. Knows no server; `difference` returns a sentence, or None."""

import dataclasses
import json
import math
import re


@dataclasses.dataclass
class Answer:
    """Status 0 is no answer at all."""

    status: int
    headers: dict
    text: str
    body: object = None

    def show(self, most=300):
        return f"{self.status} {self.text[:most]}{'…' if len(self.text) > most else ''}"


# Times that a server takes from its own clock.
CLOCK_KEYS = {"revision_start", "revision_end"}
# Sets, which Gnocchi writes in any order.
SET_KEYS = {"aggregation_methods", "references"}
# The words of the libraries that Gnocchi checks its input with (see intended.md).
LIBRARY_CAUSES = {"Invalid input", "Unable to decode body"}


def ordered(values):
    return sorted(values, key=lambda value: json.dumps(value, sort_keys=True))


def same_number(first, second, tolerance, scale):
    if math.isnan(first) or math.isnan(second):
        return math.isnan(first) and math.isnan(second)
    if math.isinf(first) or math.isinf(second):
        return first == second
    # Sums of numbers that cancel are as exact as their largest part. Where time plays a part, so does it in small ones.
    return abs(first - second) <= max(tolerance * max(abs(first), abs(second)), tolerance * (1e-3 if tolerance < 1e-6 else 1) * scale)


def largest(value):
    if isinstance(value, bool):
        return 0.0
    if isinstance(value, (int, float)):
        return abs(value) if math.isfinite(value) else 0.0
    if isinstance(value, dict):
        value = value.values()
    return max(map(largest, value), default=0.0) if isinstance(value, (list, type({}.values()))) else 0.0


def unlike(first, second, tolerance, scale, at=""):
    """The first place where two bodies differ, as a sentence."""
    if isinstance(first, bool) or isinstance(second, bool):
        return None if first is second else f"{at}: {first!r} and {second!r}"
    if isinstance(first, (int, float)) and isinstance(second, (int, float)):
        return None if same_number(first, second, tolerance, scale) else f"{at}: {first!r} and {second!r}"
    if type(first) is not type(second):
        return f"{at}: {brief(first)} and {brief(second)}"
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return f"{at}: keys {sorted(first)} and {sorted(second)}"
        for key in first:
            one, other = first[key], second[key]
            if key in CLOCK_KEYS and (one is None) == (other is None):
                continue
            if key in SET_KEYS and isinstance(one, list) and isinstance(other, list):
                one, other = ordered(without_clock(one)), ordered(without_clock(other))
            found = unlike(one, other, tolerance, scale, f"{at}.{key}")
            if found:
                return found
        return None
    if isinstance(first, list):
        if len(first) != len(second):
            return f"{at}: {len(first)} and {len(second)} elements"
        for number, (one, other) in enumerate(zip(first, second)):
            found = unlike(one, other, tolerance, scale, f"{at}[{number}]")
            if found:
                return found
        return None
    return None if first == second else f"{at}: {brief(first)} and {brief(second)}"


def without_clock(value):
    """For sorting: without what differs by chance."""
    if isinstance(value, dict):
        return {key: None if key in CLOCK_KEYS else ordered(element) if key in SET_KEYS and isinstance(element, list) else without_clock(element)
                for key, element in value.items()}
    return [without_clock(element) for element in value] if isinstance(value, list) else value


def brief(value):
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 160 else text[:160] + "…"


def difference(step, theirs, ours):
    """`theirs` is the real Gnocchi's answer. Ids and base addresses are already blanked."""
    if theirs.status != ours.status:
        return f"status {theirs.status} and {ours.status}"
    if theirs.status >= 400:
        return error_difference(step, theirs.body, ours.body)
    first, second = theirs.body, ours.body
    if step.unordered and isinstance(first, list) and isinstance(second, list):
        first, second = ordered(without_clock(first)), ordered(without_clock(second))
    found = unlike(first, second, step.tolerance, max(largest(first), largest(second)))
    if found:
        return "body" + found
    for header in ("location", "link"):
        if without_revision(theirs.headers.get(header)) != without_revision(ours.headers.get(header)):
            return f"header {header}: {theirs.headers.get(header)} and {ours.headers.get(header)}"
    for header in ("etag", "last-modified", "content-type"):
        if (header in theirs.headers) != (header in ours.headers):
            return f"header {header}: {theirs.headers.get(header)} and {ours.headers.get(header)}"
    return None


def without_order(description):
    """Of several metrics that a request is about, the one that an error names is the first by an id that each server
    makes up; and so is the order in which all are named."""
    if isinstance(description, list):
        return ordered([without_order(element) for element in description])
    if isinstance(description, dict):
        return {key: without_order(element) for key, element in description.items()}
    return re.sub(r"\{m:[^}]*\}", "{m}", description) if isinstance(description, str) else description


def without_objects(description):
    """A reason in which Gnocchi prints Python objects, up to there."""
    reason = description.get("reason")
    opening = "Can't compute timeseries with different granularity"
    return dict(description, reason=opening) if isinstance(reason, str) and reason.startswith(opening) else description


def without_revision(link):
    """Gnocchi counts revisions over all resources of a server, Orzo within each resource; a marker names one either way."""
    return re.sub(r"%40\d+", "%40N", link) if link else link


def error_difference(step, theirs, ours):
    if not isinstance(theirs, dict) or not isinstance(ours, dict):
        return None if type(theirs) is type(ours) else f"error body: {brief(theirs)} and {brief(ours)}"
    first, second = theirs.get("description"), ours.get("description")
    if isinstance(first, dict) and isinstance(second, dict) and first.get("cause") == second.get("cause") and first.get("cause") in LIBRARY_CAUSES:
        return None
    if isinstance(first, dict) and isinstance(second, dict):
        first, second = without_objects(first), without_objects(second)
        if first.get("cause") == "Invalid operations":
            # The detail is the parser's own words.
            first, second = [{key: value for key, value in one.items() if key != "detail"} for one in (first, second)]
    if isinstance(first, str) and isinstance(second, str):
        # What follows are a parser's own words.
        for opening in ("Invalid filter: ", "Invalid input: "):
            if first.startswith(opening) and second.startswith(opening):
                return None
        first, second = [re.sub(r"\s+", " ", re.sub(r"^(Resource type \S+ has no )\S+( attribute)$", r"\1?\2", text)) for text in (first, second)]
    if "aggregat" in step.path:
        first, second = without_order(first), without_order(second)
    found = unlike({"code": theirs.get("code"), "title": theirs.get("title"), "description": first},
                   {"code": ours.get("code"), "title": ours.get("title"), "description": second}, 1e-9, 0.0)
    return "error" + found if found else None
