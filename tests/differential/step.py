"""One request of a world, as plain data: what is sent to both servers, and how the two answers are compared.

Names in braces, `{m:cpu-1}`, stand for ids that each server made up itself; `Answers` learns them from the answers.
"""

import copy
import dataclasses
import json
import re
import urllib.parse


@dataclasses.dataclass
class Step:
    """What is asked. `kind` names the family of requests, for the report."""

    kind: str
    method: str
    path: str
    parameters: list = dataclasses.field(default_factory=list)
    body: object = None
    # Sent as it is, instead of `body` as JSON.
    raw: str | None = None
    user: str = "admin"
    headers: dict = dataclasses.field(default_factory=dict)
    # False: sent, but its answer is not compared (a flush).
    compared: bool = True
    # Changes something: is never sent a second time, and is not made smaller.
    changes: bool = False
    # The outer list has no defined order (Gnocchi sorts it by ids that each server makes up).
    unordered: bool = False
    # Relative tolerance of numbers; larger only where the answer depends on when the request came.
    tolerance: float = 1e-9
    # The key under which the id in the answer is remembered.
    learns: str | None = None
    # The key under which the answer's ETag is remembered.
    tags: str | None = None

    def copy(self, **changes):
        return dataclasses.replace(copy.deepcopy(self), **changes)

    def target(self, names):
        query = urllib.parse.urlencode([(key, names.fill(str(value))) for key, value in self.parameters])
        return urllib.parse.quote(names.fill(self.path), safe="/@:*") + ("?" + query if query else "")

    def payload(self, names):
        if self.raw is not None:
            return names.fill(self.raw)
        return None if self.body is None else names.fill(json.dumps(self.body))

    def show(self):
        text = f"{self.method} {self.path}"
        if self.parameters:
            text += "?" + "&".join(f"{key}={value}" for key, value in self.parameters)
        if self.raw is not None or self.body is not None:
            text += "\n    " + (self.raw if self.raw is not None else json.dumps(self.body, ensure_ascii=False))
        if self.headers:
            text += f"\n    {self.headers}"
        return text + (f"\n    as {self.user}" if self.user != "admin" else "")


class Names:
    """The ids that one server made up, by the names under which the world knows them."""

    def __init__(self):
        self.ids = {}
        self.known = {}

    def learn(self, key, value):
        self.ids[key] = value
        self.known.setdefault(value, "{m:" + key + "}")

    def fill(self, text):
        def one(match):
            # A metric that could not be made: an id that no server knows.
            return self.ids.get(match[1], "00000000-0000-4000-8000-000000000000")

        return re.sub(r"\{m:([^}]*)\}", one, text)

    def blank(self, value):
        """Replaces every known id in an answer by its name, so that two servers' answers can be compared."""
        if isinstance(value, str):
            if value in self.known:
                return self.known[value]
            return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", lambda match: self.known.get(match[0], match[0]), value)
        if isinstance(value, list):
            return [self.blank(element) for element in value]
        if isinstance(value, dict):
            return {self.blank(key): self.blank(element) for key, element in value.items()}
        return value

    def learn_from(self, step, answer):
        """Metrics' ids stand in the answer of their creation, in every resource's `metrics` and in its list of them."""
        if step.tags and "etag" in answer.headers:
            self.ids[step.tags] = answer.headers["etag"]
        if answer.status >= 300 or not isinstance(answer.body, (dict, list)):
            return
        if step.learns and isinstance(answer.body, dict) and "id" in answer.body:
            self.learn(step.learns, answer.body["id"])
        for resource in answer.body if isinstance(answer.body, list) else [answer.body]:
            if isinstance(resource, dict) and isinstance(resource.get("metrics"), dict):
                for name, value in resource["metrics"].items():
                    if value not in self.known:
                        self.learn(f"{resource.get('original_resource_id')}/{name}", value)
                    else:
                        self.ids.setdefault(f"{resource.get('original_resource_id')}/{name}", value)
            elif isinstance(resource, dict) and resource.get("resource_id") and "id" in resource and resource["id"] not in self.known:
                self.learn(f"{resource['resource_id']} {resource.get('name')}", resource["id"])
