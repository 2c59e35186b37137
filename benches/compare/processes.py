"""Processes with all that they start: their memory, their end."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

# How often memory is looked at, in seconds.
LOOK = 0.1


def _stat(pid: int) -> tuple[int, str] | None:
    """The parent of a process, and when it started, by which it is told from a later one with the same number."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    # A zombie holds nothing any more.
    return None if fields[0] == "Z" else (int(fields[1]), fields[19])


def _proportional(pid: int) -> int:
    """Resident bytes of a process; a page that several share counts once in their sum."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


class Tree:
    """A process and its descendants, those too whose parent has ended meanwhile."""

    def __init__(self, argv: list[str], environment: dict[str, str], folder: Path, log: Path, most_seconds: float):
        self.most_bytes = 0
        # Of them, Postgres.
        self.postgres_bytes = 0
        self.timed_out = False
        self._known: dict[int, str] = {}
        self._lock = threading.Lock()
        self.began = time.monotonic()
        with log.open("ab") as output:
            self._root = subprocess.Popen(
                argv, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        # Its number may be another's once it has been waited for, so that it is known by its start, too.
        if found := _stat(self._root.pid):
            self._known[self._root.pid] = found[1]
        self._deadline = self.began + most_seconds
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _members(self) -> list[int]:
        parents = {int(name): found for name in os.listdir("/proc") if name.isdigit() and (found := _stat(int(name)))}
        with self._lock:
            alive = {pid: begun for pid, begun in self._known.items() if parents.get(pid, (0, ""))[1] == begun}
            # Children of children: until a round finds no more.
            while found := {p: s for p, (parent, s) in parents.items() if parent in alive and p not in alive}:
                alive.update(found)
            self._known = alive
            return list(alive)

    def _watch(self) -> None:
        while not self._done.is_set():
            sizes = [(_proportional(pid), _name(pid)) for pid in self._members()]
            size = sum(size for size, _ in sizes)
            if size > self.most_bytes:
                self.most_bytes = size
                self.postgres_bytes = sum(size for size, name in sizes if name == "postgres")
            if time.monotonic() > self._deadline:
                self.timed_out = True
                self.kill()
                return
            self._done.wait(LOOK)

    def __enter__(self) -> "Tree":
        return self

    def __exit__(self, *_) -> None:
        # Nothing outlives its measurement, not even one that is interrupted.
        self._done.set()
        self.kill()

    def running(self) -> bool:
        return self._root.poll() is None

    def kill(self) -> None:
        """`kill -9` for the process and all that it started, at once."""
        while members := self._members():
            for pid in members:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self._root.poll()
            time.sleep(0.01)

    def wait(self) -> int:
        """Waits for the end; returns the exit code."""
        code = self._root.wait()
        self.seconds = time.monotonic() - self.began
        self._done.set()
        self._watcher.join()
        return code
