"""Random reading requests about measures: of one metric, over many (`/v1/aggregates`, `/v1/aggregation`), by value."""

from series import METHODS, method, spell_time, spell_timespan
from step import Step

REAGGREGATIONS = ["mean", "median", "std", "min", "max", "sum", "var", "count"]
BINARY = ["+", "-", "*", "/", "%", "**", "add", "sub", "mul", "div", "mod", "<", ">", "<=", ">=", "==", "!=", "lt", "ge",
          "eq", "ne", "×", "÷", "≤", "≠", "max", "clip_min", "clip_max"]
UNARY = ["abs", "absolute", "neg", "negative", "cos", "sin", "tan", "floor", "ceil", "rateofchange", "rateofchangesec"]


def window(random, world):
    """Sometimes a start, sometimes a stop, near the points, in any form of time."""
    parameters = []
    for name, odds in (("start", 0.35), ("stop", 0.35)):
        if random.random() < odds:
            at = world.shape.start + random.randint(-5, 70) * world.shape.interval + random.choice([0, 0, 0, 1000000, 500000])
            parameters.append((name, spell_time(random, random.choice(["number", "plain", "zulu", "offset", "space", "text", "east", "west"]), at)))
    if not parameters and random.random() < 0.04:
        parameters.append((random.choice(["start", "stop"]), random.choice(["now", "-1 day", "-10 minutes", "1h", "2024-02", "2024-03-01", "2024-02-29T12"])))
    return parameters


def granularity(random, policy, odds=0.6):
    if random.random() > odds:
        return []
    chosen = random.choice(policy.granularities) if random.random() < 0.95 else random.choice([42, 86400, 60])
    return [("granularity", spell_timespan(random, chosen))]


def known_method(random, policy):
    return random.choice(policy.methods) if random.random() < 0.95 else random.choice(METHODS)


def resampled(random, policy, parameters):
    """With `resample`, which needs a granularity. Gnocchi reads only the blocks of 3600 buckets that start and stop lie
    in: they are asked for only where no resampled bucket lies across the end of a block."""
    calendar, width, exact = random.random() < 0.4, random.choice([60, 120, 300, 420, 3600, 7200, 86400, 604800]), random.choice(policy.granularities)
    if random.random() < 0.95:
        parameters = [(key, value) for key, value in parameters if key != "granularity"] + [("granularity", exact)]
    if calendar or dict(parameters).get("granularity") != exact or exact * 3600 % width:
        parameters = [(key, value) for key, value in parameters if key not in ("start", "stop")]
    return parameters + [("resample", random.choice(["Y", "H", "Q", "M", "W"]) if calendar else spell_timespan(random, width))]


def measures(random, world):
    metric = random.choice(world.metrics)
    parameters = window(random, world) + granularity(random, metric.policy, 0.5)
    aggregation = known_method(random, metric.policy)
    if aggregation != "mean" or random.random() < 0.3:
        parameters.append(("aggregation", aggregation))
    # Of rates Gnocchi makes rates again (see intended.md).
    if random.random() < 0.25 and not aggregation.startswith("rate:"):
        parameters = resampled(random, metric.policy, parameters)
    if random.random() < 0.05:
        parameters.append(("refresh", random.choice(["true", "False", "1", "0", "t", "no"])))
    return Step("measures", "GET", metric.path(random) + "/measures", parameters, user=world.user)


class Tree:
    """A random operation. `leaf` makes a reference to metrics that exist."""

    def __init__(self, random, leaf):
        self.random, self.leaf = random, leaf

    def make(self, depth):
        random = self.random
        if depth == 0 or random.random() < 0.15:
            return self.leaf()
        form = random.random()
        if form < 0.3:
            return ["aggregate", self.reaggregation(), self.make(depth - 1)]
        if form < 0.42:
            return ["rolling", self.reaggregation(), random.choice([1, 2, 3, 5, "2"]), self.make(depth - 1)]
        if form < 0.55:
            return ["resample", self.reaggregation(), random.choice([60, 120, 300, 420, 3600, "1 hour", "5m", 86400]), self.make(depth - 1)]
        if form < 0.82:
            operands = [self.make(depth - 1), random.choice([2, -1, 0, 0.5, "3", 10]) if random.random() < 0.6 else self.make(depth - 1)]
            if random.random() < 0.3:
                operands.reverse()
            return [random.choice(BINARY)] + operands
        if form < 0.95:
            return [random.choice(UNARY), self.make(depth - 1)]
        return ["clip", self.make(depth - 1)] + random.choice([[1, 5], [0], [-1, 1.5]])

    def reaggregation(self):
        return self.random.choice(REAGGREGATIONS) if self.random.random() < 0.9 else "rate:" + self.random.choice(REAGGREGATIONS)


def s_expression(tree):
    """The same operation as a string; None where a string cannot say it."""
    if isinstance(tree, list):
        parts = [s_expression(part) for part in tree]
        return None if None in parts else "(" + " ".join(parts) + ")"
    text = str(tree)
    return None if " " in text or "(" in text else text


def overlap(random):
    """How gaps are dealt with."""
    form = random.random()
    if form < 0.35:
        return []
    if form < 0.75:
        return [("fill", random.choice(["null", "dropna", "ffill", "bfill", "full_ffill", "full_bfill", 0, 1.5, "-2", "nan", "inf"]))]
    if form < 0.95:
        return [("needed_overlap", random.choice([0, 0, 0.0, 10, 50, 100, "100.0", 33.3]))]
    return [("fill", 0), ("needed_overlap", 50)]


def metrics_alike(random, world, count):
    """Some metrics, mostly of one policy."""
    first = random.choice(world.metrics)
    alike = [metric for metric in world.metrics if metric.policy is first.policy] if random.random() < 0.85 else world.metrics
    return [first] + random.sample(alike, min(count - 1, len(alike)))


def aggregates(random, world):
    chosen = metrics_alike(random, world, random.choice([1, 1, 2, 2, 3, 4]))
    policy = chosen[0].policy

    def leaf():
        parts = random.sample(chosen, random.randint(1, len(chosen))) if random.random() < 0.6 else [random.choice(chosen)]
        pairs = [["{m:" + metric.key + "}", known_method(random, policy)] for metric in parts]
        return ["metric"] + pairs[0] if len(pairs) == 1 and random.random() < 0.8 else ["metric"] + pairs

    tree = Tree(random, leaf).make(random.choice([0, 1, 1, 2, 2, 3]))
    operations = s_expression(tree) if random.random() < 0.2 else None
    parameters = window(random, world) + granularity(random, policy) + overlap(random)
    if random.random() < 0.1:
        parameters.append(("details", random.choice(["true", "1", "False"])))
    return Step("aggregates", "POST", "/v1/aggregates", parameters, {"operations": operations or tree}, user=world.user)


def aggregates_by_search(random, world):
    policy = random.choice(world.policies)
    names = world.metric_names

    def leaf():
        wildcards = [random.choice(names + [name[:2] + "*" for name in names] + ["*", "?pu*", "[cd]*"]) for _ in range(random.choice([1, 1, 1, 2]))]
        pairs = [[wildcard, known_method(random, policy)] for wildcard in wildcards]
        return ["metric"] + pairs[0] if len(pairs) == 1 else ["metric"] + pairs

    grouped = random.random() < 0.5
    tree = Tree(random, leaf).make(random.choice([0, 1, 1, 2]))
    if grouped and random.random() < 0.6:
        tree = ["aggregate", random.choice(REAGGREGATIONS), leaf()]
    operations = s_expression(tree) if random.random() < 0.2 else None
    type_name = world.searches.type(random)
    if random.random() < 0.3:
        search = world.searches.text_within(type_name, world.searches.text(random))
    else:
        search = world.searches.within(type_name, world.searches.tree(random, random.choice([0, 0, 1])))
    parameters = window(random, world) + granularity(random, policy, 0.8) + overlap(random)
    if grouped:
        parameters += [("groupby", attribute) for attribute in random.sample(world.searches.groupable(), random.choice([1, 1, 2, 3]))]
    if random.random() < 0.1:
        parameters.append(("details", "true"))
    if random.random() < 0.05:
        parameters.append(("use_history", "false"))
    body = {"operations": operations or tree, "resource_type": type_name, "search": search}
    return Step("aggregates by search" + (" and group" if grouped else ""), "POST", "/v1/aggregates", parameters, body, user=world.user)


def aggregates_over_history(random, world):
    """Each revision of a resource counts for the part of a bucket in which it was in force: the revisions are made now,
    a moment apart on the two servers, so the parts differ by seconds in an hour."""
    day = 86400 * 1000000
    policy = world.policies[0]
    start = world.shape.start + random.choice([0, day // 2, day])
    stop = start + random.choice([day, 2 * day, 2 * day + 3600 * 1000000])
    parameters = [("start", spell_time(random, "offset", start)), ("stop", spell_time(random, "offset", stop)), ("use_history", "true"),
                  ("granularity", random.choice(policy.granularities))]
    groups = set(random.sample(world.searches.groupable(), random.choice([0, 1, 2]))) if random.random() < 0.9 else {"project_id"}
    if random.random() < 0.9:
        groups.add(random.choice(["id", "original_resource_id"]))
    parameters += [("groupby", attribute) for attribute in sorted(groups)]
    if random.random() < 0.3:
        parameters.append(("fill", random.choice(["null", 0, "ffill"])))
    operations = ["aggregate", random.choice(REAGGREGATIONS), ["metric", random.choice(world.metric_names + ["*"]), known_method(random, policy)]]
    search = world.searches.tree(random, random.choice([0, 0, 1]), common=True) if random.random() < 0.6 else {}
    body = {"operations": operations, "resource_type": world.searches.name, "search": search}
    return Step("aggregates over history", "POST", "/v1/aggregates", parameters, body, user=world.user, tolerance=3e-3)


def aggregation(random, world):
    """The deprecated `/v1/aggregation/metric`."""
    chosen = metrics_alike(random, world, random.choice([1, 2, 2, 3]))
    policy = chosen[0].policy
    parameters = window(random, world) + granularity(random, policy) + overlap(random)
    within = known_method(random, policy)
    parameters.append(("aggregation", within))
    if random.random() < 0.7:
        parameters.append(("reaggregation", random.choice(REAGGREGATIONS)))
    if random.random() < 0.2 and not within.startswith("rate:"):
        parameters = resampled(random, policy, parameters)
    references = [metric.placeholder() for metric in dict.fromkeys(chosen)]
    if random.random() < 0.5:
        return Step("aggregation", "GET", "/v1/aggregation/metric", [("metric", name) for name in references] + parameters, user=world.user)
    return Step("aggregation", "POST", "/v1/aggregation/metric", parameters, references, user=world.user)


def aggregation_by_search(random, world):
    policy = random.choice(world.policies)
    parameters = window(random, world) + granularity(random, policy, 0.8) + overlap(random)
    parameters.append(("aggregation", known_method(random, policy)))
    if random.random() < 0.7:
        parameters.append(("reaggregation", random.choice(REAGGREGATIONS)))
    if random.random() < 0.4:
        parameters += [("groupby", attribute) for attribute in random.sample(world.searches.groupable(), 1)]
    type_name = world.searches.type(random)
    path = f"/v1/aggregation/resource/{type_name}/metric/{random.choice(world.metric_names)}"
    if random.random() < 0.3:
        text = world.searches.text_within(type_name, world.searches.text(random))
        return Step("aggregation by search", "POST", path, parameters + [("filter", text)], user=world.user)
    tree = world.searches.within(type_name, world.searches.tree(random, random.choice([0, 0, 1])))
    return Step("aggregation by search", "POST", path, parameters, tree, user=world.user)


def value_tree(random, depth):
    if depth and random.random() < 0.4:
        return {random.choice(["and", "or", "∧", "∨"]): [value_tree(random, depth - 1) for _ in range(random.randint(1, 3))]}
    comparison = random.choice(["=", "==", "eq", "<", "lt", ">", "gt", "<=", "le", "≤", ">=", "ge", "≥", "!=", "ne", "≠"])
    number = random.choice([0, 1, 2, 3, 5, 10, 42.5, 100, -1])
    if random.random() < 0.3:
        return {comparison: [{random.choice(["+", "-", "*", "/", "%", "add", "sub", "mul", "div", "mod", "×", "÷", "**", "^", "pow"]): random.choice([2, 3, 0.5])}, number]}
    return {comparison: number}


def by_value(random, world):
    metric = random.choice(world.metrics)
    parameters = [("metric_id", metric.placeholder())] + window(random, world)
    parameters.append(("aggregation", known_method(random, metric.policy)))
    alike = [other for other in world.metrics if other.policy is metric.policy and other is not metric]
    several = bool(alike) and random.random() < 0.3
    if several:
        parameters.append(("metric_id", random.choice(alike).placeholder()))
    if several or random.random() < 0.7:
        # Of several metrics Gnocchi takes the granularities of the first.
        count = random.choice([1, 1, len(metric.policy.granularities)])
        parameters += [("granularity", spell_timespan(random, chosen)) for chosen in random.sample(metric.policy.granularities, count)]
    return Step("search by value", "POST", "/v1/search/metric", parameters, value_tree(random, 2), user=world.user)
