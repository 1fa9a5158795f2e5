"""The differences that are meant: each has a name, the sentence of which stands in intended.md, and a predicate.

A predicate must refuse everything that its sentence does not say: what else the answers hold is compared. Some need to
know more than the two answers: `ask(step)` sends a reading request to both servers and returns their two answers.
`intended_test.py` shows each predicate a difference that is meant and differences that are not.
"""

import collections
import json
import re
import urllib.parse

from compare import Answer, brief, difference, unlike, without_clock
from step import Step

# What `aggregate` and `reaggregation` take.
REAGGREGATIONS = {"mean", "median", "std", "min", "max", "sum", "var", "count"}
# Why Orzo refuses what Gnocchi fails at: causes of its refusals, or how they begin.
REASONS = (
    "Argument value error", "Invalid input", "Invalid operations", "Operations is invalid", "Metrics cannot be aggregated",
    "Metrics with unknown aggregation", "Unable to decode body", "Invalid filter", "Invalid value", "Invalid pagination", "Metric [",
)


def own(key, step):
    return [value for name, value in step.parameters if name == key]


def description(answer, key):
    value = answer.body.get("description") if isinstance(answer.body, dict) else None
    return value.get(key) if isinstance(value, dict) else value


def gnocchi_fails(step, theirs, ours, ask):
    """Gnocchi stops with an exception; Orzo answers, or says what is wrong. That it is an exception is looked up in
    Gnocchi's log at the end of the run."""
    if theirs.status not in (0, 500, 502) or theirs.text == "no answer in time":
        return False
    return ours.status in (200, 202, 304) or ours.status in (400, 404) and str(description(ours, "cause")).startswith(REASONS)


def details_keep_order(step, theirs, ours, ask):
    """With details, Gnocchi loses the order that was asked for; the rows are the same, and Orzo's in the order that both
    have without details."""
    asked = [value for value in own("details", step) if value.lower() in ("true", "1")]
    if not asked or theirs.status != 200 or ours.status != 200 or not isinstance(theirs.body, list) or not isinstance(ours.body, list):
        return False
    def names(rows):
        return [row.get("id") for row in rows if isinstance(row, dict)]

    # Revisions of one resource differ in times that each server makes up: they are told apart by all else.
    rows = [sorted(without_clock(answer.body), key=lambda row: str(sorted(row.items(), key=str)) if isinstance(row, dict) else "")
            for answer in (theirs, ours)]
    if unlike(*rows, step.tolerance, 0.0) is not None:
        return False
    # A link to the next page names the last row of this one, in whichever order.
    if ("link" in theirs.headers) != ("link" in ours.headers) or "link" in ours.headers and f"marker={names(ours.body)[-1]}" not in ours.headers["link"]:
        return False
    if names(theirs.body) == names(ours.body) and "link" not in ours.headers and not own("history", step):
        return False
    plain = ask(step.copy(parameters=[(key, value) for key, value in step.parameters if key not in ("details", "attrs")]))
    if any(answer.status != 200 for answer in plain):
        return False
    return names(plain[0].body) == names(plain[1].body) == names(ours.body)


def pages_lose_nothing(step, theirs, ours, ask):
    """After a marker, Gnocchi loses or repeats rows where a sort key has no value: it compares the marker's row without
    those keys. Orzo's page must be what follows the marker in the whole list."""
    marker, limit = own("marker", step), own("limit", step)
    keys = [sort.partition(":")[0] for sort in own("sort", step)]
    if not marker or not keys or theirs.status != 200 or ours.status != 200:
        return False

    def whole(step):
        parameters = [(key, value) for key, value in step.parameters if key not in ("marker", "limit", "details", "attrs")]
        lists = [answer.body for answer in ask(step.copy(parameters=parameters)) if answer.status == 200]
        rows = [[row.get("id") for row in rows] for rows in lists]
        return lists[1] if len(lists) == 2 and rows[0] == rows[1] else None

    found = whole(step)
    # The marker need not be found by the search itself.
    every = whole(Step(step.kind, "POST", step.path.replace("/v1/resource/", "/v1/search/resource/"), step.parameters if not own("filter", step)
                       else [(key, value) for key, value in step.parameters if key != "filter"],
                       {"like": {"original_resource_id": f"t{step.user[1:]}-%"}}, user=step.user)) if "/resource/" in step.path else found
    if found is None or every is None:
        return False
    order = [row["id"] for row in every]
    if marker[0] not in order or not any(row.get(key) is None for row in every for key in keys):
        return False
    after = set(order[order.index(marker[0]) + 1:])
    expected = [row["id"] for row in found if row["id"] in after][: int(limit[0]) if limit else None]
    shown = own("details", step) or own("attrs", step)
    known = {row["id"]: row for row in found}
    return [row.get("id") for row in ours.body] == expected and (shown or unlike([known[id] for id in expected], ours.body, 1e-9, 0.0) is None)


def link_without_body(step, theirs, ours, ask):
    """Gnocchi's link to the next page repeats the keys of the JSON body as parameters."""
    if "link" not in theirs.headers or "link" not in ours.headers or not isinstance(step.body, dict):
        return False
    address, _, rest = theirs.headers["link"].strip("<").partition(">")
    path, _, query = address.partition("?")
    kept = [(key, value) for key, value in urllib.parse.parse_qsl(query, keep_blank_values=True) if key not in step.body]
    link = f"<{path}?{urllib.parse.urlencode(kept)}>{rest}"
    return difference(step, Answer(theirs.status, dict(theirs.headers, link=link), theirs.text, theirs.body), ours) is None


def history_loses_no_resource(step, theirs, ours, ask):
    """Of several resources in one group with use_history, Gnocchi keeps one, and adds only values that are neighbours.
    Groups of one resource must be the same; of more, Orzo's must be the sums of what each resource has alone."""
    groups = set(own("groupby", step))
    if ("use_history", "true") not in step.parameters or not groups or groups & {"id", "original_resource_id"} \
            or theirs.status not in (200, 404) or ours.status not in (200, 400):
        return False
    alone = ask(step.copy(parameters=step.parameters + [("groupby", "original_resource_id")]))
    if difference(step, *alone) is not None or alone[1].status != ours.status:
        return False
    # What is wrong with a resource that Gnocchi lost is told by both, in the same words, when it stands alone.
    if ours.status == 400 and (alone[1].body != ours.body or theirs.status == 404 and theirs.body.get("description") != nothing_found(step)):
        return False
    found = ask(step.copy(method="POST", path=f"/v1/search/resource/{step.body['resource_type']}", parameters=[("history", "true")],
                          body=step.body["search"]))[1]
    if found.status != 200:
        return False

    def key_of(row):
        return tuple(sorted((name, str(row.get(name))) for name in groups))

    members = collections.defaultdict(set)
    for row in found.body:
        members[key_of(row)].add(row["id"])
    if ours.status == 400:
        return any(len(resources) > 1 for resources in members.values())
    if theirs.status == 404:
        if theirs.body.get("description") != nothing_found(step):
            return False
        theirs = Answer(200, theirs.headers, theirs.text, [])
    sums = collections.defaultdict(lambda: collections.defaultdict(float))
    for row in alone[1].body:
        for time, granularity, value in aggregated(row):
            sums[key_of(row["group"])][(granularity, time)] += value
    first, second = [{key_of(row["group"]): aggregated(row) for row in answer.body} for answer in (theirs, ours)]
    if len(second) != len(ours.body) or second.keys() != sums.keys() or not first.keys() <= second.keys() \
            or [key for key in second if key in first] != list(first):
        return False
    for key, rows in second.items():
        largest = max((abs(value) for _, _, value in rows), default=0.0)
        if len(members[key]) <= 1 and unlike(first.get(key), rows, step.tolerance, largest) is not None:
            return False
        summed = [[time, granularity, value] for (granularity, time), value in sorted(sums[key].items(), key=lambda item: (-item[0][0], item[0][1]))]
        if unlike(summed, rows, step.tolerance, largest) is not None:
            return False
    return any(len(resources) > 1 for resources in members.values())


def as_list(operations):
    """Operations in their textual form, `(ne (metric [cd]* mean) (metric cpu mean))`, as the list that they mean."""
    if not isinstance(operations, str):
        return operations
    stack = [[]]
    for token in re.findall(r'"[^"]*"|[()]|[^\s()]+', operations):
        if token == "(":
            stack.append([])
        elif token == ")":
            if len(stack) < 2:
                return operations
            done = stack.pop()
            stack[-1].append(done)
        elif re.fullmatch(r"-?\d+(\.\d+)?", token):
            stack[-1].append(json.loads(token))
        else:
            stack[-1].append(token.strip('"'))
    return stack[0][0] if len(stack) == 1 and len(stack[0]) == 1 else operations


def one_of_several(step, theirs, ours, ask):
    """An operation on a wildcard that finds several metrics, with an operand that wants one: each server takes the first,
    and Gnocchi's order of a resource's metrics is that of its database's pages. Each answer must be the one that both
    give for one of these metrics by its name."""
    if step.path != "/v1/aggregates" or "search" not in (step.body or {}) or (theirs.status, ours.status) != (200, 200):
        return False
    step = step.copy(body=dict(step.body, operations=as_list(step.body["operations"])))
    if not isinstance(step.body["operations"], list):
        return False
    # A list of one metric is that metric.
    text = re.sub(r'\["metric", (\["[^"]*", "[^"]*"\])\]', lambda found: '["metric", ' + found[1][1:], json.dumps(step.body["operations"]))
    patterns = sorted(set(re.findall(r'\["metric", "([^"]*[*?\[][^"]*)", "([^"]*)"\]', text)))
    if not 1 <= len(patterns) <= 2:
        return False
    # Texts in which each pattern has become the name of one metric that it finds.
    texts, is_choice = [text], False
    for pattern, method in patterns:
        listed = ask(step.copy(parameters=[], body=dict(step.body, operations=["metric", pattern, method])))[1]
        if listed.status != 200:
            return False
        names = {name for one in listed.body["measures"].values() for name in one}
        is_choice = is_choice or len(names) > 1
        texts = [text.replace(json.dumps(["metric", pattern, method]), json.dumps(["metric", name, method])) for text in texts for name in names]
    alone = [ask(step.copy(body=dict(step.body, operations=json.loads(text)))) for text in texts]
    alone = [both for both in alone if both[1].status == 200 and difference(step, *both) is None]
    # By its name a metric has only its own times; a wildcard lists those of all that it finds. Each group chooses by itself.
    for part in parts_of(theirs) | parts_of(ours):
        left, right = only_part(theirs, part), only_part(ours, part)
        if difference(step, left, right) is None:
            continue
        of_part = [(only_part(one, part), only_part(other, part)) for one, other in alone]
        if not any(difference(step, with_values(left), with_values(one)) is None for one, _ in of_part):
            return False
        if not any(difference(step, with_values(other), with_values(right)) is None for _, other in of_part):
            return False
    return is_choice


def parts_of(answer):
    """The groups of an answer, as texts; of one without groups the whole."""
    return {json.dumps(one.get("group"), sort_keys=True) for one in answer.body} if isinstance(answer.body, list) else {None}


def only_part(answer, part):
    """One group of an answer."""
    if part is None or not isinstance(answer.body, list):
        return answer
    kept = [one for one in answer.body if json.dumps(one.get("group"), sort_keys=True) == part]
    return Answer(answer.status, answer.headers, answer.text, kept)


def with_values(answer):
    """Without measures that are no numbers."""
    def kept(value):
        if isinstance(value, dict):
            return {key: kept(element) for key, element in value.items()}
        if isinstance(value, list):
            return [kept(row) for row in value if not (isinstance(row, list) and len(row) == 3 and row[2] != row[2])]
        return value

    return Answer(answer.status, answer.headers, answer.text, kept(answer.body))


def nothing_found(step):
    """What Gnocchi says if no resource has measures."""
    def names(tree):
        if isinstance(tree, list) and tree and tree[0] == "metric":
            yield tree[1]
        elif isinstance(tree, list):
            for part in tree:
                yield from names(part)

    operations = step.body["operations"]
    found = sorted(set(names(operations) if isinstance(operations, list) else re.findall(r"\(metric (\S+) ", operations)))
    return f"Metric {found} does not exist"


def aggregated(row):
    return row["measures"]["measures"]["aggregated"]


def unknown_resources_first(step, theirs, ours, ask):
    """Of two reasons to refuse a batch, the one that a client can act upon."""
    return (theirs.status == ours.status == 400 and description(ours, "cause") == "Unknown resources" and own("create_metrics", step)
            and {row["original_resource_id"] for row in description(ours, "detail")} <= set(step.body)
            and str(description(theirs, "cause")).startswith("No archive policy name specified"))


def reaggregation_refused_at_once(step, theirs, ours, ask):
    """A method that cannot aggregate again is refused before the points are looked at; Gnocchi fails with an exception
    when it comes to use it, and says something else when it does not come to that."""
    name = (own("reaggregation", step) or own("aggregation", step) or ["mean"])[0]
    return ("/v1/aggregation/" in step.path and name.removeprefix("rate:") not in REAGGREGATIONS and theirs.status in (0, 200, 400, 404, 500)
            and ours.status == 400 and description(ours, "detail") == "reaggregation" and f"'{name}'" in description(ours, "reason"))


def aggregation_named(step, theirs, ours, ask):
    """Of a method that the policy lacks, Gnocchi says that the metric does not exist when it finds no file of it."""
    detail = description(ours, "detail")
    return ("/v1/search/metric" in step.path and theirs.status == ours.status == 400 and description(theirs, "cause") == "Metric does not exist"
            and description(ours, "cause") == "Aggregation does not exist" and isinstance(detail, dict)
            and detail.get("metric") in own("metric_id", step) and detail.get("aggregation_method") in own("aggregation", step))


def open_names_read_everything(step, theirs, ours, ask):
    """Where no password is checked, Orzo shows by id what lists show anyway; Gnocchi forbids it, or does not find a string
    id of another's."""
    text = step.path.rsplit("/", 1)[-1]
    if step.method != "GET" or step.user != "somebody-else" or theirs.status not in (403, 404) or ours.status != 200 or not isinstance(ours.body, dict) \
            or theirs.status == 404 and ours.body.get("original_resource_id") != text or not ours.body.get("creator"):
        return False
    maker = ask(step.copy(user=ours.body["creator"]))
    return difference(step, *maker) is None and difference(step, maker[1], ours) is None


def lifespan_by_its_name(step, theirs, ours, ask):
    """An end before the start: Orzo says what is wrong, whatever else is; Gnocchi names a Python date, or another fault."""
    return (step.method in ("POST", "PATCH") and step.path.startswith("/v1/resource/") and isinstance(step.body, dict) and "ended_at" in step.body
            and theirs.status == ours.status == 400 and description(ours, "") == "Start timestamp cannot be after end timestamp")


def answered_once(step, theirs, ours, ask):
    """A metric that two wildcards find: Gnocchi lists its measures twice, granularity by granularity."""
    operations = step.body.get("operations") if isinstance(step.body, dict) else None
    if step.path != "/v1/aggregates" or "search" not in step.body or not "metric" in str(operations) or theirs.status != 200 or ours.status != 200:
        return False
    return difference(step, Answer(200, theirs.headers, theirs.text, each_once(theirs.body)), ours) is None


def each_once(value):
    """Lists of measures without those that stand there already."""
    if isinstance(value, dict):
        return {key: each_once(element) for key, element in value.items()}
    if isinstance(value, list) and value and all(isinstance(row, list) and len(row) == 3 for row in value):
        return list({repr(row): row for row in value}.values())
    return [each_once(element) for element in value] if isinstance(value, list) else value


def no_measures_no_values(step, theirs, ours, ask):
    """Of a metric without measures Gnocchi says that it does not exist when values are searched; elsewhere it answers an
    empty list, as Orzo does here."""
    if step.path != "/v1/search/metric" or theirs.status != 400 or ours.status != 200 or description(theirs, "cause") != "Metric does not exist":
        return False
    metrics = own("metric_id", step)
    read = [ask(Step("measures", "GET", f"/v1/metric/{metric}/measures", [("aggregation", name) for name in own("aggregation", step)], user=step.user))
            for metric in metrics]
    return (set(ours.body) == set(metrics) and all(one.status == other.status == 200 and (other.body != [] or one.body == []) for one, other in read)
            and any(one.body == [] for one, _ in read) and all(ours.body[metric] == [] for metric, (_, other) in zip(metrics, read) if other.body == []))


def older_than_kept(step, theirs, ours, ask):
    """Up to a `stop` in an earlier block than the newest, Gnocchi counts the timespan back from the newest point that it
    has read, so it also answers points that it does not answer when it is asked for all."""
    if not own("stop", step) or theirs.status != 200 or ours.status != 200:
        return False
    whole = ask(step.copy(parameters=[(key, value) for key, value in step.parameters if key not in ("start", "stop")]))
    if any(answer.status != 200 for answer in whole) or difference(step, *whole) is not None:
        return False
    return difference(step, Answer(200, theirs.headers, theirs.text, not_older(theirs.body, whole[0].body)), ours) is None


def not_older(value, whole):
    """Lists of measures without those that are older than all of their granularity in the same place of `whole`."""
    if isinstance(value, dict) and isinstance(whole, dict):
        return {key: not_older(element, whole.get(key)) for key, element in value.items()}
    if not isinstance(value, list) or not isinstance(whole, list):
        return value
    if all(isinstance(row, list) and len(row) == 3 for row in value + whole):
        first = {}
        for time, granularity, _ in whole:
            first.setdefault(granularity, time)
        return [row for row in value if row[1] not in first or row[0] >= first[row[1]]]
    if len(value) != len(whole):
        return value
    return [not_older(element, other) for element, other in zip(value, whole)]


COMPARISONS = {"=", "==", "eq", "<", "lt", ">", "gt", "<=", "≤", "le", ">=", "≥", "ge", "!=", "≠", "ne"}


def as_numbers(operations):
    """The same operations with each comparison times 1.0: of truth values, numbers. A text stays a text."""
    if not isinstance(operations, str):
        return multiplied(operations)
    tokens = iter(operations.replace("(", " ( ").replace(")", " ) ").split())

    def tree():
        parts = []
        for token in tokens:
            if token == ")":
                break
            parts.append(tree() if token == "(" else token)
        return parts

    def text(part):
        return f"({' '.join(map(text, part))})" if isinstance(part, list) else str(part)

    return " ".join(map(text, multiplied(tree())))


def multiplied(tree):
    if not isinstance(tree, list):
        return tree
    inner = [multiplied(part) for part in tree]
    return ["*", inner, 1.0] if tree and isinstance(tree[0], str) and tree[0] in COMPARISONS else inner


# Beyond this, the last digit of a number is more than a millionth of a millionth of a turn.
LARGE_ANGLE = 1e4


def turns_of_large_numbers(step, theirs, ours, ask):
    """The sine, cosine or tangent of a large number, or its remainder by a small one, depends on digits that a double
    lacks. Where the number itself is not large, the values must be the same; the numbers must be, everywhere."""
    operations = step.body.get("operations") if isinstance(step.body, dict) else None
    text = json.dumps(operations)
    if step.path != "/v1/aggregates" or (theirs.status, ours.status) != (200, 200) or len(re.findall(r'["(](?:sin|cos|tan|mod|%)[" ]', text)) != 1:
        return False
    # Of `mod` the divisor must be a number; it is added instead.
    divisor = re.search(r'^(?:\["(?:mod|%)", .*\], |"\((?:mod|%) .*\) )(-?[0-9.]+)(?:\]|\)")$', text)
    turned, count = re.subn(r'^(\["|"\()(?:sin|cos|tan)', r"\1abs", text) if not divisor else re.subn(r'^(\["|"\()(?:mod|%)', r"\1+", text)
    large = LARGE_ANGLE + (2 * abs(float(divisor[1])) if divisor else 0.0)
    numbers = ask(step.copy(body=dict(step.body, operations=json.loads(turned)))) if count else []
    if not count or any(answer.status != 200 for answer in numbers) or difference(step, *numbers) is not None:
        return False

    def merged(one, other, number):
        """One's values, the other's where the number is large."""
        if isinstance(one, dict) and isinstance(other, dict) and isinstance(number, dict) and one.keys() == other.keys() == number.keys():
            return {key: merged(one[key], other[key], number[key]) for key in one}
        if isinstance(one, list) and isinstance(other, list) and isinstance(number, list) and len(one) == len(other) == len(number):
            if len(one) == 3 and one[:2] == other[:2] == number[:2] and all(isinstance(row[2], float) for row in (one, other, number)):
                return other if abs(number[2]) > large else one
            return [merged(*each) for each in zip(one, other, number)]
        return one

    return difference(step, Answer(200, theirs.headers, theirs.text, merged(theirs.body, ours.body, numbers[0].body)), ours) is None


def truths_are_numbers(step, theirs, ours, ask):
    """Gnocchi computes with the results of a comparison as with truth values, Orzo as with 1 and 0. If they are made
    numbers, both must answer as Orzo did."""
    operations = step.body.get("operations") if isinstance(step.body, dict) else None
    if step.path != "/v1/aggregates" or not isinstance(operations, (list, str)) or theirs.status != 200 or ours.status != 200 \
            or as_numbers(operations) == operations:
        return False
    numbers = step.copy(body=dict(step.body, operations=as_numbers(operations)))
    answers = ask(numbers)
    return all(answer.status == 200 and difference(numbers, answer, ours) is None for answer in answers)


INTENDED = {
    "open-names-read-everything": open_names_read_everything,
    "lifespan-by-its-name": lifespan_by_its_name,
    "aggregation-named": aggregation_named,
    "unknown-resources-first": unknown_resources_first,
    "reaggregation-refused-at-once": reaggregation_refused_at_once,
    "gnocchi-fails": gnocchi_fails,
    "details-keep-order": details_keep_order,
    "link-without-body": link_without_body,
    "pages-lose-nothing": pages_lose_nothing,
    "answered-once": answered_once,
    "no-measures-no-values": no_measures_no_values,
    "older-than-kept": older_than_kept,
    "truths-are-numbers": truths_are_numbers,
    "turns-of-large-numbers": turns_of_large_numbers,
    "history-loses-no-resource": history_loses_no_resource,
    "one-of-several": one_of_several,
}


def intended(step, theirs, ours, ask):
    """The name of the intended difference that this is, or None."""
    for name, applies in INTENDED.items():
        if applies(step, theirs, ours, ask):
            return name
    return None


def reason(ours):
    """How Orzo answered what Gnocchi failed at, for the report."""
    if ours.status < 400:
        return str(ours.status)
    cause = str(description(ours, "cause"))
    return f"{ours.status} {next((known for known in REASONS if cause.startswith(known)), brief(cause))}"
