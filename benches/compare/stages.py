"""What is measured: each stage is a scenario of the simulator, some jobs, and figures of the run."""

import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from processes import Tree
from simulator import Simulator
from subjects import Subject
from work import MODEL, Work

# A run that takes longer is killed, and counts with what it has handed over by then.
MOST_SECONDS = 120
# Of the stage `faults`, in seconds from its first call.
OUTAGE_BEGINS, OUTAGE_ENDS = 2, 12
# Tokens of a whole answer; the text of the simulator has four characters for each.
TOKENS = 40
GOOD_TEXT = re.compile(r"\[[0-9a-f]{16}\] .{100,}", re.DOTALL)
ANSWER = {"label": "billing", "sure": True, "reason": "It speaks of an invoice and of money that was paid twice."}


@dataclass
class Run:
    """A run of a subject over some work, and what came of it."""

    seconds: float
    most_bytes: int
    # Of them, Postgres.
    postgres_bytes: int
    answers: dict[int, str]
    trouble: list[str] = field(default_factory=list)


class Stages:
    """All stages for one subject."""

    ALL = ("start", "rate", "quota", "faults", "kill", "text", "json", "addresses")

    def __init__(self, subject: Subject, sluice: Path, folder: Path, scale: float, retries: int | None):
        self.subject = subject
        self._sluice = sluice
        self._folder = folder
        self._scale = scale
        self._retries = retries

    def measure(self, stage: str) -> dict:
        began = time.monotonic()
        try:
            figures = getattr(self, stage)()
        except Exception as error:  # A peer may do anything; the others are measured all the same.
            figures = {"error": f"{type(error).__name__}: {error}"}
        print(f"{stage}: {self.subject.name}: {figures} ({time.monotonic() - began:.0f} s)", flush=True)
        return figures

    def _jobs(self, count: int) -> range:
        return range(1, max(10, round(count * self._scale)) + 1)

    def _simulator(self, stage: str, provider: str) -> tuple[Simulator, Path]:
        folder = self._folder / stage
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # The private Postgres gives up root: its user has to get there.
        folder.chmod(0o755)
        scenario = f"""
[verdict]
early_retries = 1000000
[providers.api]
dialect = "openai"
output = {{ tokens = {TOKENS} }}
models."{MODEL}".price = {{ input = "0.15", output = "0.60" }}
{provider}
"""
        return Simulator(self._sluice, scenario, folder), folder

    def _begin(self, work: Work, again: bool = False, before: list[str] | None = None) -> Tree:
        # Nothing of the user's own settings, and no way out through a proxy.
        kept = ("PATH", "LANG", "LC_ALL", "TMPDIR", "TZ", "HOME")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment |= {"NO_PROXY": "127.0.0.1", "DO_NOT_TRACK": "1", "PYTHONWARNINGS": "ignore"}
        environment |= self.subject.environment(work)
        command = (before or []) + self.subject.command(work, again)
        return Tree(command, environment, work.folder, work.path("output.log"), MOST_SECONDS)

    def _prepare(self, work: Work) -> None:
        work.retries = self._retries
        self.subject.prepare(work)

    def _finish(self, tree: Tree, work: Work) -> Run:
        code = tree.wait()
        trouble = []
        if tree.timed_out:
            trouble.append(f"did not end within {MOST_SECONDS} s")
        elif code != 0:
            trouble.append(f"exit code {code}")
        return Run(tree.seconds, tree.most_bytes, tree.postgres_bytes, self.subject.answers(work), trouble)

    def _run(self, work: Work, again: bool = False) -> Run:
        if not again:
            self._prepare(work)
        with self._begin(work, again) as tree:
            return self._finish(tree, work)

    def start(self) -> dict:
        """One job, in a new folder and again: how long it takes from the start of the program to its end."""
        simulator, folder = self._simulator("start", "")
        try:
            seconds = []
            for number in (1, 2):
                run = self._run(Work(folder, simulator.base_url, range(number, number + 1), 1, installed=number > 1))
                seconds.append(run.seconds)
                self._forget(folder)
        finally:
            simulator.stop()
        return {"first": seconds[0], "again": seconds[1], "bytes": run.most_bytes, "trouble": run.trouble}

    @staticmethod
    def _forget(folder: Path) -> None:
        """Removes what a peer would take for the first run's results; Sluice keeps batches apart by name."""
        for name in ("out.jsonl", "run.ckpt", "run.jsonl"):
            folder.joinpath(name).unlink(missing_ok=True)

    def rate(self) -> dict:
        """A provider that answers at once and has no limits."""
        simulator, folder = self._simulator("rate", "")
        try:
            numbers = self._jobs(2000)
            run = self._run(Work(folder, simulator.base_url, numbers, in_flight=100))
            calls = _admitted(simulator)
        finally:
            simulator.stop()
        took = (max(call["ended_ms"] for call in calls) - min(call["arrived_ms"] for call in calls)) / 1000
        return {
            "jobs": len(numbers),
            "lost": len(numbers) - len(run.answers),
            "per_second": len(calls) / took if took else 0.0,
            "whole_per_second": len(run.answers) / run.seconds,
            "bytes": run.most_bytes,
            "postgres_bytes": run.postgres_bytes,
            "trouble": run.trouble,
        }

    def quota(self) -> dict:
        """1,200 requests a minute with a burst of 200: how much of what it admits is used."""
        per_minute, burst = 1200, max(1, round(200 * self._scale))
        provider = f"""
quota = {{ requests_per_minute = {per_minute}, burst_requests = {burst} }}
latency = {{ median = 0.4, p99 = 1.0 }}
"""
        simulator, folder = self._simulator("quota", provider)
        try:
            numbers = self._jobs(800)
            work = Work(folder, simulator.base_url, numbers, in_flight=50, latency=0.43)
            work.per_minute, work.burst = per_minute, burst
            run = self._run(work)
            verdict, calls = simulator.verdict(), _admitted(simulator)
        finally:
            simulator.stop()
        arrived = sorted(call["arrived_ms"] for call in calls)
        ended = max(call["ended_ms"] for call in calls)
        # At best the burst goes at once and the rest at the rate; then the last answers take as long as they took.
        ideal = max(0, len(calls) - burst) / (per_minute / 60) + (ended - arrived[-1]) / 1000
        return {
            "jobs": len(numbers),
            "lost": len(numbers) - len(run.answers),
            "ideal": ideal,
            "seconds": run.seconds,
            "used": ideal / ((ended - arrived[0]) / 1000),
            "used_by_wall": ideal / run.seconds,
            "rate_limited": verdict["rate_limited"],
            "trouble": run.trouble,
        }

    def faults(self) -> dict:
        """Eight calls in a hundred fail, and for ten seconds all of them."""
        provider = f"""
latency = {{ median = 0.2, p99 = 0.6 }}
faults = [
    {{ kind = "503", from = {OUTAGE_BEGINS}, until = {OUTAGE_ENDS} }},
    {{ kind = "rate_limit", rate = 0.02, wait = "1s" }},
    {{ kind = "500", rate = 0.04 }},
    {{ kind = "reset", rate = 0.02 }},
]
"""
        simulator, folder = self._simulator("faults", provider)
        try:
            numbers = self._jobs(500)
            work = Work(folder, simulator.base_url, numbers, in_flight=20, latency=0.22)
            # The outage counts from here, but programs take their time to start.
            self._prepare(work)
            with self._begin(work) as tree:
                self._reset_at_first_call(simulator, tree)
                run = self._finish(tree, work)
            verdict = simulator.verdict()
            figures = {
                "jobs": len(numbers),
                "lost": len(numbers) - len(run.answers),
                "lost_then": 0,
                "calls": verdict["calls"],
                "early": verdict["early_retries"],
                "seconds": run.seconds,
                "trouble": run.trouble,
            }
            if figures["lost"]:
                while simulator.verdict()["seconds"] < OUTAGE_ENDS:
                    time.sleep(0.1)
                again = self._run(work, again=True)
                figures["lost_then"] = len(numbers) - len(again.answers)
        finally:
            simulator.stop()
        return figures

    @staticmethod
    def _reset_at_first_call(simulator: Simulator, tree: Tree) -> None:
        """Starts the simulator's clock again when the work begins."""
        while tree.running() and simulator.verdict()["calls"] == 0:
            time.sleep(0.02)
        simulator.reset()

    def kill(self) -> dict:
        """`kill -9` when half is answered, and a second start."""
        simulator, folder = self._simulator("kill", 'latency = { median = 0.3, p99 = 0.9 }')
        try:
            numbers = self._jobs(600)
            work = Work(folder, simulator.base_url, numbers, in_flight=20, latency=0.32)
            self._prepare(work)
            with self._begin(work) as tree:
                while tree.running() and simulator.verdict()["answered_requests"] < len(numbers) // 2:
                    time.sleep(0.02)
                tree.kill()
                tree.wait()
            # Until the simulator has seen that its callers are gone.
            time.sleep(1)
            before = simulator.verdict()
            run = self._run(work, again=True)
            verdict = simulator.verdict()
        finally:
            simulator.stop()
        return {
            "jobs": len(numbers),
            "answered_before": before["answered_requests"],
            "twice": verdict["answered_twice"],
            "cut_off": verdict["lost_calls"],
            "lost": len(numbers) - len(run.answers),
            "seconds": run.seconds,
            "trouble": run.trouble,
        }

    def _rubbish(self, stage: str, provider: str, good) -> dict:
        simulator, folder = self._simulator(stage, f"latency = {{ fixed = 0.1 }}\n{provider}")
        try:
            numbers = self._jobs(600)
            work = Work(folder, simulator.base_url, numbers, in_flight=20, latency=0.1, json=stage == "json")
            run = first = self._run(work)
            if len(first.answers) < len(numbers):
                run = self._run(work, again=True)
            verdict = simulator.verdict()
        finally:
            simulator.stop()
        accepted = sum(1 for answer in run.answers.values() if good(answer))
        dollars = (verdict["charged_nano_usd"] + verdict["lost_nano_usd"]) / 1e9
        return {
            "jobs": len(numbers),
            "good": accepted,
            "bad": len(run.answers) - accepted,
            "lost": len(numbers) - len(first.answers),
            "lost_then": len(numbers) - len(run.answers),
            "calls": verdict["calls"],
            "dollars": dollars,
            "dollars_per_good": dollars / accepted if accepted else None,
            "trouble": run.trouble,
        }

    def text(self) -> dict:
        """One answer in twenty is empty, cut off or a refusal; no program is told what an answer has to look like."""
        provider = """
faults = [
    { kind = "empty", rate = 0.017 },
    { kind = "truncated", rate = 0.017 },
    { kind = "refusal_text", rate = 0.017 },
]
"""
        return self._rubbish("text", provider, lambda answer: GOOD_TEXT.fullmatch(answer.strip()) is not None)

    def json(self) -> dict:
        """The same with answers in JSON, and each subject is told the form, as far as it takes one."""
        # By a question about Jason curator finds out whether the provider keeps to a schema.
        provider = f"""
answers = [
    {{ containing = "Jason is 25", json = {{ name = "Jason", age = 25 }} }},
    {{ text = {json.dumps(json.dumps(ANSWER))} }},
]
faults = [
    {{ kind = "ok", containing = "Jason is 25" }},
    {{ kind = "empty", rate = 0.01 }},
    {{ kind = "truncated", rate = 0.01 }},
    {{ kind = "refusal_text", rate = 0.01 }},
    {{ kind = "broken_json", rate = 0.01 }},
    {{ kind = "wrong_json", rate = 0.01 }},
]
"""

        def good(answer: str) -> bool:
            try:
                return json.loads(answer) == ANSWER
            except ValueError:
                return False

        return self._rubbish("json", provider, good)

    def addresses(self) -> dict:
        """Twenty jobs under strace: which addresses beyond this machine are called."""
        if shutil.which("strace") is None:
            return {"checked": False, "trouble": []}
        simulator, folder = self._simulator("addresses", "")
        try:
            work = Work(folder, simulator.base_url, range(1, 21), in_flight=5)
            self._prepare(work)
            # A file for each process. Postgres gives up root, and strace follows it all the same.
            before = ["strace", "-ff", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", "trace"]
            with self._begin(work, before=before) as tree:
                run = self._finish(tree, work)
        finally:
            simulator.stop()
        return {
            "checked": True,
            "lost": 20 - len(run.answers),
            "addresses": sorted(beyond(path.read_text(errors="replace") for path in folder.glob("trace*"))),
            "trouble": run.trouble,
        }


def _admitted(simulator: Simulator) -> list[dict]:
    return [call for call in simulator.calls() if call["status"] == 200]


def beyond(traces) -> set[str]:
    """The addresses in traces that are not on this machine."""
    found = set()
    pattern = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
    for trace in traces:
        for match in pattern.finditer(trace):
            address = match[1] or match[2]
            if not (address.startswith("127.") or address in ("::1", "::ffff:127.0.0.1")):
                found.add(address)
    return found
