"""A world: everything that one seed makes on both servers, and the questions asked about it.

Every world has users, names and types of its own, so that many can live in one server at the same time and none sees
another: a plain user's lists show only what that user made.
"""

import random as random_numbers
import time
import uuid

import mistakes
import queries
import searches
import stories
from series import Policy, Shape, second_writing, slices
from step import Step


class Metric:
    """A metric under the name by which the world knows it: `resource/name`, or a name for a free one."""

    def __init__(self, key, policy, resource=None, name=None):
        self.key, self.policy, self.resource, self.name = key, policy, resource, name

    def placeholder(self):
        return "{m:" + self.key + "}"

    def path(self, random):
        if self.resource and random.random() < 0.4:
            return f"/v1/resource/{random.choice(['generic', self.resource.type])}/{self.resource.id}/metric/{self.name}"
        return "/v1/metric/" + self.placeholder()


class Resource:
    # The namespace in which Gnocchi makes ids of free text.
    NAMESPACE = uuid.UUID("0a7a15ff-aa13-4ac2-897c-9bdf30ce175b")

    def __init__(self, id, type_name, creator):
        self.id, self.type = id, type_name
        self.uuid = str(uuid.uuid5(self.NAMESPACE, f"{id}\x00{creator}"))


class World:
    """`steps()` gives the requests one after the other; nothing in them depends on the answers."""

    def __init__(self, seed, questions):
        self.seed, self.questions = seed, questions
        self.random = random_numbers.Random(seed)
        self.user = f"u{seed}"
        self.metrics, self.resources, self.policies = [], [], []
        self.metric_names = self.random.sample(["cpu", "cpu_util", "disk.read", "disk.write", "memory", "net in", "load@1"], self.random.randint(2, 4))
        # Every tenth world lies around the present and asks about the history of its resources.
        self.recent = seed % 10 == 7
        self.told = 0
        # The posts, for the report of a difference.
        self.posted = {}

    def steps(self):
        yield from self.make_policies()
        yield from self.make_resources()
        yield from self.make_free_metrics()
        yield from self.write()
        makers = [(queries.measures, 24), (queries.aggregates, 30), (queries.aggregates_by_search, 16), (queries.aggregation, 8),
                  (queries.aggregation_by_search, 6), (queries.by_value, 5), (searches.search, 16), (searches.listing, 8),
                  (searches.change, 2), (mistakes.mistake, 7), (stories.story, 2)]
        if self.recent:
            for _ in range(random_numbers.Random(self.seed).randint(2, 5)):
                yield searches.change(self.random, self)
            makers = [(queries.aggregates_over_history, 30)] + makers
        weights = [weight for _, weight in makers]
        for _ in range(self.questions):
            maker = self.random.choices([maker for maker, _ in makers], weights)[0]
            made = maker(self.random, self)
            if isinstance(made, Step):
                yield made
            else:
                yield from made

    def make_policies(self):
        random = self.random
        first = Policy(random, f"p{self.seed}-0", random.choice([[3600], [3600, 86400]]) if self.recent else None)
        self.policies = [first]
        for number in range(1, random.choice([1, 2, 2, 3])):
            shared = first.granularities if random.random() < 0.6 else None
            self.policies.append(Policy(random, f"p{self.seed}-{number}", shared))
        self.shape = Shape.around(random, time.time()) if self.recent else Shape(random, first.granularities)
        for policy in self.policies:
            yield Step("create a policy", "POST", "/v1/archive_policy", body=policy.body, changes=True)
        yield Step("policy", "GET", f"/v1/archive_policy/{first.name}", user=self.user)
        yield Step("create a rule", "POST", "/v1/archive_policy_rule", changes=True,
                   body={"name": f"rule{self.seed}", "metric_pattern": f"w{self.seed}*", "archive_policy_name": first.name})

    def make_resources(self):
        random = self.random
        self.searches = searches.Searches(random, f"t{self.seed}")
        yield Step("create a type", "POST", "/v1/resource_type", body=self.searches.type_body(random), changes=True)
        yield Step("type", "GET", f"/v1/resource_type/{self.searches.name}", user=self.user)
        for number in range(random.randint(2, 6)):
            resource = Resource(f"{self.searches.name}-r{number}", self.searches.name, self.user)
            self.resources.append(resource)
            body = {"id": resource.id, "started_at": random.choice(searches.TIMES[:3]), **self.searches.values(random)}
            if random.random() < 0.8:
                body["project_id"] = random.choice(["p1", "p2"])
            if random.random() < 0.6:
                body["user_id"] = random.choice(["u1", "u2"])
            if random.random() < 0.2:
                body["ended_at"] = random.choice(["2026-01-01T00:00:00+00:00", "2027-05-05T05:05:05.123456+00:00"])
            metrics = {}
            for name in self.metric_names:
                if random.random() < 0.8:
                    policy = self.policies[0] if random.random() < 0.7 else random.choice(self.policies)
                    metrics[name] = {"archive_policy_name": policy.name}
                    if random.random() < 0.3:
                        metrics[name]["unit"] = random.choice(["B", "%", "ns"])
                    self.metrics.append(Metric(f"{resource.id}/{name}", policy, resource, name))
            if metrics:
                body["metrics"] = metrics
            yield Step("create a resource", "POST", f"/v1/resource/{self.searches.name}", body=body, changes=True, user=self.user)
        if random.random() < 0.4:
            yield searches.change(random, self)

    def make_free_metrics(self):
        random = self.random
        for number in range(random.randint(1, 3)):
            policy = random.choice(self.policies)
            key = f"w{self.seed}-free{number}"
            body = {"name": key, "archive_policy_name": policy.name}
            if random.random() < 0.3:
                # The rule finds the policy by the name.
                del body["archive_policy_name"]
                policy = self.policies[0]
            self.metrics.append(Metric(key, policy))
            yield Step("create a metric", "POST", "/v1/metric", body=body, changes=True, user=self.user, learns=key)

    def write(self):
        """All series, over all the ways in; then the flush that makes them one batch each for Gnocchi. In some worlds
        a second writing follows."""
        random = self.random
        self.rewritten = random.random() < 0.25
        rounds = {}
        again = []
        for metric in self.metrics:
            points = self.shape.points(random)
            # Rates of what comes later are Gnocchi's own way (see intended.md).
            if self.rewritten and random.random() < 0.6 and not any(method.startswith("rate:") for method in metric.policy.methods):
                again.append((metric, second_writing(random, metric.policy, points, self.shape.interval)))
            for number, part in enumerate(slices(random, points)):
                rounds.setdefault(number, []).append((metric, self.shape.measures(random, part)))
        for parts in rounds.values():
            yield from self.post(parts)
        made = list(self.make_with_measures()) if random.random() < 0.4 else []
        yield from made
        yield from self.flush()
        # Gnocchi takes the end of a resource away only when it computes the measures that are newer.
        yield from [step.copy(compared=True) for step in made if step.kind == "resource"]
        if again:
            yield from self.post([(metric, self.shape.measures(random, points)) for metric, points in again])
            yield from self.flush()

    def make_with_measures(self):
        """Metrics that a batch makes, as Ceilometer does; their ids are seen in the resource afterwards."""
        random, resource, policy = self.random, self.random.choice(self.resources), self.random.choice(self.policies)
        made = {f"made{self.seed}": policy, f"w{self.seed}-ruled": self.policies[0]}
        body = {}
        for name, of in made.items():
            measures = self.shape.measures(random, self.shape.points(random))
            self.posted.setdefault(f"{resource.id}/{name}", []).append(measures)
            body[name] = {"measures": measures, "archive_policy_name": of.name, "unit": "B"} if name.startswith("made") else measures
            self.metrics.append(Metric(f"{resource.id}/{name}", of, resource, name))
        yield Step("make metrics by a batch", "POST", "/v1/batch/resources/metrics/measures", body={resource.id: body}, changes=True, user=self.user,
                   parameters=[("create_metrics", random.choice(["true", "True", "1"]))])
        yield Step("resource", "GET", f"/v1/resource/{resource.type}/{resource.id}", user=self.user, compared=False)

    def flush(self):
        for policy in self.policies:
            metrics = [metric.placeholder() for metric in self.metrics if metric.policy is policy]
            if metrics:
                yield Step("flush", "POST", "/v1/aggregation/metric", body=metrics, compared=False, changes=True, user=self.user,
                           parameters=[("refresh", "true"), ("fill", "null"), ("aggregation", policy.methods[0]), ("reaggregation", "mean"), ("granularity", policy.granularities[0])])

    def post(self, parts):
        random = self.random
        batch, by_resource = {}, {}
        for metric, measures in parts:
            self.posted.setdefault(metric.key, []).append(measures)
            way = random.random()
            if way < 0.3:
                yield Step("post measures", "POST", metric.path(random) + "/measures", body=measures, changes=True, user=self.user)
            elif way < 0.6 or metric.resource is None:
                batch[metric.placeholder()] = measures
            else:
                by_resource.setdefault(metric.resource.id, {})[metric.name] = measures if random.random() < 0.5 else {"measures": measures}
        if batch:
            yield Step("post a batch", "POST", "/v1/batch/metrics/measures", body=batch, changes=True, user=self.user)
        if by_resource:
            yield Step("post a batch by resource", "POST", "/v1/batch/resources/metrics/measures", body=by_resource, changes=True, user=self.user,
                       parameters=random.choice([[], [("create_metrics", "true")], [("create_metrics", "False")]]))
