"""Runs `life` (storage/store/examples/life.rs), keeps its journal, judges what is left, and asks another engine."""
import json, os, pathlib, socket, subprocess, tempfile, threading

TOP = pathlib.Path(__file__).resolve().parents[2]
VALUE = "coalesce(other_value, number / divisor)"


def build():
    """The program; made if it is not given."""
    given = os.environ.get("ORZO_TEST_LIFE")
    if given:
        return given
    subprocess.run(["cargo", "build", "-q", "--locked", "-p", "orzo-store", "--example", "life"], cwd=TOP, check=True)
    return str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")) / "debug/examples/life")


class Journal:
    """What lives say, in order; outside of the disk that breaks."""

    def __init__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="journal")
        self.path = os.path.join(self.directory.name, "socket")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.lines = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        while True:
            self.lines.append(self.socket.recv(4096).decode())

    def settle(self):
        """Once the sender is dead: everything that it sent is in `lines`."""
        mark = "settled %d" % len(self.lines)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(mark.encode(), self.path)
        while mark not in self.lines[-1:]:
            threading.Event().wait(0.001)
        self.lines.pop()

    def file(self):
        path = os.path.join(self.directory.name, "journal")
        with open(path, "w") as file:
            file.write("\n".join(self.lines) + "\n")
        return path

    def forget(self):
        self.lines.clear()


def delta(directory):
    """Rows, distinct keys and the sum of values as delta-rs and DuckDB read the table; None without those engines."""
    try:
        import duckdb
        from deltalake import DeltaTable
    except ImportError:
        return None
    if not os.path.isdir(f"{directory}/samples/_delta_log"):
        return (0, 0, 0.0)
    points = DeltaTable(f"{directory}/samples").to_pyarrow_table()
    connection = duckdb.connect()
    connection.register("points", points)
    rows, keys, total = connection.execute(
        f"select count(*), count(distinct (series, timestamp)), sum({VALUE}) from points").fetchone()
    return (rows, keys, total or 0.0)


def judge(program, directory, journal):
    """(verdict, what is wrong or '')."""
    answer = subprocess.run([program, "judge", directory, journal.file()], capture_output=True, text=True, timeout=300)
    try:
        verdict = json.loads(answer.stdout)
    except json.JSONDecodeError:
        return {}, f"it does not open: {answer.stderr.strip()[-600:]}"
    if answer.returncode != 0:
        return verdict, f"{answer.stderr.strip()} {json.dumps(verdict)}"
    seen = delta(directory)
    if seen is not None:
        rows, keys, total = seen
        if (rows, keys) != (verdict["rows"], verdict["keys"]) or abs(total - verdict["sum"]) > 1e-9 * abs(total):
            return verdict, f"delta-rs and DuckDB see {seen}, the store {json.dumps(verdict)}"
        verdict["engines"] = 1
    return verdict, ""


class Sums:
    """Over all runs."""

    NAMES = ["acknowledged", "recovered", "lost", "doubled", "phantom", "wrong", "undead", "engines"]

    def __init__(self):
        self.sums = dict.fromkeys(self.NAMES, 0)
        self.failures = []

    def add(self, what, verdict, problem):
        for name in self.NAMES:
            self.sums[name] += verdict.get(name, 0)
        if problem:
            self.failures.append(f"{what}: {problem}")
            print(f"FAILED {what}: {problem}", flush=True)

    def text(self):
        words = [f"{self.sums[name]} {name}" for name in self.NAMES[:-1]]
        return ", ".join(words) + f"; read by another engine {self.sums['engines']} times; {len(self.failures)} failures"
