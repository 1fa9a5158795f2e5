"""Random PromQL over the worlds of data.py: every selector, operator, aggregation and function, mostly well-formed.

`topk`, `bottomk` and `limitk` may choose among equals as they like, so they stand at the top of a query, where the choice
can be judged, or directly below an aggregation that does not see it.
"""

import data

NAMES = [*data.GAUGES, *data.COUNTERS, "up", "build_info", *[f"{name}_{part}" for name in data.HISTOGRAMS for part in ("count", "sum")]]
LABELS = ["job", "instance", "code", "zone", "version"]
VALUES = {
    "job": ["api", "db", "web", "none", ""],
    "instance": ["a:1", "b:1", "c:2", "d", ""],
    "code": ["200", "404", "500", ""],
    "zone": ["north", "south", "ö/1 \\\"x\\\"", ""],
    "version": ["1.0", "1.1", "2.0-rc.1"],
}
PATTERNS = {
    "job": ["a.*", "api|db", ".+", ".*", "(?i)API", "[^w]+", "d?b?"],
    "instance": [".*:1", "[ab]:1", "a", ".:\\\\d", ".+"],
    "code": ["[45]..", "2.*", "200|", ".*0.*"],
    "zone": ["n.*", "", ".+", "ö.*"],
    "version": ["1\\\\..*", ".*rc.*"],
}
NUMBERS = ["0", "1", "2", "3", "0.5", "-1", "100", "1e3", "0x1F", "1_000", ".25", "NaN", "Inf", "-Inf", "1e-3", "5m", "1h30m", "2.5"]
DURATIONS = ["1m", "2m", "5m", "30s", "90s", "10m", "1m30s", "47s", "1h", "7m", "300"]
QUANTILES = ["0.5", "0.9", "0.99", "0", "1", "0.25", "0.123", "-0.5", "1.5", "NaN"]
OF_NUMBERS = """abs acos acosh asin asinh atan atanh ceil cos cosh deg exp floor ln log2 log10 rad sgn sin sinh sqrt tan
    tanh""".split()
CALENDAR = "minute hour day_of_week day_of_month day_of_year days_in_month month year".split()
OVER_TIME = """rate increase delta irate idelta deriv changes resets avg_over_time sum_over_time count_over_time
    min_over_time max_over_time last_over_time present_over_time stddev_over_time stdvar_over_time mad_over_time
    ts_of_min_over_time ts_of_max_over_time ts_of_last_over_time""".split()
AGGREGATIONS = "sum avg min max count group stddev stdvar".split()
# What is left of a choice among equals does not depend on the choice below these.
BLIND = ["sum", "count", "min", "max", "avg", "group"]
ARITHMETIC = ["+", "-", "*", "/", "%", "^", "atan2"]
COMPARISONS = ["==", "!=", "<", "<=", ">", ">="]
SETS = ["and", "or", "unless"]


class Grammar:
    def __init__(self, chance, base):
        self.chance, self.base = chance, base

    def query(self):
        """A whole query."""
        roll = self.chance.random()
        if roll < 0.05:
            return self.choice_among(self.vector(2))
        if roll < 0.08:
            return f"{self.chance.choice(['sort', 'sort_desc'])}({self.vector(2)})"
        if roll < 0.10:
            names = ", ".join(f'"{name}"' for name in self.chance.sample(LABELS, self.chance.choice([1, 2])))
            return f"{self.chance.choice(['sort_by_label', 'sort_by_label_desc'])}({self.vector(1)}, {names})"
        if roll < 0.15:
            return self.scalar(2)
        if roll < 0.17:
            return self.matrix(2)
        if roll < 0.21:
            return self.wrong()
        return self.vector(self.chance.choice([0, 1, 1, 2, 2, 2, 3, 3, 4]))

    def choice_among(self, inner):
        kind = self.chance.choice(["topk", "bottomk", "topk", "bottomk", "limitk", "limit_ratio"])
        parameter = self.chance.choice(["0.5", "-0.3", "1", "0.1", "2", "0"]) if kind == "limit_ratio" else self.chance.choice(["1", "2", "3", "5", "0", "2.7", "-1"])
        return f"{kind}{self.grouping()}({parameter}, {inner})" if self.chance.random() < 0.7 else f"{kind}({parameter}, {inner}){self.grouping()}"

    def grouping(self):
        roll = self.chance.random()
        if roll < 0.25:
            return ""
        labels = self.chance.sample(LABELS, self.chance.choice([0, 1, 1, 2, 3]))
        if self.chance.random() < 0.05:
            labels.append("__name__")
        return f" {'by' if roll < 0.75 else 'without'} ({', '.join(labels)}) "

    def vector(self, depth):
        if depth <= 0:
            return self.selector() + self.modifiers()
        roll = self.chance.random()
        if roll < 0.10:
            return self.selector() + self.modifiers()
        if roll < 0.32:
            return self.over_time(depth)
        if roll < 0.52:
            return self.aggregation(depth)
        if roll < 0.76:
            return self.binary(depth)
        return self.call(depth)

    def aggregation(self, depth):
        roll = self.chance.random()
        if roll < 0.08:
            chosen = self.choice_among(self.vector(depth - 1))
            # Which series `limitk` takes is the storage's to say: only their number is sure.
            blind = self.chance.choice(["count", "group"] if chosen.startswith("limitk") else BLIND)
            return f"{blind}({chosen})"
        inner = self.vector(depth - 1)
        if roll < 0.16:
            return f"quantile{self.grouping()}({self.chance.choice(QUANTILES)}, {inner})"
        if roll < 0.22:
            return f"count_values{self.grouping()}(\"{self.chance.choice(['value', 'job', 'v.1'])}\", {inner})"
        if roll < 0.25:
            return f"quantile{self.grouping()}({self.scalar(1)}, {inner})"
        name = self.chance.choice(AGGREGATIONS)
        return f"{name}{self.grouping()}({inner})" if self.chance.random() < 0.6 else f"{name}({inner}){self.grouping()}"

    def binary(self, depth):
        roll = self.chance.random()
        left_depth, right_depth = depth - 1, self.chance.randrange(depth)
        if roll < 0.2:
            number = self.scalar(1)
            operator = self.arithmetic_or_comparison(True)
            sides = [self.vector(left_depth), number]
            self.chance.shuffle(sides)
            return f"({sides[0]} {operator} {sides[1]})"
        if roll < 0.4:
            return f"({self.vector(left_depth)} {self.chance.choice(SETS)}{self.matching(False)} {self.vector(right_depth)})"
        if roll < 0.65:
            # Two of the same family, which often match.
            left = self.vector(left_depth)
            right = self.chance.choice([left, self.selector() + self.modifiers(), f"sum by (job, instance) ({self.vector(right_depth)})"])
            return f"({left} {self.arithmetic_or_comparison(True)}{self.matching(True)} {right})"
        if roll < 0.8:
            labels = self.chance.choice(["job, instance", "job", "instance"])
            how = self.chance.choice(["sum", "max", "avg", "min"])
            side = self.chance.choice(["group_left", "group_right"])
            include = self.chance.choice(["", "()", "(version)", "(zone, version)"])
            many, one = self.vector(left_depth), f"{how} by ({labels}{', version' if 'version' in include else ''}) ({self.vector(right_depth)})"
            if self.chance.random() < 0.4:
                one, labels = "build_info", "job, instance"
            left, right = (many, one) if side == "group_left" else (one, many)
            return f"({left} {self.arithmetic_or_comparison(True)} on ({labels}) {side}{include} {right})"
        return f"({self.vector(left_depth)} {self.arithmetic_or_comparison(True)}{self.matching(True)} {self.vector(right_depth)})"

    def arithmetic_or_comparison(self, may_filter):
        if self.chance.random() < 0.6:
            return self.chance.choice(ARITHMETIC)
        operator = self.chance.choice(COMPARISONS)
        return operator if may_filter and self.chance.random() < 0.6 else f"{operator} bool"

    def matching(self, may_group):
        roll = self.chance.random()
        if roll < 0.4:
            return ""
        text = f" {'on' if roll < 0.75 else 'ignoring'} ({', '.join(self.chance.sample(LABELS, self.chance.choice([0, 1, 2, 2])))})"
        if may_group and self.chance.random() < 0.3:
            include = ", ".join(self.chance.sample(LABELS, self.chance.choice([0, 0, 1])))
            text += f" {self.chance.choice(['group_left', 'group_right'])} ({include})"
        return text

    def call(self, depth):
        inner = lambda: self.vector(depth - 1)
        roll = self.chance.random()
        if roll < 0.22:
            return f"{self.chance.choice(OF_NUMBERS)}({inner()})"
        if roll < 0.27:
            return f"{self.chance.choice(CALENDAR)}({inner() if self.chance.random() < 0.7 else ''})"
        if roll < 0.33:
            return f"histogram_quantile({self.chance.choice(QUANTILES)}, {self.buckets(depth)})"
        if roll < 0.37:
            bounds = [self.chance.choice(["0", "0.2", "1", "5", "-1", "100", "-Inf", "Inf", "NaN", "7.5"]) for _ in range(2)]
            return f"histogram_fraction({bounds[0]}, {bounds[1]}, {self.buckets(depth)})"
        if roll < 0.42:
            return f"clamp({inner()}, {self.number()}, {self.number()})"
        if roll < 0.46:
            return f"clamp_{self.chance.choice(['min', 'max'])}({inner()}, {self.scalar(1)})"
        if roll < 0.50:
            return f"round({inner()}{self.chance.choice(['', ', 0.1', ', 5', ', 0', ', 1e-3', ', -2', ', 100'])})"
        if roll < 0.56:
            return self.label_replace(inner())
        if roll < 0.60:
            sources = ", ".join(f'"{label}"' for label in self.chance.sample(LABELS, self.chance.randrange(4)))
            return f"label_join({inner()}, \"{self.chance.choice(['joined', 'job', 'zone', 'new.label'])}\", \"{self.chance.choice(['-', '', '/', ', '])}\"{', ' + sources if sources else ''})"
        if roll < 0.65:
            return f"absent({self.chance.choice([inner(), self.selector() + self.modifiers()])})"
        if roll < 0.69:
            return f"absent_over_time({self.matrix(depth - 1)})"
        if roll < 0.74:
            return f"timestamp({inner()})"
        if roll < 0.79:
            return f"vector({self.scalar(depth - 1)})"
        if roll < 0.86:
            return f"-{inner()}"
        if roll < 0.88:
            return f"+{inner()}"
        if roll < 0.92:
            return f"({inner()})"
        if roll < 0.94:
            return f"{self.chance.choice(['sort', 'sort_desc'])}({inner()})"
        if roll < 0.96:
            return f"histogram_{self.chance.choice(['avg', 'count', 'sum', 'stddev', 'stdvar'])}({inner()})"
        return f"{self.chance.choice(AGGREGATIONS)}({inner()})"

    def label_replace(self, inner):
        to = self.chance.choice(["new", "job", "zone", "instance", "utf-8 name"])
        replacement = self.chance.choice(["$1", "x-$1", "${1}y", "$1$2", "fixed", "", "$0", "$$", "$name"])
        pattern = self.chance.choice(["(.*)", "(a)(.*)", "(.*):(.*)", "a.*", "(?P<name>.).*", "", "(b|c).+", ".*"])
        return f'label_replace({inner}, "{to}", "{replacement}", "{self.chance.choice(LABELS + ["__name__"])}", "{pattern}")'

    def buckets(self, depth):
        name = self.chance.choice(data.HISTOGRAMS)
        selector = f"{name}_bucket{self.braces()}"
        roll = self.chance.random()
        if roll < 0.3:
            return selector + self.modifiers()
        inner = f"{self.chance.choice(['rate', 'increase', 'delta', 'last_over_time', 'irate'])}({selector}[{self.chance.choice(DURATIONS)}]{self.modifiers()})"
        if roll < 0.6:
            return inner
        if roll < 0.9:
            return f"sum by (le{self.chance.choice(['', ', job', ', instance'])}) ({inner})"
        return self.vector(min(1, depth - 1))

    def over_time(self, depth):
        roll = self.chance.random()
        matrix = self.matrix(depth - 1)
        if roll < 0.25:
            # What rates are for.
            counter = self.chance.choice(data.COUNTERS + ["latency_seconds_count", "size_bytes_sum"])
            return f"{self.chance.choice(['rate', 'increase', 'irate', 'resets', 'changes'])}({counter}{self.braces(counter)}[{self.chance.choice(DURATIONS)}]{self.modifiers()})"
        if roll < 0.35:
            return f"quantile_over_time({self.chance.choice([*QUANTILES, self.scalar(1)])}, {matrix})"
        if roll < 0.42:
            return f"predict_linear({matrix}, {self.chance.choice(['60', '3600', '-300', '0', '1h', self.scalar(1)])})"
        if roll < 0.47:
            return f"double_exponential_smoothing({matrix}, {self.chance.choice(['0.5', '0.1', '0.9', '1.5'])}, {self.chance.choice(['0.5', '0.2', '0.99', '0'])})"
        return f"{self.chance.choice(OVER_TIME)}({matrix})"

    def matrix(self, depth):
        if depth <= 0 or self.chance.random() < 0.7:
            return f"{self.selector()}[{self.chance.choice(DURATIONS)}]{self.modifiers()}"
        step = self.chance.choice(["", "1m", "30s", "77s", "5m"])
        inner = self.vector(depth - 1) if self.chance.random() < 0.9 else self.scalar(depth - 1)
        return f"({inner})[{self.chance.choice(['5m', '10m', '30m', '3m', '1h'])}:{step}]{self.modifiers()}"

    def selector(self):
        roll = self.chance.random()
        if roll < 0.03:
            return self.chance.choice(['{"disk.read bytes"}', '{"disk.read bytes", "dc.name"="west"}', '{"disk.read bytes", job!="x"}'])
        if roll < 0.06:
            return self.chance.choice(['{job="api", code=~".+"}', '{__name__=~"requests_.*"}', '{__name__=~"up|build_info", instance="a:1"}', '{zone!=""}', '{__name__="up"}', '{__name__!~"latency.*|size.*", job="db"}'])
        name = self.chance.choice(NAMES)
        return name + self.braces(name)

    def braces(self, name=""):
        if self.chance.random() < 0.5:
            return ""
        labels = list(LABELS)
        if self.chance.random() < 0.85:
            # Those that the metric has.
            labels = ["job", "instance"]
            labels += ["code"] if name in data.COUNTERS else ["zone"] if name in data.GAUGES else ["version"] if name == "build_info" else []
        return "{" + ", ".join(self.matcher(labels) for _ in range(self.chance.choice([0, 1, 1, 1, 2]))) + "}"

    def matcher(self, labels):
        label = self.chance.choice(labels)
        if self.chance.random() < 0.55:
            return f'{label}{self.chance.choice(["=", "!="])}"{self.chance.choice(VALUES[label])}"'
        return f'{label}{self.chance.choice(["=~", "!~"])}"{self.chance.choice(PATTERNS[label])}"'

    def modifiers(self):
        roll, text = self.chance.random(), ""
        if roll < 0.75:
            return ""
        if roll < 0.9:
            return f" offset {self.chance.choice(['', '-'])}{self.chance.choice(DURATIONS)}"
        at = self.chance.choice([str(self.base + self.chance.randrange(data.SPAN)), f"{self.base + self.chance.uniform(0, data.SPAN):.3f}", "start()", "end()"])
        text = f" @ {at}"
        return text + (f" offset {self.chance.choice(DURATIONS)}" if roll > 0.97 else "")

    def number(self):
        return self.chance.choice(NUMBERS)

    def scalar(self, depth):
        roll = self.chance.random()
        if depth <= 0 or roll < 0.45:
            return self.number()
        if roll < 0.55:
            return self.chance.choice(["time()", "pi()", "-time()"])
        if roll < 0.8:
            return f"scalar({self.vector(depth - 1)})"
        if roll < 0.9:
            return f"({self.scalar(depth - 1)} {self.chance.choice(COMPARISONS)} bool {self.scalar(depth - 1)})"
        return f"({self.scalar(depth - 1)} {self.chance.choice(ARITHMETIC)} {self.scalar(depth - 1)})"

    def wrong(self):
        """Something that is probably no query: one that is broken, or of a wrong type."""
        query = self.vector(2)
        roll = self.chance.random()
        if roll < 0.3 and len(query) > 2:
            at = self.chance.randrange(len(query))
            return query[:at] + self.chance.choice(["", "", "(", ")", "}", "[", "\"", ",", " by ", "@", "%%", "$", "é"]) + query[at + 1 :]
        vector, scalar, matrix = self.vector(1), self.scalar(1), self.matrix(1)
        return self.chance.choice([
            f"rate({vector})", f"abs({matrix})", f"sum({scalar})", f"topk({vector}, {vector})", f"{matrix} + {vector}",
            f"nothing({vector})", f"({scalar} == {scalar})", f"{vector} and {scalar}", f"{scalar} or {vector}",
            f"{vector} == on (job) group_left bool {vector}", f"{vector} + bool {vector}", f"histogram_quantile({vector}, {scalar})",
            f"count_values({scalar}, {vector})", f"quantile(\"x\", {vector})", f"label_replace({vector}, \"a\", \"b\", \"c\")",
            f"label_replace({vector}, \"a\", \"b\", \"c\", \"(\")", f"label_replace({vector}, \"\", \"b\", \"job\", \".*\")",
            f"{vector} and on (job) group_left () {vector}", f"sum by (job, ) ({vector})", f"sum by ({vector}) (up)", "{}", '{job=""}', '{job=~".*"}',
            "up{job=~\"(\"}", "up[5m] offset", "up offset 5m offset 5m", "up @ start", "-\"text\"", '"text"', "", " ", "# nothing",
            f"{vector} # a comment", f"up{{job=\"api\"}}[5m:1m][5m:]", "up[0m]", "up[5m:0s]", "up[-5m]", f"clamp({vector}, 5)",
            f"scalar({scalar})", f"vector({vector})", f"time({scalar})", f"({matrix})", f"-{matrix}", f"sum({matrix})",
            f"group_left({vector})", "up{job}", "up{job='api'", "1 2", "up up", "sum", "sum()", "rate(up[5m]", "0x", "1e", "5x", "up[5x]",
            f"absent({scalar})", f"round({vector}, {vector})", f"predict_linear({matrix})", "up{__name__=\"x\"}", "up == 1 == bool 1", "foo.bar", "1 unless 2",
            f"sort({scalar})", f"limitk(NaN, {vector})", f"limit_ratio(NaN, {vector})", f"topk(NaN, {vector})", "topk(1e20, up)", "bottomk(-Inf, up)",
        ])
