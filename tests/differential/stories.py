"""Several requests that belong together: something of its own is made, looked at, changed, refused and removed. What they
make carries the world's number and one of its own."""

from series import METHODS, spell_timespan
from step import Step

STARTED = "2024-01-01T00:00:00+00:00"
LONG_AGO, FAR_AHEAD = "Thu, 01 Jan 2015 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"


def story(random, world):
    world.told += 1
    return random.choice([policies, rules, types, metrics, attached, conditional, removed, documents, pages])(random, world, f"{world.seed}-x{world.told}")


def ask(method, path, body=None, parameters=(), user=None, **more):
    # What writes is sent once, and what it did is seen by the next requests.
    return Step(f"story {method} {path.split('/')[2] if path.count('/') > 1 else path}", method, path, list(parameters), body, user=user or "admin", changes=method != "GET", **more)


def policies(random, world, number):
    name = f"p{number}"
    path, user = f"/v1/archive_policy/{name}", world.user
    granularities = random.sample([1, 60, 300, 3600], random.choice([1, 2, 2]))

    def definition(points, of=granularities):
        return [{"granularity": spell_timespan(random, granularity), "points": points} for granularity in of]

    body = {"name": name, "definition": definition(10), "back_window": random.choice([0, 2])}
    if random.random() < 0.5:
        body["aggregation_methods"] = random.choice([["mean"], ["*"], ["-mean"], ["+last", "-std"], random.sample(METHODS, 3), []])
    changes = [
        {"definition": definition(20)}, {"definition": definition(5), "back_window": 1}, {"definition": definition(20), "back_window": "3"},
        {"definition": definition(20, granularities + [7200])}, {"definition": definition(20, [7])}, {"definition": definition(20, granularities[:1])},
        {"definition": []}, {}, {"definition": definition(10), "back_window": -1}, {"definition": definition(10), "name": name},
        {"definition": [{"granularity": 60}]}, {"definition": [{"points": 3}]}, {"definition": "x"}, {"back_window": 1},
    ]
    yield ask("POST", "/v1/archive_policy", body)
    yield ask("GET", path, user=user)
    for change in random.sample(changes, 4):
        yield ask("PATCH", path, change)
        yield ask("GET", path, user=user)
    yield ask("POST", "/v1/archive_policy", body)
    yield ask("PATCH", path, changes[0], user=user)
    yield ask("DELETE", path, user=user)
    yield ask("DELETE", path)
    yield ask("GET", path)
    yield ask("PATCH", path, changes[0])


def rules(random, world, number):
    first, second = [f"/v1/archive_policy_rule/r{number}{letter}" for letter in "ab"]
    policy, other = f"p{number}", world.policies[0].name
    start = f"z{number}"

    def rule(letter, pattern, of, **more):
        return {"name": f"r{number}{letter}", "metric_pattern": pattern, "archive_policy_name": of, **more}

    yield ask("POST", "/v1/archive_policy", {"name": policy, "definition": [{"granularity": 60, "points": 10}]})
    yield ask("POST", "/v1/archive_policy_rule", rule("a", f"{start}*", policy))
    yield ask("POST", "/v1/archive_policy_rule", rule("b", random.choice([f"{start}.cpu*", f"{start}.[cd]*", f"{start}?cpu"]), other))
    yield ask("GET", first, user=world.user)
    yield ask("POST", "/v1/archive_policy_rule", random.choice([
        rule("a", "x*", policy), rule("c", "x*", "no-such-policy"), rule("c", "x*", policy, extra=1), {"name": f"r{number}c"},
        rule("c", 3, policy), [], {"name": 1, "metric_pattern": "x", "archive_policy_name": policy}]))
    yield ask("POST", "/v1/archive_policy_rule", rule("c", "x*", policy), user=world.user)
    for name in (f"{start}.cpu", f"{start}.disk", f"{start}x"):
        yield ask("POST", "/v1/metric", {"name": name}, user=world.user, learns=name)
        yield ask("GET", "/v1/metric/{m:" + name + "}", user=world.user)
    yield ask("PATCH", first, random.choice([{"name": f"r{number}b"}, {"name": 3}, {}, {"name": "x", "metric_pattern": "y"}]))
    yield ask("PATCH", first, {"name": f"r{number}d"})
    yield ask("GET", first)
    yield ask("GET", f"/v1/archive_policy_rule/r{number}d")
    yield ask("DELETE", f"/v1/archive_policy/{policy}")
    yield ask("DELETE", f"/v1/archive_policy_rule/r{number}d", user=world.user)
    for path in (second, f"/v1/archive_policy_rule/r{number}d", first):
        yield ask("DELETE", path)
        yield ask("GET", path)


def types(random, world, number):
    name = f"t{number}".replace("-", "_")
    path = f"/v1/resource_type/{name}"
    resource = f"/v1/resource/{name}/{name}-r"
    yield ask("POST", "/v1/resource_type", {"name": name, "attributes": {
        "host": {"type": "string", "required": True, "max_length": 20}, "size": {"type": "number", "required": False, "min": 0}}})
    yield ask("POST", f"/v1/resource/{name}", {"id": f"{name}-r", "host": "h1", "size": 2, "started_at": STARTED}, user=world.user)

    def add(attribute, value):
        return {"op": "add", "path": f"/attributes/{attribute}", "value": value}

    patches = [
        [add("more", {"type": "string", "required": False})], [add("flag", {"type": "bool", "required": True, "options": {"fill": True}})],
        [add("born", {"type": "datetime", "required": False})], [{"op": "remove", "path": "/attributes/size"}],
        [add("tag", {"type": "uuid", "required": False}), {"op": "remove", "path": "/attributes/tag"}],
        [add("kind", {"type": "string", "required": True, "min_length": 2, "max_length": 10, "options": {"fill": "none"}})],
        [add("count", {"type": "number", "required": True, "options": {"fill": 3}})],
        # Refused.
        [add("more", {"type": "string", "required": True})], [{"op": "remove", "path": "/attributes/absent"}],
        [{"op": "replace", "path": "/attributes/host", "value": {"type": "string"}}], [{"op": "remove", "path": "/name"}],
        [add("host", {"type": "number", "required": True})], [add("id", {"type": "string", "required": False})], [add("odd", {"type": "no"})], {}, [{}],
        [add("odd", {"type": "string", "required": False, "max_length": "b"})],
    ]
    for patch in random.sample(patches, 4):
        yield ask("PATCH", path, patch)
        yield ask("GET", path, user=world.user)
        yield ask("GET", resource, user=world.user)
    yield ask("PATCH", path, patches[0], user=world.user)
    yield ask("PATCH", path, patches[0], headers={"Content-Type": "application/json"})
    yield ask("GET", resource + "/history", user=world.user)
    yield ask("DELETE", path)
    yield ask("DELETE", resource, user=world.user)
    yield ask("GET", resource, user=world.user)
    yield ask("DELETE", path, user=world.user)
    yield ask("DELETE", path)
    yield ask("GET", path)
    yield ask("GET", f"/v1/resource/{name}", user=world.user)


def metrics(random, world, number):
    resource, policy = random.choice(world.resources), random.choice(world.policies)
    name = f"m{number}"
    metric = "/v1/metric/{m:" + name + "}"
    body = {"archive_policy_name": policy.name, "name": name, "resource_id": resource.id}
    if random.random() < 0.5:
        body["unit"] = random.choice(["B", "", "x" * 31])
    yield ask("POST", "/v1/metric", body, user=world.user, learns=name)
    yield ask("GET", metric, user=world.user)
    yield ask("POST", "/v1/metric", random.choice([body, {key: body[key] for key in ("archive_policy_name", "resource_id")}, dict(body, resource_id="a/b"),
                                                   dict(body, name=name + "/x"), dict(body, archive_policy_name="no-such")]), user=world.user)
    yield ask("GET", f"/v1/resource/generic/{resource.id}/metric/{name}", user=world.user)
    yield ask("GET", metric + "/measures", [], [("aggregation", policy.methods[0])], user=world.user)
    yield ask("GET", "/v1/metric", parameters=[("name", name)], user=world.user)
    # A string id of another's resource is found by Orzo only (see intended.md).
    yield random.choice([ask("DELETE", f"/v1/resource/generic/{resource.id}/metric/{name}", user=world.user), ask("DELETE", metric, user=random.choice([world.user, "admin"]))])
    yield ask("GET", metric, user=world.user)
    yield ask("DELETE", metric, user=world.user)
    yield ask("GET", metric + "/measures", user=world.user)
    yield ask("POST", metric + "/measures", [{"timestamp": 1709078400, "value": 1}], user=world.user)
    yield ask("GET", f"/v1/resource/generic/{resource.id}", user=world.user)
    yield ask("GET", "/v1/metric", parameters=[("name", name), ("status", "active")], user=world.user)


def attached(random, world, number):
    resource, policy = f"{world.searches.name}-x{number}", random.choice(world.policies)
    path, user = f"/v1/resource/generic/{resource}", world.user
    free = f"f{number}"
    yield ask("POST", "/v1/metric", {"archive_policy_name": policy.name, "name": free}, user=user, learns=free)
    yield ask("POST", "/v1/resource/generic", {"id": resource, "started_at": STARTED, "metrics": {"a": {"archive_policy_name": policy.name}}}, user=user)
    yield ask("POST", path + "/metric", random.choice([
        {"b": {"archive_policy_name": policy.name, "unit": "B"}}, {"b": "{m:" + free + "}"}, {"b": {"archive_policy_name": policy.name}, "c": {"archive_policy_name": policy.name}}]),
        user=user, unordered=True)
    yield ask("POST", path + "/metric", random.choice([
        {"a": {"archive_policy_name": policy.name}}, {"d": {"archive_policy_name": "no-such"}}, {"d": "not-a-uuid"}, [], {"d/e": {"archive_policy_name": policy.name}},
        {"d": {}}, {"d": {"unit": 3}}, {"d": "00000000-1111-4222-8333-444444444444"}]), user=user, unordered=True)
    yield ask("GET", path + "/metric", user=user, unordered=True)
    yield ask("PATCH", path, {"metrics": random.choice([{"e": {"archive_policy_name": policy.name}}, {}, {"a": "{m:" + resource + "/a}"}])}, user=user)
    yield ask("GET", path, user=user)
    yield ask("GET", path + "/history", user=user)
    yield ask("GET", "/v1/metric/{m:" + resource + "/a}", user=user)
    yield ask("PATCH", path, {}, user=user)
    yield ask("DELETE", path, user=user)
    yield ask("GET", path, user=user)
    yield ask("GET", "/v1/metric/{m:" + resource + "/a}", user=user)


def conditional(random, world, number):
    resource = random.choice(world.resources)
    path, user = f"/v1/resource/{world.searches.name}/{resource.id}", world.user
    tag = "{m:tag " + number + "}"
    yield ask("GET", path, user=user, tags=f"tag {number}")
    for _ in range(5):
        header = random.choice(["If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"])
        value = random.choice([LONG_AGO, FAR_AHEAD, "yesterday"]) if header.endswith("Since") else random.choice([tag, tag, '"another"', "*", f'"another", {tag}', f"W/{tag}"])
        yield ask("GET", path, user=user, headers={header: value})
    yield ask("PATCH", path, {"user_id": f"u{number}"}, user=user, headers={"If-Match": random.choice([tag, '"another"', "*"])})
    yield ask("GET", path, user=user, tags=f"tag {number}")
    yield ask("PATCH", path, {"user_id": f"u{number}"}, user=user, headers={random.choice(["If-Match", "If-None-Match"]): tag})
    yield ask("DELETE", path, user=user, headers={"If-Match": '"another"'})
    yield ask("PATCH", path, {"user_id": "u1"}, user=user, headers={"If-Unmodified-Since": random.choice([LONG_AGO, FAR_AHEAD])})


def removed(random, world, number):
    resources = [f"{world.searches.name}-y{number}{letter}" for letter in "ab"]
    for resource in resources:
        yield ask("POST", "/v1/resource/generic", {"id": resource, "started_at": STARTED, "project_id": "p1"}, user=world.user)
    yield ask("DELETE", "/v1/resource/generic", random.choice([{}, {"=": {"no_such": 1}}, {"~": 1}]), user=world.user)
    search = random.choice([{"like": {"original_resource_id": f"{world.searches.name}-y{number}%"}}, {"=": {"id": resources[0]}},
                            {"in": {"original_resource_id": resources[:1] + ["absent"]}}])
    yield ask("DELETE", "/v1/resource/generic", search, user=world.user)
    for resource in resources:
        yield ask("GET", f"/v1/resource/generic/{resource}", user=world.user)
    yield ask("DELETE", "/v1/resource/generic", search, user=world.user)


def documents(random, world, number):
    for path in random.sample(["/", "/v1/", "/v1/capabilities", "/v1/archive_policy_rule/absent", "/v1/status", "/v1/influxdb/query"], 3):
        yield ask("GET", path, user=world.user)


def pages(random, world, number):
    """All metrics of this world, page by page: sorted by what both servers know."""
    sort = random.choice([[("sort", "resource_id:asc"), ("sort", "name:asc")], [("sort", "name:desc"), ("sort", "resource_id")], [("sort", "name:asc-nullsfirst"), ("sort", "resource_id:desc")]])
    limit = random.choice([1, 2, 3])
    for marker in [[]] + [[("marker", metric.placeholder())] for metric in random.sample(world.metrics, min(3, len(world.metrics)))]:
        yield ask("GET", "/v1/metric", parameters=[("creator", world.user), ("limit", limit)] + sort + marker, user=world.user)
