#!/usr/bin/env python3
"""Runs Gnocchi's HTTP tests (gabbi's YAML files, as its wheel brings them) against a running server.

    gabbits.py HOST:PORT FOLDER... [--prefix /gnocchi] [--before COMMAND] [--only NAME,NAME] [--json FILE]

Each file is a story of its own and supposes an empty server: COMMAND is run before each of them and must leave one.
The files' fixtures, which would start Gnocchi itself, are left out. Prints each test that fails, one line a file, and a
TOTAL line; exits with 1 if anything failed.
"""
import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import time
import unittest
import warnings

import yaml
from gabbi import handlers, suitemaker, utils

# The live files ask the environment who they are.
os.environ.setdefault("GNOCCHI_SERVICE_TOKEN", "")
os.environ.setdefault("GNOCCHI_AUTHORIZATION", "basic YWRtaW46")
MESSAGE_LINES_MAX = 12


class NotANumber:
    """What `!AssertNAN` in a file means: equal to NaN, which is not equal to itself."""

    def __eq__(self, other):
        return isinstance(other, float) and math.isnan(other)

    def __repr__(self):
        return "NaN"


for loader in (yaml.SafeLoader, yaml.FullLoader, yaml.UnsafeLoader, yaml.Loader):
    loader.add_constructor("!AssertNAN", lambda *_: NotANumber())


class Outcomes(unittest.TestResult):
    """One (name, verdict, message) for each test."""

    def __init__(self):
        super().__init__()
        self.rows = {}

    def note(self, test, verdict, error=None):
        name = getattr(test, "test_data", {}).get("name", str(test))
        # An expected failure is told first, then counted as a success as well.
        if self.rows.get(name, ("", ""))[0] != "XFAIL":
            self.rows[name] = (verdict, str(error[1]) if error else "")

    def addSuccess(self, test):
        self.note(test, "PASS")

    def addFailure(self, test, error):
        self.note(test, "FAIL", error)

    def addError(self, test, error):
        self.note(test, "ERROR", error)

    def addSkip(self, test, reason):
        self.note(test, "SKIP")

    def addExpectedFailure(self, test, error):
        self.note(test, "XFAIL")

    def addUnexpectedSuccess(self, test):
        self.note(test, "XPASS")


def run(path, name, arguments):
    story = utils.load_yaml(yaml_file=str(path), safe=False)
    story.pop("fixtures", None)
    host, _, port = arguments.server.partition(":")
    suite = suitemaker.test_suite_from_dict(
        unittest.TestLoader(), name.replace("/", "_"), story, str(path.parent), host, int(port), None, None,
        prefix=arguments.prefix, handlers=[make() for make in handlers.RESPONSE_HANDLERS],
        test_loader_name="conformance")
    outcomes = Outcomes()
    suite.run(outcomes)
    return len(story["tests"]), outcomes.rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server")
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--prefix", default="")
    parser.add_argument("--before")
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    wanted = set(filter(None, arguments.only.split(",")))
    total, report = {"tests": 0}, {}
    for path in [path for folder in arguments.folders for path in sorted(folder.glob("*.yaml"))]:
        name = ("live/" if "live" in path.parts[-3] else "") + path.stem
        if wanted and name not in wanted:
            continue
        if arguments.before:
            subprocess.run(arguments.before, shell=True, check=True, stdout=subprocess.DEVNULL)
        started = time.monotonic()
        count, rows = run(path, name, arguments)
        total["tests"] += count
        counts = {}
        for test, (verdict, message) in rows.items():
            counts[verdict] = counts.get(verdict, 0) + 1
            total[verdict] = total.get(verdict, 0) + 1
            if verdict in ("FAIL", "ERROR"):
                print(f"  {verdict} {name}: {test}")
                print("\n".join("      " + line[:300] for line in message.splitlines()[:MESSAGE_LINES_MAX]))
        report[name] = rows
        verdicts = " ".join(f"{verdict}={number}" for verdict, number in sorted(counts.items()))
        print(f"{name}: tests={count} {verdicts} ({time.monotonic() - started:.1f} s)", flush=True)
    print("TOTAL " + " ".join(f"{verdict}={number}" for verdict, number in sorted(total.items())))
    if arguments.json:
        arguments.json.write_text(json.dumps({"total": total, "files": report}, indent=1))
    sys.exit(1 if total.get("FAIL") or total.get("ERROR") or not total["tests"] else 0)


if __name__ == "__main__":
    main()
