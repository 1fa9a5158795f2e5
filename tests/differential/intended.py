"""The differences that are meant: each has a name, the sentence of which stands in intended.md, and a predicate."""

import urllib.parse

from compare import Answer, difference, unlike, without_clock


def gnocchi_fails(step, theirs, ours):
    """Gnocchi stops with an exception; Orzo answers."""
    return theirs.status in (0, 500, 502) and 200 <= ours.status < 500


def details_keep_order(step, theirs, ours):
    """With details, Gnocchi loses the order that was asked for; the rows are the same."""
    asked = any(key == "details" for key, _ in step.parameters)
    if not asked or theirs.status != 200 or ours.status != 200 or not isinstance(theirs.body, list) or not isinstance(ours.body, list):
        return False
    rows = [sorted(without_clock(answer.body), key=lambda row: str(row.get("id")) if isinstance(row, dict) else "") for answer in (theirs, ours)]
    return unlike(*rows, step.tolerance, 0.0) is None


def link_without_body(step, theirs, ours):
    """Gnocchi's link to the next page repeats the keys of the JSON body as parameters."""
    if "link" not in theirs.headers or "link" not in ours.headers or not isinstance(step.body, dict):
        return False
    address, _, rest = theirs.headers["link"].strip("<").partition(">")
    path, _, query = address.partition("?")
    kept = [(key, value) for key, value in urllib.parse.parse_qsl(query, keep_blank_values=True) if key not in step.body]
    link = f"<{path}?{urllib.parse.urlencode(kept)}>{rest}"
    return difference(step, Answer(theirs.status, dict(theirs.headers, link=link), theirs.text, theirs.body), ours) is None


def history_knows_attributes(step, theirs, ours):
    """Gnocchi cannot search a history by an attribute of the type."""
    return theirs.status == 400 and ours.status in (200, 404) and "sqlalchemy_base.ResourceHistory" in theirs.text


def history_loses_no_resource(step, theirs, ours):
    """Of several resources in one group with use_history, Gnocchi keeps one, and adds only values that are neighbours."""
    groups = {value for key, value in step.parameters if key == "groupby"}
    return ("use_history", "true") in step.parameters and not groups & {"id", "original_resource_id"} and theirs.status == ours.status == 200


def description(answer, key):
    value = answer.body.get("description") if isinstance(answer.body, dict) else None
    return value.get(key) if isinstance(value, dict) else value


def unknown_resources_first(step, theirs, ours):
    """Of two reasons to refuse a batch, the one that a client can act upon."""
    return (theirs.status == ours.status == 400 and description(ours, "cause") == "Unknown resources"
            and str(description(theirs, "cause")).startswith("No archive policy name specified"))


def reaggregation_refused_at_once(step, theirs, ours):
    """A method that cannot aggregate again is refused before the points are looked at; Gnocchi fails with an exception
    when it comes to use it, and says something else when it does not come to that."""
    return "/v1/aggregation/" in step.path and ours.status == 400 and description(ours, "detail") == "reaggregation"


def rates_resampled_once(step, theirs, ours):
    """Gnocchi makes rates of the rates when it resamples a `rate:` method; calendar spans fail with an exception."""
    asked = dict(step.parameters)
    return "resample" in asked and str(asked.get("aggregation", "")).startswith("rate:") and ours.status in (200, theirs.status)


def aggregation_named(step, theirs, ours):
    """Of a method that the policy lacks, Gnocchi says that the metric does not exist when it finds no file of it."""
    return ("/v1/search/metric" in step.path and theirs.status == ours.status == 400
            and description(theirs, "cause") == "Metric does not exist" and description(ours, "cause") == "Aggregation does not exist")


def groups_checked_together(step, theirs, ours):
    """Of several groups with different errors, Gnocchi names that of the first group."""
    return any(key == "groupby" for key, _ in step.parameters) and theirs.status in (400, 404) and ours.status in (400, 404) \
        and step.kind != "mistake"


def found_by_its_string(step, theirs, ours):
    """A string id means another resource to each creator; Orzo then finds the newest of that string that may be seen."""
    return step.path.startswith("/v1/resource/") and theirs.status == 404 and ours.status == 200 and step.user == "somebody-else"


def lifespan_by_its_name(step, theirs, ours):
    """An end before the start: Orzo says what is wrong, whatever else is; Gnocchi names a Python date, or another fault."""
    return theirs.status == ours.status == 400 and description(ours, "") == "Start timestamp cannot be after end timestamp"


INTENDED = {
    "found-by-its-string": found_by_its_string,
    "lifespan-by-its-name": lifespan_by_its_name,
    "groups-checked-together": groups_checked_together,
    "rates-resampled-once": rates_resampled_once,
    "aggregation-named": aggregation_named,
    "unknown-resources-first": unknown_resources_first,
    "reaggregation-refused-at-once": reaggregation_refused_at_once,
    "gnocchi-fails": gnocchi_fails,
    "details-keep-order": details_keep_order,
    "link-without-body": link_without_body,
    "history-knows-attributes": history_knows_attributes,
    "history-loses-no-resource": history_loses_no_resource,
}


def intended(step, theirs, ours):
    """The name of the intended difference that this is, or None."""
    for name, applies in INTENDED.items():
        if applies(step, theirs, ours):
            return name
    return None
