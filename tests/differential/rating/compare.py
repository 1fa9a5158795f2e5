"""Random rules and usages, priced by Orzo and by CloudKitty's hashmap. See README.md."""

import argparse
import datetime
import decimal
import json
import random
import subprocess
import sys
import time
from types import SimpleNamespace

from cloudkitty import dataframe
from cloudkitty.rating import hash as hashmap

SHOWN_MAX = 20
VALUES = ["m1.tiny", "m1.small", "m1.large", "1", "1.0", "0.1", "True", "None", "ssd", "", "é"]
TENANTS = ["t1", "t2"]
GROUPS = ["base", "license", "support"]


class Tables:
    """What CloudKitty asks its database for, from lists in memory."""

    def __init__(self, rules):
        self.rows = {}
        self.services, self.fields = [], {}
        for service in rules["services"]:
            uuid = self.keep(SimpleNamespace(name=service["name"]))
            self.services.append(uuid)
            self.fields[uuid] = []
            self.entries(uuid, service)
            for field in service["fields"]:
                field_uuid = self.keep(SimpleNamespace(name=field["name"]))
                self.fields[uuid].append(field_uuid)
                self.entries(field_uuid, field)

    def keep(self, row):
        uuid = f"u{len(self.rows)}"
        self.rows[uuid] = row
        return uuid

    def entries(self, owner, written):
        for kind in ("mappings", "thresholds"):
            for entry in written[kind]:
                group = entry.get("group")
                self.keep(SimpleNamespace(
                    owner=owner, kind=kind, tenant=entry.get("tenant_id"), value=entry.get("value"),
                    level=decimal.Decimal(entry.get("level", 0)), map_type=entry["type"], cost=decimal.Decimal(entry["cost"]),
                    group_id=group, group=SimpleNamespace(name=group)))

    def get(self, uuid):
        return self.rows[uuid]

    get_service = get_field = get_mapping = get_threshold = get

    def list_services(self):
        return self.services

    def list_fields(self, service_uuid):
        return self.fields[service_uuid]

    def found(self, kind, service_uuid=None, field_uuid=None, tenant_uuid=None, is_active=True):
        owner = field_uuid or service_uuid
        return [uuid for uuid, row in self.rows.items()
                if getattr(row, "kind", None) == kind and row.owner == owner and row.tenant == tenant_uuid]

    def list_mappings(self, **asked):
        return self.found("mappings", **asked)

    def list_thresholds(self, **asked):
        return self.found("thresholds", **asked)


def number(chance, whole, places):
    digits = chance.choice(places)
    text = str(chance.randrange(0, 10 ** chance.choice(whole)))
    if digits:
        text += "." + "".join(chance.choice("0123456789") for _ in range(digits))
    return text


def cost(chance):
    # CloudKitty's columns hold 8 places; more are asked so that rounding counts.
    return number(chance, [1, 1, 2, 4], [0, 1, 2, 4, 8, 8, 20, 27])


def entry(chance, **more):
    made = {"type": chance.choice(["flat", "flat", "rate"]), "cost": cost(chance), **more}
    if chance.random() < 0.5:
        made["group"] = chance.choice(GROUPS)
    if chance.random() < 0.4:
        made["tenant_id"] = chance.choice(TENANTS)
    return made


def distinct(entries, *keys):
    """CloudKitty's API refuses a second entry of the same value or level, group and tenant."""
    seen, kept = set(), []
    for one in entries:
        key = tuple(decimal.Decimal(one[key]) if key == "level" else one.get(key) for key in (*keys, "group", "tenant_id"))
        if key not in seen:
            seen.add(key)
            kept.append(one)
    return kept


def thresholds(chance, most):
    # The first levels are those that are never reached, and zero.
    levels = ["-2", "-1", "0"] + [number(chance, [1, 2, 3], [0, 1, 3]) for _ in range(5)]
    return distinct([entry(chance, level=chance.choice(levels)) for _ in range(chance.randrange(most))], "level")


def make(seed):
    chance = random.Random(seed)
    services = []
    for name in chance.sample(["instance", "volume.size", "network"], chance.randrange(1, 4)):
        fields = []
        for field in chance.sample(["flavor", "image", "size", "zone", "kind"], chance.randrange(0, 5)):
            mappings = [entry(chance, value=chance.choice([v for v in VALUES if v])) for _ in range(chance.randrange(6))]
            fields.append({"name": field, "mappings": distinct(mappings, "value"),
                           "thresholds": thresholds(chance, 4) if chance.random() < 0.4 else []})
        mappings = [entry(chance) for _ in range(chance.randrange(4))]
        services.append({"name": name, "mappings": distinct(mappings), "thresholds": thresholds(chance, 4), "fields": fields})
    usages = []
    for _ in range(chance.randrange(1, 5)):
        def value():
            # Mostly a number: a field with thresholds has no price for a text.
            return chance.choice([number(chance, [1, 2, 3], [0, 1, 3]), chance.randrange(300), round(chance.random() * 300, 2),
                                  chance.choice(VALUES), chance.choice(VALUES), True, 1.0, 1e16, 2.5e-07, -1.5])
        described = {field: value() for field in chance.sample(["flavor", "image", "size", "zone", "kind"], chance.randrange(6))}
        usages.append({"service": chance.choice(["instance", "volume.size", "network", "image"]),
                       "quantity": number(chance, [1, 1, 2, 4, 9], [0, 0, 1, 4, 12, 25]), "description": described})
    return {"rules": {"services": services}, "tenant": chance.choice([None, *TENANTS]), "usages": usages}


def price_by_cloudkitty(case):
    hashmap.hash_db_api.get_instance = lambda: tables
    tables = Tables(case["rules"])
    module = hashmap.HashMap(case["tenant"])
    prices = []
    for usage in case["usages"]:
        now = datetime.datetime(2026, 1, 1)
        point = dataframe.DataPoint("unit", usage["quantity"], 0, {}, usage["description"])
        frame = dataframe.DataFrame(start=now, end=now, usage={usage["service"]: [point]})
        try:
            [(_, rated)] = list(module.process(frame).iterpoints())
            prices.append(str(rated.price))
        except (decimal.InvalidOperation, TypeError) as error:
            prices.append(f"error: {type(error).__name__}")
    return prices


def same(theirs, ours):
    if theirs.startswith("error") or ours.startswith("error"):
        return theirs.startswith("error") and ours.startswith("error")
    return decimal.Decimal(theirs) == decimal.Decimal(ours)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--orzo", required=True)
    arguments.add_argument("--cases", type=int, default=10000)
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    cases = [make(seed) for seed in range(options.seed, options.seed + options.cases)]
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    orzo = subprocess.run([options.orzo], input=lines, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(orzo) == len(cases), f"{len(orzo)} answers to {len(cases)} cases"
    started, usages, nonzero, errors, different = time.process_time(), 0, 0, 0, 0
    for place, (case, ours) in enumerate(zip(cases, orzo)):
        theirs, ours = price_by_cloudkitty(case), json.loads(ours)
        usages += len(theirs)
        nonzero += sum(not price.startswith("error") and decimal.Decimal(price) != 0 for price in theirs)
        errors += sum(price.startswith("error") for price in theirs)
        pairs = list(zip(case["usages"], theirs, ours))
        wrong = [pair for pair in pairs if not same(*pair[1:])]
        if len(ours) != len(theirs) or wrong:
            different += 1
            if different <= SHOWN_MAX:
                print(f"seed {options.seed + place}: {wrong or ours}")
    print(f"{len(cases)} cases, {usages} usages ({nonzero} with a price, {errors} refused by both): {different} differences")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
