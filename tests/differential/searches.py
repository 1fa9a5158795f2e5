"""Random requests about resources: search in JSON and as text, lists, pages, history, and changes to them."""

import json
import uuid

from step import Step

COMPARISONS = ["=", "==", "eq", "<", "lt", "gt", ">", "<=", "≤", "le", ">=", "≥", "ge", "!=", "≠", "ne"]
WORDS = ["alpha", "beta", "Gamma", "delta 4", "é-5", "", "x_y", "100%"]
TIMES = ["2024-01-01T00:00:00+00:00", "2024-02-29T12:30:00+00:00", "2024-03-01T00:00:00.250000+00:00", "2025-12-31T23:59:59+00:00"]


class Searches:
    """The attributes of a world's resources, and random conditions on them."""

    def __init__(self, random, name):
        self.name = name
        kinds = ["string", "number", "bool", "uuid", "datetime"]
        chosen = ["string"] + random.sample(kinds, random.randint(1, 4))
        self.attributes = {f"{kind[0]}{number}": kind for number, kind in enumerate(chosen)}
        self.required = {attribute: random.random() < 0.3 for attribute in self.attributes}
        self.uuids = [str(uuid.UUID(int=random.getrandbits(128), version=4)) for _ in range(3)]

    def type_body(self, random):
        attributes = {}
        for attribute, kind in self.attributes.items():
            attributes[attribute] = {"type": kind, "required": self.required[attribute]}
            if kind == "string" and random.random() < 0.3:
                attributes[attribute]["max_length"] = random.choice([10, 64, 255])
            if kind == "number" and random.random() < 0.3:
                attributes[attribute]["min"] = -1000
        return {"name": self.name, "attributes": attributes}

    def type(self, random):
        return self.name if random.random() < 0.85 else "generic"

    def value(self, random, kind):
        match kind:
            case "string": return random.choice(WORDS)
            case "number": return random.choice([0, 1, -3, 2.5, 100, 1e6])
            case "bool": return random.random() < 0.5
            case "uuid": return random.choice(self.uuids)
            case "datetime": return random.choice(TIMES)

    def values(self, random):
        """Attributes of one resource; what is not required is sometimes absent."""
        return {attribute: self.value(random, kind) for attribute, kind in self.attributes.items()
                if self.required[attribute] or random.random() < 0.75}

    def groupable(self):
        return list(self.attributes) + ["project_id", "user_id", "id", "original_resource_id", "type"]

    def field(self, random, common=False):
        """An attribute and a value of its kind; `common`: one that every resource has."""
        fields = [] if common else [(attribute, self.value(random, kind)) for attribute, kind in self.attributes.items()]
        fields += [("project_id", random.choice(["p1", "p2", "p9"])), ("user_id", random.choice(["u1", "u2"])),
                   ("original_resource_id", f"{self.name}-r{random.randint(0, 5)}"), ("type", self.name),
                   ("started_at", random.choice(TIMES)), ("ended_at", random.choice(TIMES)), ("id", f"{self.name}-r{random.randint(0, 5)}")]
        return random.choice(fields)

    def within(self, type_name, tree):
        """Under `generic` every world's resources are found: this world's are named."""
        return tree if type_name == self.name else {"and": [{"like": {"original_resource_id": f"{self.name}-%"}}, tree]}

    def text_within(self, type_name, text):
        return text if type_name == self.name else f"original_resource_id like '{self.name}-%' and ({text})"

    def tree(self, random, depth, common=False):
        """A random search; `common`: by what every resource has, as Gnocchi cannot search a history by other attributes."""
        form = random.random()
        if depth and form < 0.55:
            return {random.choice(["and", "or", "and", "or", "∧", "∨"]): [self.tree(random, depth - 1, common) for _ in range(random.randint(1, 3))]}
        if depth and form < 0.7:
            return {"not": self.tree(random, depth - 1, common)}
        if form > 0.97:
            return {}
        attribute, value = self.field(random, common)
        form = random.random()
        if form < 0.15:
            return {"in": {attribute: [value] + [self.field_value(random, attribute) for _ in range(random.randint(0, 2))]}}
        if form < 0.3 and attribute in self.attributes and self.attributes[attribute] == "string" or attribute == "original_resource_id" and form < 0.6:
            return {"like": {attribute: random.choice(["%a%", "al%", "%", "_eta", f"{self.name}-r_", "%4", "x\\_y", "Gamma"])}}
        if form < 0.4 and attribute != "id":
            value = None
        if value is None or isinstance(value, bool) or attribute in ("id", "type"):
            return {random.choice(["=", "==", "eq", "!=", "ne", "≠"]): {attribute: value}}
        return {random.choice(COMPARISONS): {attribute: value}}

    def field_value(self, random, attribute):
        for _ in range(30):
            other, value = self.field(random)
            if other == attribute:
                return value
        if attribute in self.attributes:
            return self.value(random, self.attributes[attribute])
        other = self.field(random)[1]
        # A number among texts of times is never asked, nor a text with nothing in it.
        return TIMES[0] if attribute in ("started_at", "ended_at") and (not isinstance(other, str) or other == "") else other

    def text(self, random, common=False):
        def condition():
            attribute, value = self.field(random, common)
            if value is None or isinstance(value, bool):
                return f"{attribute} {random.choice(['=', '!='])} {json.dumps(value)}"
            if random.random() < 0.15:
                return f"{attribute} in [{', '.join(spell(self.field_value(random, attribute)) for _ in range(2))}]"
            if random.random() < 0.1 and attribute != "id":
                return f"{attribute} {random.choice(['=', '!='])} {random.choice(['null', 'None', 'none'])}"
            operator = random.choice(["=", "!=", "eq", "ne"]) if attribute in ("id", "type") else random.choice(COMPARISONS)
            # Gnocchi's parser takes the first = of == for the operator, and fails.
            operator = "=" if operator == "==" else operator
            return f"{attribute}{random.choice([' ', ' ', ''])}{operator}{random.choice([' ', ' ', ''])}{spell(value)}" if not operator.isalpha() else f"{attribute} {operator} {spell(value)}"

        def spell(value):
            if isinstance(value, str):
                return random.choice([f'"{value}"', f"'{value}'"])
            return json.dumps(value)

        form = random.random()
        if form < 0.45:
            return condition()
        if form < 0.6:
            return f"not {condition()}"
        if form < 0.85:
            return f"{condition()} {random.choice(['and', 'or', '∧', '∨'])} {condition()}"
        return f"({condition()} or {condition()}) and not {condition()}"


def sort_of(random, world):
    attribute = random.choice(list(world.searches.attributes) + ["project_id", "user_id", "started_at", "original_resource_id", "id", "ended_at"])
    return ("sort", attribute + random.choice(["", "", ":asc", ":desc", ":desc-nullsfirst", ":asc-nullslast", ":desc-nullslast", ":asc-nullsfirst"]))


def paging(random, world):
    parameters = [sort_of(random, world) for _ in range(random.choice([0, 1, 1, 2]))]
    if random.random() < 0.4:
        parameters.append(("limit", random.choice([1, 2, 3, 1000])))
        if random.random() < 0.5:
            parameters.append(("marker", random.choice(world.resources).uuid))
    return parameters


def search(random, world):
    searches = world.searches
    parameters = paging(random, world)
    for name, odds in (("details", 0.2), ("history", 0.2)):
        if random.random() < odds:
            parameters.append((name, random.choice(["true", "True", "1"])))
    history = any(key == "history" for key, _ in parameters)
    if history:
        # Pages of a history are marked by revision, not by id.
        parameters = [(key, value) for key, value in parameters if key != "marker"]
    if random.random() < 0.15:
        parameters += [("attrs", attribute) for attribute in ["id"] + random.sample(list(searches.attributes), 1)]
    type_name = searches.type(random)
    path = f"/v1/search/resource/{type_name}"
    if random.random() < 0.4:
        return Step("search as text", "POST", path, parameters + [("filter", searches.text_within(type_name, searches.text(random, history)))], user=world.user)
    return Step("search", "POST", path, parameters, searches.within(type_name, searches.tree(random, random.choice([0, 1, 1, 2, 3]), history)), user=world.user)


def listing(random, world):
    resource = random.choice(world.resources)
    type_name = world.searches.type(random)
    return random.choice([
        lambda: Step("list resources", "GET", f"/v1/resource/{world.searches.name}", paging(random, world) + random.choice([[], [], [("details", "true")], [("history", "true")]]), user=world.user),
        lambda: Step("resource", "GET", f"/v1/resource/{type_name}/{resource.id}", user=world.user),
        lambda: Step("history", "GET", f"/v1/resource/{type_name}/{resource.id}/history", random.choice([[], [("details", "true")], [("limit", 1)], [("sort", "revision_start:desc")]]), user=world.user),
        lambda: Step("metrics of a resource", "GET", f"/v1/resource/{type_name}/{resource.id}/metric", unordered=True, user=world.user),
        lambda: Step("metric", "GET", random.choice(world.metrics).path(random), user=world.user),
        lambda: Step("list metrics", "GET", "/v1/metric", [("creator", world.user)] + random.choice([[], [("name", random.choice(world.metric_names))], [("archive_policy_name", random.choice(world.policies).name)], [("status", "active")], [("unit", "B")], [("id", random.choice(world.metrics).placeholder())]]), unordered=True, user=world.user),
    ])()


def change(random, world):
    """Changes a resource, so that it gets a history, or moves its metrics."""
    resource = random.choice(world.resources)
    path = f"/v1/resource/{world.searches.name}/{resource.id}"
    attribute = random.choice(list(world.searches.attributes))
    form = random.random()
    if form < 0.6:
        body = {attribute: world.searches.value(random, world.searches.attributes[attribute])}
    elif form < 0.7:
        body = {"ended_at": random.choice(["2030-01-01T00:00:00", "2020-01-01", "2031-05-05T05:05:05.5Z"])}
    elif form < 0.8:
        body = {"project_id": random.choice(["p1", "p2", None])}
    elif form < 0.9:
        body = {attribute: random.choice(["x" * 300, 3, "not a date", []])}
    else:
        body = {"unknown": 1}
    return Step("change a resource", "PATCH", path, body=body, changes=True, user=world.user)
