"""Hours of a cloud rated by the hashmap module of a real CloudKitty, called as a library: its arithmetic alone, without the
collecting before it and the storing after it."""

import argparse
import datetime
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "differential" / "rating"))
from compare import Tables, dataframe, hashmap  # noqa: E402

FLAVORS = 20


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--resources", type=int, default=10000)
    arguments.add_argument("--hours", type=int, default=24)
    options = arguments.parse_args()
    mappings = [{"type": "flat", "value": f"flavor-{n}", "cost": str((12_345_678 + n * 1_000_003) / 1e9)} for n in range(FLAVORS)]
    fields = [{"name": "flavor_name", "mappings": mappings, "thresholds": []}]
    tables = Tables({"services": [{"name": "instance", "mappings": [], "thresholds": [], "fields": fields}]})
    hashmap.hash_db_api.get_instance = lambda: tables
    lines, used, total = 0, 0.0, 0
    for hour in range(options.hours):
        now = datetime.datetime(2026, 11, 1) + datetime.timedelta(hours=hour)
        # A project of a hundred, as its orchestrator rates them: a module for each scope and period.
        for first in range(0, options.resources, 100):
            points = [dataframe.DataPoint("instance", 1, 0, {"id": str(n), "project_id": "p", "user_id": "u"},
                                          {"flavor_name": f"flavor-{n % FLAVORS}", "flavor_id": "", "vcpus": "", "memory_mb": "",
                                           "state": "active"}) for n in range(first, min(first + 100, options.resources))]
            frame = dataframe.DataFrame(start=now, end=now + datetime.timedelta(hours=1), usage={"instance": points})
            started = time.process_time()
            rated = hashmap.HashMap("p").process(frame)
            used += time.process_time() - started
            lines += len(points)
            total += sum(point.price for _, point in rated.iterpoints())
    assert total > 0, "nothing had a price"
    print(json.dumps({"lines": lines, "processor_seconds": used, "lines_per_processor_second": lines / used}))


if __name__ == "__main__":
    main()
