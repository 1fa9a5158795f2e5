#!/usr/bin/env python3
"""Gives an Orzo a past: instances of several projects on several hosts, with points every five minutes.

In: the server's URL and the admin's password. Out: projects `p1` ... with a user each (`u1` ..., the given password), their
instances, disks and network interfaces as resources, hosts, and measures up to now; on standard output JSON with what
was made. Python's own library is all it needs.

    tests/page/history.py http://127.0.0.1:8041 PASSWORD --guests 1000 --projects 20 --hosts 40 --days 30
"""
import argparse
import concurrent.futures
import json
import math
import random
import sys
import time
import urllib.error
import urllib.request
import uuid

PATTERNS = 16  # different courses of a meter; guests share them, so that their texts are made once
DAY = 86400
BODY_BYTES = 6_000_000  # below the server's limit of 8 MiB


class Cloud:
    """The server, as its administrator."""

    def __init__(self, url, password):
        self.url = url.rstrip("/")
        user = {"name": "admin", "domain": {"id": "default"}, "password": password}
        auth = {"identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": {"name": "admin", "domain": {"id": "default"}}}}
        request = urllib.request.Request(f"{self.url}/identity/v3/auth/tokens", json.dumps({"auth": auth}).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            self.token = answer.headers["X-Subject-Token"]

    def ask(self, method, path, body=None):
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        headers = {"X-Auth-Token": self.token, "Content-Type": "application/json", "Accept": "application/json"}
        request = urllib.request.Request(f"{self.url}/{path}", data, headers, method=method)
        for _ in range(100):
            try:
                with urllib.request.urlopen(request, timeout=120) as answer:
                    text = answer.read()
                    return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise SystemExit(f"{method} {path}: {error.code} {error.read()[:500]}") from error
                time.sleep(0.2)  # too much at once: it says so, and takes it later
        raise SystemExit(f"{method} {path}: busy for too long")


def course(meter, pattern, at, seed):
    """A value of a meter: a wave of the day, noise, and a level of its own."""
    level, swing, noise = {
        "cpu_util": (8 + 5 * pattern, 6 + pattern, 5),
        "memory.usage": (400 + 90 * pattern, 60, 12),
        "memory.resident": (450 + 90 * pattern, 40, 8),
        "disk.device.read.bytes.rate": (2e5 * (pattern + 1), 1e5, 4e4),
        "disk.device.write.bytes.rate": (3e5 * (pattern + 1), 2e5, 6e4),
        "network.incoming.bytes.rate": (1e5 * (pattern + 1), 8e4, 2e4),
        "network.outgoing.bytes.rate": (2e5 * (pattern + 1), 9e4, 3e4),
        "hardware.cpu.util": (35 + pattern, 15, 4),
        "hardware.memory.used": (4e7 + 1e6 * pattern, 2e6, 3e5),
    }[meter]
    wave = math.sin((at % DAY) / DAY * 2 * math.pi + pattern)
    value = max(level + swing * wave + noise * (seed.random() - 0.5), 0)
    return min(value, 100) if meter.endswith("util") else value


CONSTANT = {"memory": 4096, "memory.available": 4096, "vcpus": 2, "hardware.memory.total": 131072000}
UNITS = {"cpu_util": "%", "memory": "MiB", "memory.usage": "MiB", "memory.resident": "MiB", "memory.available": "MiB",
         "vcpus": "vcpu", "hardware.cpu.util": "%", "hardware.memory.used": "KB", "hardware.memory.total": "KB"}


def measures(meter, pattern, start, stop, step):
    if meter in CONSTANT:
        points = ((at, CONSTANT[meter]) for at in range(start, stop, step))
    else:
        seed = random.Random(f"{meter} {pattern} {start}")
        points = ((at, round(course(meter, pattern, at, seed), 2)) for at in range(start, stop, step))
    return "[" + ",".join(f'{{"timestamp":{at},"value":{value}}}' for at, value in points) + "]"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("password")
    parser.add_argument("--guests", type=int, default=24)
    parser.add_argument("--projects", type=int, default=3)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--step", type=int, default=300, help="seconds between points")
    chosen = parser.parse_args()
    cloud = Cloud(chosen.url, chosen.password)
    started = time.monotonic()

    member = next(role["id"] for role in cloud.ask("GET", "identity/v3/roles")["roles"] if role["name"] == "member")
    projects = []
    for number in range(1, chosen.projects + 1):
        project = cloud.ask("POST", "identity/v3/projects", {"project": {"name": f"p{number}", "domain_id": "default"}})
        user = cloud.ask("POST", "identity/v3/users", {"user": {
            "name": f"u{number}", "domain_id": "default", "password": chosen.password,
            "default_project_id": project["project"]["id"]}})
        ids = project["project"]["id"], user["user"]["id"]
        cloud.ask("PUT", f"identity/v3/projects/{ids[0]}/users/{ids[1]}/roles/{member}")
        projects.append({"id": ids[0], "name": f"p{number}", "user": f"u{number}", "user_id": ids[1], "guests": []})

    now = int(time.time()) // chosen.step * chosen.step
    begin = now - chosen.days * DAY
    series = []  # (resource, meter, pattern)
    rows = []
    for number in range(chosen.guests):
        project, host, pattern = projects[number % len(projects)], f"compute{number % chosen.hosts + 1}", number % PATTERNS
        guest, name = str(uuid.uuid4()), f"guest-{number + 1}"
        project["guests"].append(guest)
        owner = {"project_id": project["id"], "user_id": project["user_id"]}
        since = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(begin))
        rows.append(("instance", {"id": guest, "display_name": name, "host": host, "flavor_name": "m1.medium",
                                  "flavor_id": "3", "started_at": since, **owner}))
        series += [(guest, meter, pattern) for meter in ("cpu_util", "memory.usage", "memory.resident", "memory",
                                                         "memory.available", "vcpus")]
        for kind, part, prefix in (("instance_disk", "vda", "disk.device."), ("instance_network_interface", "tap0", "network.")):
            own = f"{guest}-{part}"
            rows.append((kind, {"id": own, "name": part, "instance_id": guest, "started_at": since, **owner}))
            verbs = ("read", "write") if part == "vda" else ("incoming", "outgoing")
            series += [(own, f"{prefix}{verb}.bytes.rate", pattern) for verb in verbs]
    for number in range(chosen.hosts):
        host = f"compute{number + 1}"
        rows.append(("host", {"id": host, "host_name": host}))
        series += [(host, meter, number % PATTERNS) for meter in ("hardware.cpu.util", "hardware.memory.used", "hardware.memory.total")]

    posted = 0
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda row: cloud.ask("POST", f"metric/v1/resource/{row[0]}", row[1]), rows))

        def post(parts):
            body = "{" + ",".join(f'"{resource}":{{{",".join(metrics)}}}' for resource, metrics in parts.items()) + "}"
            cloud.ask("POST", "metric/v1/batch/resources/metrics/measures?create_metrics=true", body.encode())

        meters = sorted({meter for _, meter, _ in series})
        for start in range(begin, now, DAY):
            stop = now + chosen.step if start + DAY >= now else start + DAY
            # What never changes is told less often; the last points come with the others.
            texts = {}
            waiting = set()
            for meter in meters:
                parts, size = {}, 0
                for resource, own, pattern in series:
                    if own != meter:
                        continue
                    if (own, pattern) not in texts:
                        step = chosen.step if own not in CONSTANT or stop > now else 12 * chosen.step
                        texts[own, pattern] = (measures(own, pattern, start, stop, step), (stop - start) // step)
                    text, count = texts[own, pattern]
                    policy = f'"archive_policy_name":"ceilometer-low","unit":"{UNITS.get(own, "B/s")}"'
                    parts.setdefault(resource, []).append(f'"{own}":{{{policy},"measures":{text}}}')
                    size += len(text)
                    posted += count
                    if size > BODY_BYTES:
                        waiting.add(pool.submit(post, parts))
                        parts, size = {}, 0
                if parts:
                    waiting.add(pool.submit(post, parts))
                while len(waiting) > 6:  # bodies are large
                    done, waiting = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
                    for one in done:
                        one.result()
            for one in waiting:
                one.result()
    print(f"{posted} points of {len(series)} series in {time.monotonic() - started:.0f} s", file=sys.stderr)
    json.dump({"projects": projects, "points": posted, "series": len(series)}, sys.stdout)


if __name__ == "__main__":
    main()
