"""Starts Orzo and a real Prometheus on free ports and empty directories, and asks them."""

import base64
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
START_SECONDS_MAX = 60
ANSWER_SECONDS_MAX = 120
# Prometheus' features that its 3.5 reference documents as experimental; an older one ignores what it does not know.
FEATURES = "promql-experimental-functions,native-histograms"

# Of an Orzo that lives as long as the run.
PASSWORD = "differential"


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Server:
    """Where one of the two listens."""

    def __init__(self, name, port, prefix, process):
        self.name, self.port, self.prefix, self.process = name, port, prefix, process

    def connect(self):
        return Caller(self)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def start_prometheus(directory, binary):
    port = free_port()
    os.makedirs(directory, exist_ok=True)
    settings = os.path.join(directory, "prometheus.yml")
    open(settings, "w").write("global: {}\n")
    log = open(os.path.join(directory, "prometheus.log"), "w")
    command = [
        binary, f"--config.file={settings}", f"--storage.tsdb.path={directory}/data", f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=90y", f"--enable-feature={FEATURES}", "--log.level=warn",
    ]
    process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
    wait(process, lambda: answers(port, "/-/ready"))
    return Server("Prometheus", port, "", process)


def start_orzo(directory, binary):
    port = free_port()
    os.makedirs(directory, exist_ok=True)
    log = open(os.path.join(directory, "orzo.log"), "w")
    path = os.path.join(directory, "orzo.toml")
    open(path, "w").write((HERE / "orzo.toml").read_text().replace("PORT", str(port)).replace("DIRECTORY", str(directory)).replace("PASSWORD", PASSWORD))
    process = subprocess.Popen([str(pathlib.Path(binary).resolve()), "serve", "--config", path], stdout=log, stderr=log, cwd=directory)
    wait(process, lambda: answers(port, "/readyz"))
    return Server("Orzo", port, "/prometheus", process)


def answers(port, path):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path)
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
    """One kept connection."""

    def __init__(self, server):
        self.server, self.connection = server, None
        self.headers = {"Authorization": "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode()}

    def send(self, method, path, body=None, headers=None):
        for attempt in (1, 2):
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=ANSWER_SECONDS_MAX)
                self.connection.request(method, self.server.prefix + path, body, {**self.headers, **(headers or {})})
                response = self.connection.getresponse()
                text = response.read().decode("utf-8", "replace")
                if response.will_close:
                    self.close()
                break
            except (OSError, http.client.HTTPException):
                self.close()
                # A kept connection may have been closed by the server while it was idle.
                if attempt == 2:
                    return 0, "no answer"
        try:
            return response.status, json.loads(text) if text else None
        except ValueError:
            return response.status, text

    def ask(self, question):
        form = urllib.parse.urlencode(question.parameters())
        return self.send("POST", question.path(), form, {"Content-Type": "application/x-www-form-urlencoded"})

    def write(self, body):
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "0.1.0"}
        return self.send("POST", "/api/v1/write", body, headers)

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None


class Question:
    """A query at a time, or over times."""

    def __init__(self, world, text, start, end=None, step=None):
        self.world, self.text, self.start, self.end, self.step = world, text, start, end, step

    def path(self):
        return "/api/v1/query" if self.step is None else "/api/v1/query_range"

    def parameters(self):
        if self.step is None:
            return {"query": self.text, "time": self.start}
        return {"query": self.text, "start": self.start, "end": self.end, "step": self.step}

    def with_text(self, text):
        return Question(self.world, text, self.start, self.end, self.step)

    def at_its_start(self, text):
        return self.at(text, self.start)

    def before(self, text):
        """Every half minute of an hour before, and of its own times."""
        return Question(self.world, text, self.start - 3600, self.end or self.start, 30)

    def at(self, text, time):
        return Question(self.world, text, time)

    def line(self):
        """As seeds.txt keeps it."""
        return json.dumps([self.world, self.text, self.start, self.end, self.step], ensure_ascii=False)

    @staticmethod
    def of_line(line):
        return Question(*json.loads(line))
