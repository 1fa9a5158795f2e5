"""Starts the two servers on free ports and empty directories, sends steps to them, and stops them."""

import base64
import collections
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

from compare import Answer
from step import Names

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent.parent
# Gnocchi installs and initialises itself within this time on a slow machine.
START_SECONDS_MAX = 300
# A request that Gnocchi fails with an exception gets no answer at all.
ANSWER_SECONDS_MAX = 60


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Server:
    """One of the two: where it listens, and the prefix of its API."""

    def __init__(self, name, port, prefix, process):
        self.name, self.port, self.prefix, self.process = name, port, prefix, process
        # Of the PostgreSQL behind it, if it has one.
        self.database_port = None
        self.directory = None

    def connect(self):
        return Caller(self)

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def failures(self):
        """Of a Gnocchi, from its log: how often each request (method and address) was ended by an exception, so that uWSGI
        had nothing to answer with; and how often each exception did it (about: its processes write in turn)."""
        requests, exceptions, last = collections.Counter(), collections.Counter(), "?"
        line = re.compile(r"\] ([A-Z]+) (\S+) => generated 0 bytes in \d+ msecs \(HTTP/1\.1 500\)")
        for text in open(os.path.join(self.directory, "api.log"), errors="replace"):
            match = line.search(text)
            if match:
                requests[match[1], match[2]] += 1
                exceptions[last] += 1
            elif re.match(r"[A-Za-z_.]+(Error|Exception|Type|Metric|Exists|Invalid)\b", text):
                last = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+", "#", text.strip())[:80]
        return requests, exceptions

    def processes(self):
        """The ids of all processes of this server."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    fields = open(f"/proc/{entry}/stat").read().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                parents.setdefault(int(fields[1]), []).append(int(entry))
        found, waiting = [], [self.process.pid]
        while waiting:
            one = waiting.pop()
            found.append(one)
            waiting += parents.get(one, [])
        return found

    def processor_seconds(self):
        """User and system time of all living processes and of the ended children that they have waited for."""
        ticks = 0
        for process in self.processes():
            try:
                fields = open(f"/proc/{process}/stat").read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            ticks += sum(int(field) for field in fields[11:15])
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self):
        total = 0
        for process in self.processes():
            try:
                total += int(open(f"/proc/{process}/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            except OSError:
                continue
        return total


def start_gnocchi(directory, metricd=False):
    port, database = free_port(), free_port()
    environment = dict(os.environ, GNOCCHI_UWSGI_MODE="http-socket" if not metricd else "http", GNOCCHI_UPGRADE="--skip-archive-policies-creation")
    command = [str(HERE / "gnocchi"), "run", str(directory), str(port), str(database)] + ([] if metricd else ["--without-metricd"])
    process = subprocess.Popen(command, env=environment)
    server = Server("Gnocchi", port, "", process)
    server.database_port, server.directory = database, directory
    wait(process, lambda: os.path.exists(os.path.join(directory, "ready")))
    return server


def start_orzo(directory, binary, settings):
    """Orzo with the settings of the conformance run, a page as long as Gnocchi's by default, and a prefix."""
    port = free_port()
    os.makedirs(directory, exist_ok=True)
    log = open(os.path.join(directory, "orzo.log"), "w")
    text = settings.replace("PORT", str(port)).replace("DIRECTORY", str(directory))
    path = os.path.join(directory, "orzo.toml")
    open(path, "w").write(text)
    process = subprocess.Popen([binary, "serve", "--config", path], stdout=log, stderr=log, cwd=directory)
    prefix = re.search(r'^path = "([^"]*)"', text, re.MULTILINE)
    server = Server("Orzo", port, prefix[1] if prefix else "/metric", process)
    wait(process, lambda: answers(port))
    return server


def answers(port):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False


def wait(process, ready):
    until = time.monotonic() + START_SECONDS_MAX
    while not ready():
        if process.poll() is not None:
            raise SystemExit(f"{process.args[0]} stopped with {process.returncode} before it was ready")
        if time.monotonic() > until:
            process.terminate()
            raise SystemExit(f"{process.args[0]} was not ready within {START_SECONDS_MAX} s")
        time.sleep(0.1)


class Caller:
    """One connection to one server, and the ids that it made up in one world."""

    def __init__(self, server):
        self.server, self.names, self.connection = server, Names(), None

    def send(self, step):
        headers = {"Accept": "application/json", "Authorization": "basic " + base64.b64encode(f"{step.user}:".encode()).decode()}
        payload = step.payload(self.names)
        if payload is not None:
            payload = payload.encode()
            headers["Content-Type"] = "application/json-patch+json" if step.path.startswith("/v1/resource_type/") else "application/json"
        headers.update({name: self.names.fill(value) for name, value in step.headers.items()})
        for attempt in (1, 2):
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=ANSWER_SECONDS_MAX)
                    fresh = True
                else:
                    fresh = False
                self.connection.request(step.method, self.server.prefix + step.target(self.names), payload, headers)
                response = self.connection.getresponse()
                text = response.read().decode("utf-8", "replace")
                if response.will_close:
                    self.close()
                answer = Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, text)
                break
            except TimeoutError:
                self.close()
                return Answer(0, {}, "no answer in time")
            except (OSError, http.client.HTTPException):
                self.close()
                # A kept connection may have been closed by the server while it was idle.
                if fresh or attempt == 2:
                    return Answer(0, {}, "no answer")
        try:
            answer.body = json.loads(answer.text) if answer.text else None
        except ValueError:
            answer.body = answer.text
        self.names.learn_from(step, answer)
        answer.body = self.names.blank(self.relative(answer.body))
        answer.headers = {key: self.names.blank(self.relative(value)) for key, value in answer.headers.items()}
        return answer

    def relative(self, value):
        if isinstance(value, str):
            return value.replace(f"http://127.0.0.1:{self.server.port}{self.server.prefix}", "")
        if isinstance(value, list):
            return [self.relative(element) for element in value]
        if isinstance(value, dict):
            return {key: self.relative(element) for key, element in value.items()}
        return value

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None
