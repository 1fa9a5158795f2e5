"""Requests that both servers must refuse, with the same status and the same words where clients match on them."""

from step import Step


def mistake(random, world):
    metric = random.choice(world.metrics)
    resource = random.choice(world.resources)
    kind, user = world.searches.name, world.user
    one = ["metric", metric.placeholder(), random.choice(metric.policy.methods)]
    absent = "00000000-1111-4222-8333-444444444444"

    def ask(method, path, body=None, raw=None, parameters=(), as_user=user, headers=None):
        return Step("mistake", method, path, list(parameters), body, raw, as_user, headers or {}, changes=False)

    makers = [
        lambda: ask("GET", f"/v1/metric/{absent}"),
        lambda: ask("GET", "/v1/metric/not-a-uuid/measures"),
        lambda: ask("GET", metric.path(random) + "/measures", parameters=[(random.choice(["start", "stop"]), random.choice(["yesterday-ish", "2024-13-01", "24:00:00", "-", "20200101T000000"]))]),
        lambda: ask("GET", metric.path(random) + "/measures", parameters=[("granularity", random.choice(["0", "-5", "1month", "PT1M", "abc"]))]),
        lambda: ask("GET", metric.path(random) + "/measures", parameters=[("aggregation", random.choice(["moving-average", "mode", "101pct", "rate:", ""]))]),
        lambda: ask("GET", metric.path(random) + "/measures", parameters=[("resample", random.choice(["60", "abc", "-1"]))]),
        lambda: ask("GET", metric.path(random) + "/measures", parameters=[("refresh", "maybe")]),
        lambda: ask("POST", f"/v1/metric/{absent}/measures", [{"timestamp": 1709078400, "value": 1}]),
        lambda: ask("POST", metric.path(random) + "/measures", random.choice([[{}], [1], [{"value": 1}], [{"timestamp": "x", "value": 1}], [{"timestamp": 1709078400, "value": "a"}], [{"timestamp": 1709078400}], "x", [{"timestamp": "1900-01-01", "value": 1}], [{"timestamp": 1709078400, "value": 1}, {"timestamp": "2024-01-01", "value": 1}]])),
        lambda: ask("POST", metric.path(random) + "/measures", raw=random.choice(["{", "", "nul", "[1,]"])),
        lambda: ask("POST", metric.path(random) + "/measures", raw="[]", headers={"Content-Type": "text/plain"}),
        lambda: ask("POST", "/v1/batch/metrics/measures", random.choice([{absent: []}, {absent: [{"timestamp": 1, "value": 1}]}, {"x": []}, [], {metric.placeholder(): 1}])),
        lambda: ask("POST", "/v1/batch/resources/metrics/measures", {resource.id: {"absent": [{"timestamp": 1709078400, "value": 1}]}}),
        lambda: ask("POST", "/v1/batch/resources/metrics/measures", {"absent-" + resource.id: {"cpu": [{"timestamp": 1709078400, "value": 1}]}}, parameters=[("create_metrics", "true")]),
        lambda: ask("POST", "/v1/aggregates", random.choice([{}, {"operations": []}, {"operations": ["metric"]}, {"operations": ["mean", one]}, {"operations": ["aggregate", "mode", one]}, {"operations": ["aggregate", "mean"]}, {"operations": ["rolling", "mean", 0, one]}, {"operations": ["resample", "mean", "1month", one]}, {"operations": "(metric"}, {"operations": ""}, {"operations": 3}, {"operations": ["+", 1, 2]}, {"operations": one, "extra": 1}])),
        lambda: ask("POST", "/v1/aggregates", {"operations": ["metric", absent, "mean"]}),
        lambda: ask("POST", "/v1/aggregates", {"operations": ["metric", metric.placeholder(), "99.9pct"]}),
        lambda: ask("POST", "/v1/aggregates", {"operations": one}, parameters=[random.choice([("fill", "abc"), ("needed_overlap", "abc"), ("start", "abc"), ("stop", "abc"), ("granularity", "abc"), ("granularity", "0"), ("granularity", "43"), ("details", "maybe")])]),
        lambda: ask("POST", "/v1/aggregates", {"operations": one[:1] + ["nothing*", "mean"], "resource_type": kind, "search": {}}),
        lambda: ask("POST", "/v1/aggregates", {"operations": one, "resource_type": "no-such-type", "search": {}}),
        lambda: ask("POST", "/v1/aggregates", {"operations": ["metric", "*", "mean"], "resource_type": kind, "search": {"=": {"no_such": 1}}}),
        lambda: ask("POST", "/v1/aggregates", {"operations": ["metric", "*", "mean"], "resource_type": kind, "search": {}}, parameters=[("groupby", "no_such")]),
        lambda: ask("GET", "/v1/aggregation/metric", parameters=[("metric", absent)]),
        lambda: ask("GET", "/v1/aggregation/metric", parameters=[("metric", "x")]),
        lambda: ask("POST", f"/v1/aggregation/resource/{kind}/metric/cpu", {}, parameters=[("groupby", "no_such")]),
        lambda: ask("POST", "/v1/aggregation/resource/no-such/metric/cpu", {}),
        lambda: ask("POST", f"/v1/search/resource/{kind}", random.choice([{"=": {"no_such": 1}}, {"~": {"id": 1}}, {"and": []}, {"=": {}}, {"=": {"id": "x", "type": "y"}}, {"in": {"id": []}}, {"like": {"id": "x"}}, {"=": 1}, [], {"and": {}}, {"not": []}, {"<": {"started_at": "abc"}}])),
        lambda: ask("POST", f"/v1/search/resource/{kind}", parameters=[("filter", random.choice(["id =", "= 3", "a b c", "(id = 1", "no_such = 3", "started_at > 'abc'"]))]),
        lambda: ask("POST", "/v1/search/resource/no-such", {}),
        lambda: ask("GET", f"/v1/resource/{kind}", parameters=[random.choice([("limit", 0), ("limit", "x"), ("limit", -1), ("marker", "no-such"), ("sort", "bogus"), ("sort", "id:up"), ("details", "maybe"), ("attrs", "bogus")])]),
        lambda: ask("GET", f"/v1/resource/{kind}/no-such-resource"),
        lambda: ask("GET", f"/v1/resource/no-such/{resource.id}"),
        lambda: ask("GET", f"/v1/resource/{kind}/{resource.id}/metric/absent/measures"),
        lambda: ask("GET", f"/v1/resource/{kind}/no-such/metric/cpu/measures"),
        lambda: ask("POST", f"/v1/resource/{kind}", random.choice([{}, {"id": resource.id, "no_such": 1}, {"id": "a/b"}, {"id": "x" * 290}, {"id": resource.id + "-z", "started_at": "2024-02-02", "ended_at": "2024-01-01"}, [], {"id": 3}])),
        lambda: ask("POST", "/v1/resource/no-such", {"id": "x"}),
        lambda: ask("POST", "/v1/metric", random.choice([{"archive_policy_name": "no-such-policy"}, {"name": "nomatch"}, {"name": "a/b", "archive_policy_name": metric.policy.name}, {"archive_policy_name": metric.policy.name, "unit": "x" * 32}, {"extra": 1}, {"name": 3}])),
        lambda: ask("POST", "/v1/archive_policy", random.choice([{"name": "x"}, {"name": "x", "definition": []}, {"name": "x", "definition": [{"granularity": "1s", "points": 10, "timespan": "20s"}]}, {"name": "x", "definition": [{"points": 3}]}, {"name": "x", "definition": [{"granularity": 60, "points": 3}, {"granularity": "1m", "points": 4}]}, {"name": "x", "definition": [{"granularity": 60, "points": 0}]}, {"name": "x", "definition": [{"granularity": "abc", "points": 1}]}, {"name": "x", "definition": [{"granularity": 60}], "back_window": -1}, {"name": "x", "definition": [{"granularity": 60}], "aggregation_methods": ["mode"]}, {"name": world.policies[0].name, "definition": [{"granularity": 60}]}]), as_user="admin"),
        lambda: ask("POST", "/v1/archive_policy", {"name": "x", "definition": [{"granularity": 60, "points": 10}]}),
        lambda: ask("GET", "/v1/archive_policy/no-such"),
        lambda: ask("DELETE", "/v1/archive_policy/no-such", as_user="admin"),
        lambda: ask("DELETE", f"/v1/archive_policy/{world.policies[0].name}", as_user="admin"),
        lambda: ask("DELETE", f"/v1/resource_type/{kind}", as_user="admin"),
        lambda: ask("POST", "/v1/resource_type", random.choice([{}, {"name": kind}, {"name": "x y!", "attributes": {"id": {"type": "string"}}}, {"name": "zz", "attributes": {"a": {"type": "no"}}}, {"name": "zz", "attributes": {"a": {"type": "string", "max_length": "b"}}}]), as_user="admin"),
        lambda: ask("POST", "/v1/search/metric", random.choice([{"~": 1}, {">": [1]}, [], {}, 3]), parameters=[("metric_id", metric.placeholder())]),
        lambda: ask("POST", "/v1/search/metric", parameters=[("metric_id", metric.placeholder())]),
        lambda: ask("GET", f"/v1/metric/{metric.placeholder()}", as_user="somebody-else"),
        lambda: ask("GET", f"/v1/resource/{kind}/{resource.id}", as_user="somebody-else"),
        lambda: ask("PUT", random.choice(["/v1/metric", f"/v1/resource/{kind}", "/v1/aggregates"]), {}),
        lambda: ask("DELETE", random.choice(["/v1/metric", "/v1/archive_policy", "/v1/capabilities"])),
        lambda: ask("GET", "/v1/" + random.choice(["nothing", "metrics", "resources", "search", "aggregation"])),
        lambda: ask("GET", "/v1/metric", parameters=[random.choice([("limit", 0), ("sort", "bogus"), ("marker", absent), ("status", "no"), ("name", "nothing of that name")])]),
    ]
    return random.choice(makers)()
