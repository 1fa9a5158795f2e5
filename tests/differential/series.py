"""Random archive policies and random series: the numbers of a world."""

import datetime

GRANULARITIES = [1, 5, 7, 10, 60, 90, 300, 600, 3600, 7200, 86400]
METHODS = ["mean", "sum", "last", "max", "min", "std", "median", "first", "count"]
# 2024-02-28, so that a leap day, month ends and week boundaries are near.
BASE = 1709078400
# Seconds.
LONGER_THAN_ANY_SERIES = 400 * 86400


def spell_timespan(random, seconds):
    """The same timespan in one of the forms that the API takes."""
    forms = [seconds, float(seconds), str(seconds), f"{seconds}s", f"{seconds} seconds", str(datetime.timedelta(seconds=seconds))]
    if seconds % 60 == 0:
        forms += [f"{seconds // 60} minutes", f"{seconds // 60}m", f"{seconds // 60}min"]
    if seconds % 3600 == 0:
        forms += [f"{seconds // 3600} hours", f"{seconds // 3600}h", f"{seconds // 3600}:00:00"]
    if seconds % 86400 == 0:
        forms += [f"{seconds // 86400} days", f"{seconds // 86400}d"]
    return random.choice(forms)


def method(random):
    chosen = random.random()
    if chosen < 0.62:
        return random.choice(METHODS)
    if chosen < 0.78:
        return f"{random.choice([1, 5, 10, 25, 50, 75, 90, 95, 99])}pct"
    return "rate:" + (random.choice(METHODS) if random.random() < 0.8 else f"{random.randint(1, 99)}pct")


class Policy:
    """One archive policy: the body that makes it, and what a query must know of it."""

    def __init__(self, random, name, granularities=None):
        self.name = name
        self.granularities = granularities or random.sample(GRANULARITIES, random.choice([1, 1, 2, 2, 3]))
        # The largest is a multiple of the others: else Gnocchi loses points of buckets that lie across (see intended.md).
        largest = max(self.granularities)
        self.granularities = [one for one in self.granularities if abs(round(largest / one) * one - largest) < 1e-9]
        # Long enough for most series, sometimes so short that retention cuts.
        self.short = random.random() < 0.2
        definition = []
        for granularity in self.granularities:
            points = random.randint(3, 30) if self.short else random.choice([500, 2000, 10000])
            form = random.random()
            if form < 0.4:
                entry = {"granularity": spell_timespan(random, granularity), "points": points}
            elif form < 0.7:
                entry = {"granularity": spell_timespan(random, granularity), "timespan": spell_timespan(random, granularity * points)}
            elif form < 0.8:
                entry = {"points": points, "timespan": spell_timespan(random, granularity * points)}
            elif form < 0.9 and not self.short:
                entry = {"granularity": granularity}
            else:
                entry = {"granularity": granularity, "points": points, "timespan": granularity * points}
            definition.append(entry)
        self.body = {"name": name, "definition": definition}
        self.back_window = random.choice([0, 0, 0, 1, 2])
        if self.back_window or random.random() < 0.5:
            self.body["back_window"] = self.back_window
        form = random.random()
        if form < 0.2:
            self.methods = ["mean", "min", "max", "sum", "std", "count"]
        elif form < 0.3:
            self.body["aggregation_methods"] = ["-mean", "+last", "-std"]
            self.methods = ["last", "min", "max", "sum", "count"]
        else:
            self.methods = sorted({method(random) for _ in range(random.randint(1, 7))} | ({"mean"} if random.random() < 0.8 else set()))
            self.body["aggregation_methods"] = list(self.methods)
        if "std" in self.methods or "rate:std" in self.methods:
            # One point has no deviation, so Gnocchi counts the timespan back from an earlier bucket (see intended.md).
            for granularity, entry in zip(self.granularities, definition):
                if set(entry) != {"granularity"}:
                    entry.clear()
                    entry.update(granularity=spell_timespan(random, granularity), points=LONGER_THAN_ANY_SERIES // granularity)


def spell_time(random, form, at):
    """Microseconds since the Epoch in one of the forms that the API takes; one form for a whole list."""
    seconds, micros = divmod(at, 1000000)
    if form == "number":
        return seconds if micros == 0 else at / 1e6
    if form == "text":
        return str(seconds) if micros == 0 else repr(at / 1e6)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).replace(microsecond=micros)
    moment += datetime.timedelta(hours={"east": 2, "west": -7}.get(form, 0))
    text = moment.strftime("%Y-%m-%dT%H:%M:%S") + (f".{micros:06d}".rstrip("0") if micros else "")
    return text.replace("T", " ") if form == "space" else text + {"zulu": "Z", "offset": "+00:00", "plain": "", "east": "+02:00", "west": "-0700"}[form]


def value(random, style, number):
    match style:
        case "ramp":
            return number
        case "counter":
            return (number * 37) % 400
        case "small":
            return random.randint(0, 5)
        case "float":
            return random.uniform(-100, 100)
        case "large":
            return random.uniform(1e12, 1e15)
        case "tiny":
            return random.uniform(-1e-9, 1e-9)
        case "constant":
            return 42.5
        case "holes":
            return float("nan") if random.random() < 0.15 else random.uniform(0, 10)


class Shape:
    """How the series of one world lie in time: shared, so that they overlap."""

    def __init__(self, random, granularities):
        finest = min(granularities)
        self.start = (BASE + random.choice([0, 0, 7 * finest, 13, 43210, 2 * 86400])) * 1000000
        self.interval = max(1, int(random.choice([finest, finest, finest // 2, finest / 3, finest * 2, 60])) ) * 1000000
        self.form = random.choice(["number", "text", "plain", "zulu", "offset", "space", "east", "west"])
        self.counts = [0, 1, 2, 5, 20, 40, 40, 60]

    @classmethod
    def around(cls, random, now):
        """Half hours around the present: for the history of resources, whose revisions are made now."""
        shape = cls(random, [3600])
        shape.start = (int(now) // 86400 - 1) * 86400 * 1000000
        shape.interval = 1800 * 1000000
        shape.counts = [100, 150]
        return shape

    def points(self, random):
        """One series as a list of (microseconds, value) in the order in which it is written."""
        count = random.choice(self.counts)
        jitter = random.random() < 0.3
        gaps = random.choice([0, 0, 0.1, 0.5])
        style = random.choice(["ramp", "counter", "small", "float", "float", "large", "tiny", "constant", "holes"])
        at = self.start + random.choice([0, 0, 0, 3, -5]) * self.interval
        points = []
        for number in range(count):
            moment = at + number * self.interval
            if jitter:
                moment += random.randrange(self.interval)
            if random.random() >= gaps:
                points.append((moment, value(random, style, number)))
        if random.random() < 0.15:
            random.shuffle(points)
        return points

    def measures(self, random, points):
        return [{"timestamp": spell_time(random, self.form, at), "value": number} for at, number in points]


def slices(random, points):
    """One series in several posts."""
    if len(points) < 4 or random.random() < 0.6:
        return [points]
    cuts = sorted(random.sample(range(1, len(points)), random.randint(1, 3)))
    return [points[first:last] for first, last in zip([0] + cuts, cuts + [len(points)])]


def second_writing(random, policy, points, interval):
    """What is written after the flush: moments again with other values, late ones between them, and new ones. Late only
    within the last block of the coarsest granularity, where Gnocchi still has the raw points whatever the back window."""
    if not points:
        return []
    last = max(at for at, _ in points)
    block = max(policy.granularities) * 1000000
    kept = sorted(at for at, _ in points if at >= last - last % block)
    moments = set(random.sample(kept, min(len(kept), random.randint(0, 3))))
    moments |= {random.choice(kept) + random.randrange(max(1, interval)) for _ in range(random.randint(0, 2))}
    moments |= {last + number * interval for number in range(1, random.randint(1, 6))}
    return [(at, round(random.uniform(-50, 50), 3)) for at in sorted(moments)]
