"""Hours of a cloud rated by a real CloudKitty, its whole way: the orchestrator's own worker with its rating processors, rules and
states in its database, and lines in its SQL storage. Only collecting is made easy for it: what Gnocchi would have answered lies
in memory."""

import argparse
import datetime
import json
import logging
import pathlib
import sys
import tempfile
import time

FLAVORS = 20
PROJECT_RESOURCES = 100
METRICS = """metrics:
  cpu:
    unit: instance
    alt_name: instance
    groupby: [id, user_id, project_id]
    metadata: [flavor_name, flavor_id, vcpus]
    mutate: NUMBOOL
    extra_args: {aggregation_method: max, resource_type: instance, force_granularity: 300}
"""


def prepared(directory):
    """CloudKitty's settings and tables, in SQLite with what makes that fast and unsafe."""
    (directory / "metrics.yml").write_text(METRICS)
    (directory / "cloudkitty.conf").write_text(
        f"[DEFAULT]\n[database]\nconnection = sqlite:///{directory}/ck.db\nsqlite_synchronous = false\n"
        f"[storage]\nversion = 1\nbackend = sqlalchemy\n[collect]\nmetrics_conf = {directory}/metrics.yml\nwait_periods = 0\n"
        "[orchestrator]\nmax_workers = 1\n")
    from cloudkitty import db, service
    service.prepare_service(["cloudkitty", "--config-file", str(directory / "cloudkitty.conf")])
    logging.disable(logging.WARNING)
    from cloudkitty.db.sqlalchemy import models as modules
    from cloudkitty.rating.hash.db.sqlalchemy import models as rules
    from cloudkitty.rating.pyscripts.db.sqlalchemy import models as scripts
    from cloudkitty.storage.v1.sqlalchemy import models as frames
    from cloudkitty.storage_state import models as states
    with db.session_for_write() as session:
        for own in (modules, rules, scripts, frames, states):
            own.Base.metadata.create_all(session.get_bind())


def priced(begin):
    from cloudkitty.db import api
    from cloudkitty.rating.hash.db import api as hash_api
    state = api.get_instance().get_module_info()
    for name, enabled in (("hashmap", True), ("noop", False), ("pyscripts", False)):
        state.set_state(name, enabled)
    book = hash_api.get_instance()
    service = book.create_service("instance").service_id
    field = book.create_field(service, "flavor_name").field_id
    for number in range(FLAVORS):
        book.create_mapping(str((12_345_678 + number * 1_000_003) / 1e9), map_type="flat", value=f"flavor-{number}", field_id=field,
                            start=begin, created_by="bench")


class Collected:
    """What was measured, as the Gnocchi collector would give it."""

    def __init__(self, resources):
        from cloudkitty import dataframe
        from cloudkitty.collector import validate_conf
        from cloudkitty.utils import load_conf
        from oslo_config import cfg
        self.conf = validate_conf(load_conf(cfg.CONF.collect.metrics_conf))
        self.points, self.resources = dataframe.DataPoint, resources

    def retrieve(self, metric, start, end, scope):
        first = int(scope, 16) * PROJECT_RESOURCES
        point = lambda n: self.points(  # noqa: E731
            "instance", 1, 0, {"id": f"{n:08x}-0000-4000-8000-000000000000", "project_id": scope, "user_id": "7"},
            {"flavor_name": f"flavor-{n % FLAVORS}", "flavor_id": "", "vcpus": ""})
        return "instance", [point(n) for n in range(first, min(first + PROJECT_RESOURCES, self.resources))]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--resources", type=int, default=10000)
    arguments.add_argument("--hours", type=int, default=2)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        prepared(pathlib.Path(directory))
        from cloudkitty import db, orchestrator, storage
        from cloudkitty.storage.v1.sqlalchemy import models as frames
        from cloudkitty.utils import tz
        end = tz.localized_now().replace(minute=0, second=0, microsecond=0)
        begin = end - datetime.timedelta(hours=options.hours)
        priced(begin - datetime.timedelta(days=1))
        store = storage.V1StorageAdapter({"period": 3600}, "cloudkitty.storage.v1.backends", backend="sqlalchemy")
        collector = Collected(options.resources)
        scopes = [f"{n:032x}" for n in range((options.resources + PROJECT_RESOURCES - 1) // PROJECT_RESOURCES)]
        started = time.process_time()
        for scope in scopes:
            worker = orchestrator.Worker(collector, store, scope, 0)
            worker._state.set_last_processed_timestamp(scope, begin)
            worker.run()
        used = time.process_time() - started
        with db.session_for_read() as session:
            rated = session.query(frames.RatedDataFrame)
            lines, unpriced = rated.count(), rated.filter(frames.RatedDataFrame.rate == 0).count()
        assert lines == options.resources * options.hours, f"{lines} lines are in its storage"
        assert unpriced == 0, f"{unpriced} lines have no price"
        print(json.dumps({"lines": lines, "processor_seconds": used, "lines_per_processor_second": lines / used}))


if __name__ == "__main__":
    sys.exit(main())
