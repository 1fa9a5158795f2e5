#!/usr/bin/env python3
"""Shows each predicate of intended.py a difference that it is for, and others that it must not hide. `run` does so first.

    tests/differential/intended_test.py
"""

import copy
import pathlib
import sys
import unittest

import intended
from compare import Answer
from step import Step


def answer(body, status=200, **headers):
    return Answer(status, headers, "", body)


def refused(cause, status=400, **more):
    body = {"code": status, "title": "", "description": dict(more, cause=cause) if more else cause}
    return Answer(status, {}, str(body), body)


def asked(method, path, parameters=(), body=None, **more):
    return Step("made up", method, path, list(parameters), body, **more)


def no_question(step):
    raise AssertionError(f"asked {step.show()}")


BROKEN = Answer(0, {}, "no answer")
REFUSED = refused("Metrics cannot be aggregated", reason="No overlap", detail=[])


class Predicates(unittest.TestCase):
    def means(self, name, step, theirs, ours, ask=no_question):
        self.assertTrue(intended.INTENDED[name](step, theirs, ours, ask), f"{name} does not know {step.show()}")
        # A server that stops is never meant.
        for failed in (BROKEN, refused("", 500), refused("", 503)):
            self.assertFalse(intended.INTENDED[name](step, theirs, failed, ask), f"{name} hides {failed.show()}")

    def faults(self, name, step, theirs, ours, ask=no_question):
        self.assertFalse(intended.INTENDED[name](step, theirs, ours, ask), f"{name} hides {step.show()}: {ours.show()}")

    def test_every_predicate_is_told_of(self):
        text = pathlib.Path(intended.__file__).with_suffix(".md").read_text()
        for name in intended.INTENDED:
            self.assertIn(f"| `{name}` |", text)
            self.assertTrue(hasattr(self, "test_" + name.replace("-", "_")), name)

    def test_gnocchi_fails(self):
        step = asked("POST", "/v1/aggregates", body={"operations": ["metric", "x", "mean"]})
        self.means("gnocchi-fails", step, BROKEN, answer({"measures": {}}))
        self.means("gnocchi-fails", step, BROKEN, REFUSED)
        self.faults("gnocchi-fails", step, Answer(0, {}, "no answer in time"), answer({"measures": {}}))
        self.faults("gnocchi-fails", step, BROKEN, refused("something that Orzo never said", reason=""))
        self.faults("gnocchi-fails", step, BROKEN, refused("", 403))
        self.faults("gnocchi-fails", step, answer({"measures": {}}), REFUSED)

    def test_details_keep_order(self):
        step = asked("POST", "/v1/search/resource/t", [("details", "true"), ("sort", "n")], {})
        rows = [{"id": "a", "n": 1}, {"id": "b", "n": 2}]

        def ask(other):
            self.assertEqual(other.parameters, [("sort", "n")])
            return answer(rows), answer(rows)

        self.means("details-keep-order", step, answer(rows[::-1]), answer(rows), ask)
        self.faults("details-keep-order", step, answer(rows), answer(rows[::-1]), ask)
        self.faults("details-keep-order", step, answer(rows[::-1]), answer([rows[0], {"id": "b", "n": 3}]), ask)
        self.faults("details-keep-order", step, answer(rows[::-1]), answer(rows[:1]), ask)
        self.faults("details-keep-order", step, answer(rows[::-1], link="</x>"), answer(rows), ask)
        self.faults("details-keep-order", step, answer(rows), answer(rows, etag="x"), ask)
        self.faults("details-keep-order", step.copy(parameters=[("sort", "n")]), answer(rows[::-1]), answer(rows), ask)

    def test_link_without_body(self):
        step = asked("POST", "/v1/search/resource/t", [("limit", 1)], {"=": {"a": 1}})
        theirs = answer([{"id": "a"}], link='</v1/search/resource/t?%3D=a&limit=1&marker=a>; rel="next"')
        self.means("link-without-body", step, theirs, answer([{"id": "a"}], link='</v1/search/resource/t?limit=1&marker=a>; rel="next"'))
        self.faults("link-without-body", step, theirs, answer([{"id": "a"}], link='</v1/search/resource/t?limit=1&marker=b>; rel="next"'))
        self.faults("link-without-body", step, theirs, answer([{"id": "b"}], link='</v1/search/resource/t?limit=1&marker=a>; rel="next"'))
        self.faults("link-without-body", step, theirs, answer([{"id": "a"}]))

    def test_pages_lose_nothing(self):
        step = asked("GET", "/v1/resource/t1", [("sort", "n"), ("marker", "b"), ("limit", 2)], user="u1")
        rows = [{"id": "a", "n": 1}, {"id": "b", "n": 2}, {"id": "c", "n": 3}, {"id": "d", "n": None}, {"id": "e", "n": None}]

        def ask(other):
            self.assertEqual(other.parameters, [("sort", "n")])
            return answer(rows), answer(rows)

        self.means("pages-lose-nothing", step, answer(rows[2:3]), answer(rows[2:4]), ask)
        self.faults("pages-lose-nothing", step, answer(rows[2:4]), answer(rows[2:3]), ask)
        self.faults("pages-lose-nothing", step, answer(rows[2:3]), answer(rows[3:5]), ask)
        self.faults("pages-lose-nothing", step, answer(rows[2:3]), answer(rows[2:4][::-1]), ask)
        self.faults("pages-lose-nothing", step, answer(rows[2:3]), answer(rows[2:4]), lambda _: (answer(rows), answer(rows[::-1])))
        self.faults("pages-lose-nothing", step, answer(rows[2:3]), answer(rows[2:4]), lambda _: (answer(rows[:3]), answer(rows[:3])))
        self.faults("pages-lose-nothing", step.copy(parameters=[("sort", "n"), ("limit", 2)]), answer(rows[:1]), answer(rows[:2]), ask)

    def test_history_loses_no_resource(self):
        step = asked("POST", "/v1/aggregates", [("use_history", "true"), ("groupby", "project_id")], {"resource_type": "t", "search": {}, "operations": []})

        def group(key, *values):
            return {"group": key, "measures": {"measures": {"aggregated": [["t1", 60.0, value] for value in values]}}}

        alone = [group({"project_id": "p1", "original_resource_id": "a"}, 1.0), group({"project_id": "p1", "original_resource_id": "b"}, 2.0),
                 group({"project_id": "p2", "original_resource_id": "c"}, 5.0)]
        members = [{"id": "a", "project_id": "p1"}, {"id": "b", "project_id": "p1"}, {"id": "c", "project_id": "p2"}]

        def ask(other):
            rows = members if other.path == "/v1/search/resource/t" else alone
            return answer(rows), answer(copy.deepcopy(rows))

        one, two = {"project_id": "p1"}, {"project_id": "p2"}
        right = answer([group(one, 3.0), group(two, 5.0)])
        self.means("history-loses-no-resource", step, answer([group(one, 1.0), group(two, 5.0)]), right, ask)
        self.means("history-loses-no-resource", step, answer([group(two, 5.0)]), right, ask)
        self.faults("history-loses-no-resource", step, answer([group(one, 1.0), group(two, 4.0)]), right, ask)
        self.faults("history-loses-no-resource", step, answer([group(one, 1.0)]), right, ask)
        self.faults("history-loses-no-resource", step, answer([group(one, 3.0), group(two, 5.0)]), answer([group(one, 1.0), group(two, 5.0)]), ask)
        self.faults("history-loses-no-resource", step, answer([group(one, 1.0), group(two, 5.0)]), answer([group(two, 5.0), group(one, 3.5)]), ask)
        self.faults("history-loses-no-resource", step, answer([group(two, 5.0), group(one, 1.0)]), right, ask)
        by_id = step.copy(parameters=step.parameters + [("groupby", "id")])
        self.faults("history-loses-no-resource", by_id, answer([group(one, 1.0)]), right, ask)

        # One that Gnocchi lost may be wrong: by itself both must refuse it, in Orzo's words.
        wrong, other = ({"code": 400, "title": "Bad Request", "description": {"cause": cause}} for cause in ("Granularities", "Operations"))
        nothing = {"code": 404, "title": "Not Found", "description": "Metric ['cpu'] does not exist"}
        step = step.copy(body=dict(step.body, operations=["metric", "cpu", "mean"]))

        def refuse(cause):
            return lambda other: (answer(members), answer(members)) if other.path.startswith("/v1/search") else (answer(cause, 400), answer(cause, 400))

        self.means("history-loses-no-resource", step, answer(nothing, 404), answer(wrong, 400), refuse(wrong))
        self.means("history-loses-no-resource", step, answer([group(two, 5.0)]), answer(wrong, 400), refuse(wrong))
        self.faults("history-loses-no-resource", step, answer(nothing, 404), answer(wrong, 400), refuse(other))
        self.faults("history-loses-no-resource", step, answer(dict(nothing, description="No such thing"), 404), answer(wrong, 400), refuse(wrong))
        self.faults("history-loses-no-resource", step, answer(nothing, 404), answer(wrong, 400), ask)

    def test_one_of_several(self):
        step = asked("POST", "/v1/aggregates", [], {"resource_type": "t", "search": {}, "operations": ["+", ["metric", "c*", "max"], 1]})

        def sums(value):
            return {"measures": {"aggregated": [["t1", 60.0, value]]}}

        def ask(other):
            operations = other.body["operations"]
            if operations[0] == "metric":
                found = {"measures": {"r": {name: {"max": [["t1", 60.0, value]]} for name, value in (("ca", 1.0), ("cb", 2.0))}}}
                return answer(found), answer(found)
            found = sums({"ca": 2.0, "cb": 3.0}[operations[1][1]])
            return answer(found), answer(copy.deepcopy(found))

        self.means("one-of-several", step, answer(sums(3.0)), answer(sums(2.0)), ask)
        self.faults("one-of-several", step, answer(sums(3.0)), answer(sums(4.0)), ask)
        self.faults("one-of-several", step, answer(sums(4.0)), answer(sums(2.0)), ask)
        # Times of the other metric, at which this one has nothing; a value there would be a fault.
        def beside(value, other):
            return {"measures": {"aggregated": [["t0", 60.0, other], ["t1", 60.0, value]]}}

        self.means("one-of-several", step, answer(beside(3.0, float("nan"))), answer(sums(2.0)), ask)
        self.faults("one-of-several", step, answer(beside(3.0, 0.0)), answer(sums(2.0)), ask)
        # Two patterns: each server has made its choice for both.
        two = step.copy(body=dict(step.body, operations=["eq", ["metric", "*", "max"], ["metric", "c*", "min"]]))

        def ask_two(other):
            operations = other.body["operations"]
            if operations[0] == "metric":
                found = {"measures": {"r": {name: {"max": [["t1", 60.0, 1.0]]} for name in ("ca", "cb")}}}
            else:
                found = sums(1.0 if operations[1][1] == operations[2][1] else 0.0)
            return answer(found), answer(copy.deepcopy(found))

        self.means("one-of-several", two, answer(sums(1.0)), answer(sums(0.0)), ask_two)
        self.faults("one-of-several", two, answer(sums(1.0)), answer(sums(2.0)), ask_two)
        # The same as text.
        text = step.copy(body=dict(step.body, operations="(+ (metric c* max) 1)"))
        self.means("one-of-several", text, answer(sums(3.0)), answer(sums(2.0)), ask)
        self.faults("one-of-several", text, answer(sums(3.0)), answer(sums(4.0)), ask)
        self.faults("one-of-several", step.copy(body=dict(step.body, operations="(+ (metric c* max) 1")), answer(sums(3.0)), answer(sums(2.0)), ask)
        # A list of one.
        listed = step.copy(body=dict(step.body, operations=["+", ["metric", ["c*", "max"]], 1]))
        self.means("one-of-several", listed, answer(sums(3.0)), answer(sums(2.0)), ask)
        self.faults("one-of-several", listed, answer(sums(3.0)), answer(sums(4.0)), ask)
        # Each group has made its own choice.
        def groups(first, second):
            return [{"group": {"id": name}, "measures": sums(value)} for name, value in (("a", first), ("b", second))]

        def ask_groups(other):
            found, same = ask(other)
            if other.body["operations"][0] == "metric":
                return found, same
            value = found.body["measures"]["aggregated"][0][2]
            return answer(groups(value, value)), answer(groups(value, value))

        self.means("one-of-several", step, answer(groups(3.0, 2.0)), answer(groups(2.0, 2.0)), ask_groups)
        self.faults("one-of-several", step, answer(groups(3.0, 2.0)), answer(groups(2.0, 4.0)), ask_groups)
        self.faults("one-of-several", step, answer(groups(3.0, 2.0)), answer(groups(3.0, 2.0)[:1]), ask_groups)
        named = step.copy(body=dict(step.body, operations=["+", ["metric", "ca", "max"], 1]))
        self.faults("one-of-several", named, answer(sums(3.0)), answer(sums(2.0)), ask)

    def test_unknown_resources_first(self):
        step = asked("POST", "/v1/batch/resources/metrics/measures", [("create_metrics", "true")], {"vm": {"cpu": []}})
        theirs = refused("No archive policy name specified and no archive policy rule found matching the metric name cpu")
        self.means("unknown-resources-first", step, theirs, refused("Unknown resources", detail=[{"original_resource_id": "vm"}]))
        self.faults("unknown-resources-first", step, theirs, refused("Unknown resources", detail=[{"original_resource_id": "another"}]))
        self.faults("unknown-resources-first", step, theirs, refused("Unknown metrics"))
        self.faults("unknown-resources-first", step, refused("Unknown metrics"), refused("Unknown resources", detail=[{"original_resource_id": "vm"}]))

    def test_reaggregation_refused_at_once(self):
        step = asked("GET", "/v1/aggregation/metric", [("aggregation", "last")])
        ours = refused("Argument value error", detail="reaggregation", reason="Metrics cannot be aggregated by 'last'")
        self.means("reaggregation-refused-at-once", step, BROKEN, ours)
        self.means("reaggregation-refused-at-once", step, answer([]), ours)
        self.faults("reaggregation-refused-at-once", step, answer([]), REFUSED)
        self.faults("reaggregation-refused-at-once", asked("GET", "/v1/aggregation/metric", [("aggregation", "mean")]), answer([]),
                    refused("Argument value error", detail="reaggregation", reason="Metrics cannot be aggregated by 'mean'"))

    def test_aggregation_named(self):
        step = asked("POST", "/v1/search/metric", [("metric_id", "{m:a}"), ("aggregation", "last")], {"=": 1})
        theirs = refused("Metric does not exist", detail={"metric": {"id": "{m:a}"}})
        self.means("aggregation-named", step, theirs, refused("Aggregation does not exist", detail={"metric": "{m:a}", "aggregation_method": "last"}))
        self.faults("aggregation-named", step, theirs, refused("Aggregation does not exist", detail={"metric": "{m:b}", "aggregation_method": "last"}))
        self.faults("aggregation-named", step, theirs, refused("Aggregation does not exist", detail={"metric": "{m:a}", "aggregation_method": "max"}))
        self.faults("aggregation-named", step, answer({}), refused("Aggregation does not exist", detail={"metric": "{m:a}", "aggregation_method": "last"}))

    def test_answered_once(self):
        step = asked("POST", "/v1/aggregates", [], {"operations": ["metric", ["*", "mean"], ["c*", "mean"]], "resource_type": "t", "search": {}})
        once = [["t1", 60.0, 1.0], ["t2", 60.0, 2.0]]
        theirs = answer({"measures": {"r": {"cpu": {"mean": once + once}}}})
        self.means("answered-once", step, theirs, answer({"measures": {"r": {"cpu": {"mean": once}}}}))
        self.faults("answered-once", step, theirs, answer({"measures": {"r": {"cpu": {"mean": once[:1]}}}}))
        self.faults("answered-once", step, theirs, answer({"measures": {"r": {"cpu": {"mean": [["t1", 60.0, 1.0], ["t2", 60.0, 3.0]]}}}}))
        self.faults("answered-once", asked("POST", "/v1/aggregates", [], {"operations": step.body["operations"]}), theirs,
                    answer({"measures": {"r": {"cpu": {"mean": once}}}}))

    def test_no_measures_no_values(self):
        step = asked("POST", "/v1/search/metric", [("metric_id", "{m:a}")], {"=": 1})
        theirs = refused("Metric does not exist", detail={"metric": {"id": "{m:a}"}})
        self.means("no-measures-no-values", step, theirs, answer({"{m:a}": []}), lambda _: (answer([]), answer([])))
        full = answer([["t1", 60.0, 1.0]])
        self.faults("no-measures-no-values", step, theirs, answer({"{m:a}": []}), lambda _: (full, full))
        self.faults("no-measures-no-values", step, theirs, answer({"{m:a}": []}), lambda _: (full, answer([])))
        self.faults("no-measures-no-values", step, theirs, answer({"{m:a}": [["t1", 60.0, 1.0]]}), lambda _: (answer([]), answer([])))
        self.faults("no-measures-no-values", step, theirs, answer({}), lambda _: (answer([]), answer([])))

    def test_older_than_kept(self):
        step = asked("GET", "/v1/aggregation/metric", [("stop", "t4"), ("groupby", "id")])
        old, kept, new, other = ["t1", 1.0, 1.0], ["t3", 1.0, 3.0], ["t5", 1.0, 5.0], ["t0", 60.0, 4.0]

        def group(*rows):
            return [{"group": {"id": "r"}, "measures": list(rows)}]

        def ask(other_step):
            self.assertEqual(other_step.parameters, [("groupby", "id")])
            return answer(group(other, kept, new)), answer(group(other, kept, new))

        self.means("older-than-kept", step, answer(group(other, old, kept)), answer(group(other, kept)), ask)
        self.faults("older-than-kept", step, answer(group(other, old, kept)), answer(group(other)), ask)
        self.faults("older-than-kept", step, answer(group(other, kept)), answer(group(other, old, kept)), ask)
        self.faults("older-than-kept", step, answer(group(other, kept, ["t4", 1.0, 2.0])), answer(group(other, kept)), ask)
        self.faults("older-than-kept", step, answer(group(other, old, kept)), answer(group(kept)), ask)
        self.faults("older-than-kept", step, answer(group(other, old, kept)), answer(group(other, kept)),
                    lambda _: (answer(group(other, kept, new)), answer(group(other, new))))
        self.faults("older-than-kept", step.copy(parameters=[]), answer(group(other, old, kept)), answer(group(other, kept)))

    def test_truths_are_numbers(self):
        less = ["<", ["metric", "x", "mean"], 3]
        step = asked("POST", "/v1/aggregates", body={"operations": ["aggregate", "rate:min", less]})
        theirs, ours = answer({"measures": [["t1", 60.0, 1.0]]}), answer({"measures": [["t1", 60.0, -1.0]]})

        def ask(other):
            self.assertEqual(other.body["operations"], ["aggregate", "rate:min", ["*", less, 1.0]])
            return copy.deepcopy(ours), copy.deepcopy(ours)

        self.means("truths-are-numbers", step, theirs, ours, ask)
        self.faults("truths-are-numbers", step, theirs, answer({"measures": [["t1", 60.0, 2.0]]}), ask)
        self.faults("truths-are-numbers", step, theirs, ours, lambda _: (theirs, ours))
        self.faults("truths-are-numbers", step, theirs, ours, lambda _: (ours, refused("", 404)))
        self.faults("truths-are-numbers", step.copy(body={"operations": ["aggregate", "rate:min", ["+", ["metric", "x", "mean"], 3]]}), theirs, ours)
        self.assertEqual(intended.as_numbers("(aggregate rate:min (< (metric x mean) 3))"), "(aggregate rate:min (* (< (metric x mean) 3) 1.0))")

    def test_turns_of_large_numbers(self):
        listed = asked("POST", "/v1/aggregates", body={"operations": ["tan", ["metric", "x", "mean"]]})
        text = asked("POST", "/v1/aggregates", body={"operations": "(tan (metric x mean))"})

        def rows(small, large):
            return answer({"measures": {"x": [["t1", 60.0, small], ["t2", 60.0, large]]}})

        def ask(other):
            self.assertIn(other.body["operations"], (["abs", ["metric", "x", "mean"]], "(abs (metric x mean))",
                                                     ["+", ["metric", "x", "mean"], 0.5], "(+ (metric x mean) 0.5)"))
            return rows(1.0, 7e14), rows(1.0, 7e14)

        for step in (listed, text, listed.copy(body={"operations": ["mod", ["metric", "x", "mean"], 0.5]}),
                     listed.copy(body={"operations": "(mod (metric x mean) 0.5)"})):
            self.means("turns-of-large-numbers", step, rows(1.5, -0.6), rows(1.5, 0.4), ask)
            self.faults("turns-of-large-numbers", step, rows(1.5, -0.6), rows(1.4, 0.4), ask)
            self.faults("turns-of-large-numbers", step, rows(1.5, -0.6), answer({"measures": {"x": [["t1", 60.0, 1.5]]}}), ask)
            self.faults("turns-of-large-numbers", step, rows(1.5, -0.6), rows(1.5, 0.4), lambda _: (rows(1.0, 7e14), rows(1.0, 6e14)))
            self.faults("turns-of-large-numbers", step, rows(1.5, -0.6), rows(1.5, 0.4), lambda _: (rows(1.0, 70.0), rows(1.0, 70.0)))
        self.faults("turns-of-large-numbers", listed.copy(body={"operations": ["tan", ["sin", ["metric", "x", "mean"]]]}), rows(1.5, -0.6), rows(1.5, 0.4), ask)
        by_metric = listed.copy(body={"operations": ["mod", ["metric", "x", "mean"], ["metric", "y", "mean"]]})
        self.faults("turns-of-large-numbers", by_metric, rows(1.5, -0.6), rows(1.5, 0.4), ask)
        self.faults("turns-of-large-numbers", listed.copy(body={"operations": ["floor", ["metric", "x", "mean"]]}), rows(1.5, -0.6), rows(1.5, 0.4), ask)

    def test_open_names_read_everything(self):
        step = asked("GET", "/v1/resource/generic/vm-1", user="somebody-else")
        row = {"original_resource_id": "vm-1", "creator": "u1"}

        def ask(other):
            self.assertEqual(other.user, "u1")
            return answer(row), answer(dict(row))

        self.means("open-names-read-everything", step, refused("", 404), answer(row), ask)
        self.means("open-names-read-everything", asked("GET", "/v1/metric/x", user="somebody-else"), refused("", 403), answer(row), ask)
        self.faults("open-names-read-everything", step, refused("", 404), answer(dict(row, original_resource_id="vm-2")), ask)
        self.faults("open-names-read-everything", step, refused("", 403), answer(dict(row, more=1)), ask)
        self.faults("open-names-read-everything", step.copy(method="PATCH"), refused("", 403), answer(row), ask)
        self.faults("open-names-read-everything", step.copy(user="u2"), refused("", 403), answer(row), ask)

    def test_lifespan_by_its_name(self):
        step = asked("PATCH", "/v1/resource/t/a", body={"ended_at": "2020-01-01"})
        ours = refused("Start timestamp cannot be after end timestamp")
        self.means("lifespan-by-its-name", step, refused("Value 2020-01-01 for attribute ended_at is invalid"), ours)
        self.faults("lifespan-by-its-name", step, answer({}), ours)
        self.faults("lifespan-by-its-name", asked("PATCH", "/v1/resource/t/a", body={"a": 1}), refused("x"), ours)


if __name__ == "__main__":
    if "--quiet" in sys.argv:
        sys.argv.remove("--quiet")
        result = unittest.TextTestRunner(verbosity=0, stream=open("/dev/null", "w")).run(unittest.defaultTestLoader.loadTestsFromTestCase(Predicates))
        for _, text in result.failures + result.errors:
            print(text, file=sys.stderr)
        sys.exit(not result.wasSuccessful())
    unittest.main()
