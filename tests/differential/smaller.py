"""Makes a request that shows a difference as small as it can, by asking again for simpler ones."""

ASKED_MAX = 60


def operations_below(tree):
    """Simpler operations: each part that is one itself, and each with one of its parts made simpler."""
    if not isinstance(tree, list):
        return
    for part in tree[1:]:
        if isinstance(part, list) and part and isinstance(part[0], str) and not part[0].startswith("{"):
            yield part
    if tree and tree[0] == "metric" and len(tree) > 2 and isinstance(tree[1], list):
        for number in range(1, len(tree)):
            yield tree[:number] + tree[number + 1:]
    for number, part in enumerate(tree):
        if isinstance(part, list):
            for smaller in operations_below(part):
                yield tree[:number] + [smaller] + tree[number + 1:]


def searches_below(tree):
    if not isinstance(tree, dict) or len(tree) != 1:
        return
    (operator, below), = tree.items()
    if operator == "not":
        yield below
        for smaller in searches_below(below):
            yield {"not": smaller}
    elif operator in ("and", "or", "∧", "∨") and isinstance(below, list):
        yield from below
        for number in range(len(below)):
            if len(below) > 1:
                yield {operator: below[:number] + below[number + 1:]}
            for smaller in searches_below(below[number]):
                yield {operator: below[:number] + [smaller] + below[number + 1:]}


def candidates(step):
    # Under `generic` the outermost condition keeps the worlds apart.
    generic = "/generic" in step.path or isinstance(step.body, dict) and step.body.get("resource_type") == "generic"
    for number in range(len(step.parameters)):
        if step.parameters[number][0] in ("creator", "filter", "groupby", "use_history", "granularity" if any(key == "use_history" for key, _ in step.parameters) else ""):
            continue
        yield step.copy(parameters=step.parameters[:number] + step.parameters[number + 1:])
    if isinstance(step.body, dict) and "operations" in step.body:
        for smaller in operations_below(step.body["operations"]):
            yield step.copy(body=dict(step.body, operations=smaller))
        if step.body.get("search") and not generic:
            yield step.copy(body=dict(step.body, search={}))
            for smaller in searches_below(step.body["search"]):
                yield step.copy(body=dict(step.body, search=smaller))
    elif isinstance(step.body, dict) and not generic:
        for smaller in searches_below(step.body):
            yield step.copy(body=smaller)
    elif isinstance(step.body, list) and step.path == "/v1/aggregation/metric":
        for number in range(len(step.body)):
            yield step.copy(body=step.body[:number] + step.body[number + 1:])


def smallest(step, differs):
    """`differs(step)` asks both servers; the result differs in the same way as `step` does."""
    asked, changed = 0, True
    if step.changes or step.kind.startswith(("mistake", "story")):
        return step
    while changed and asked < ASKED_MAX:
        changed = False
        for candidate in candidates(step):
            asked += 1
            if asked > ASKED_MAX:
                break
            if differs(candidate):
                step, changed = candidate, True
                break
    return step
