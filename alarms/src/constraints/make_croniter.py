#!/usr/bin/env python3
"""Makes croniter.txt: random time constraints with times over two years, half of them within hours of a change of the
clocks, and whether Aodh's rule with croniter says that they are open.

    pip install croniter && python3 make_croniter.py 5000 > croniter.txt
"""

import datetime
import random
import sys
import zoneinfo

import croniter

ZONES = ["", "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo",
         "Pacific/Auckland", "Europe/London", "Asia/Tokyo"]
# Changes of the clocks in these zones, UTC.
CHANGES = [(2025, 3, 9, 7), (2025, 3, 30, 1), (2025, 10, 26, 1), (2025, 11, 2, 6), (2026, 3, 8, 7), (2026, 3, 29, 1),
           (2026, 10, 25, 1), (2026, 11, 1, 6), (2025, 4, 5, 15), (2025, 10, 4, 15), (2025, 4, 5, 14), (2025, 9, 27, 14)]


def is_open(start, duration, zone, now):
    """Open within the minute before a start, and from a start to its end by the wall clock."""
    local = now.astimezone(zoneinfo.ZoneInfo(zone or "UTC"))
    cron = croniter.croniter(start, local)
    cron.get_prev()
    if abs((local - cron.get_next(datetime.datetime)).total_seconds()) < 60:
        return True
    latest = croniter.croniter(start, local).get_prev(datetime.datetime)
    return latest <= local <= latest + datetime.timedelta(seconds=duration)


def field(chance, low, high):
    kind = chance.random()
    if kind < 0.35:
        return "*"
    if kind < 0.5:
        return "*/%d" % chance.choice([2, 3, 5, 7, 10, 15, 20, 30]) if high >= 12 else "*/2"
    if kind < 0.75:
        return str(chance.randint(low, high))
    if kind < 0.9:
        first = chance.randint(low, high - 1)
        # Not the whole range: whether that is a star is a matter of taste.
        return "%d-%d" % (first, chance.randint(first + 1, high - 1 if first == low else high))
    return ",".join(map(str, sorted(chance.sample(range(low, high + 1), 3))))


def main(count):
    chance = random.Random(20261122)
    first = datetime.datetime(2025, 1, 1, tzinfo=datetime.timezone.utc)
    while count:
        fields = [field(chance, 0, 59), field(chance, 0, 23), field(chance, 1, 28), field(chance, 1, 12),
                  field(chance, 0, 6)]
        if chance.random() < 0.6:
            fields[2] = fields[3] = "*"
            if chance.random() < 0.6:
                fields[4] = "*"
        duration = chance.choice([0, 60, 600, 3600, 7200, 28800, 86400])
        zone = chance.choice(ZONES)
        if chance.random() < 0.5:
            change = datetime.datetime(*chance.choice(CHANGES), tzinfo=datetime.timezone.utc)
            now = change + datetime.timedelta(seconds=chance.randint(-4 * 3600, 4 * 3600))
        else:
            now = first + datetime.timedelta(seconds=chance.randint(0, 730 * 86400))
        if chance.random() < 0.5:
            now = now.replace(second=0)
        answer = int(is_open(" ".join(fields), duration, zone, now))
        print("|".join(map(str, [" ".join(fields), duration, zone, int(now.timestamp()), answer])))
        count -= 1


main(int(sys.argv[1]))
