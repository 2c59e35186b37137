"""The programs that are compared: one module each, with how it is told what, by its own documentation."""

import subprocess
from pathlib import Path

from work import Work


class Subject:
    """A program that answers prompts from a file or a list."""

    # As the tables call it.
    name: str
    # What pip is asked for; None: it is built here.
    package: str | None = None
    # What it was told, for the report.
    settings: str
    # What it says of itself in its report, where it cannot be told something.
    cannot: dict[str, str] = {}

    def __init__(self, home: Path):
        # Its virtual environment.
        self.home = home

    def install(self) -> str | None:
        """Installs it from the registry that pip is set up for; returns pip's words where that fails."""
        assert self.package is not None
        stamp = self.home / "installed"
        if stamp.exists() and stamp.read_text() == self.package:
            return None
        made = subprocess.run(["python3", "-m", "venv", "--clear", str(self.home)], capture_output=True, text=True)
        if made.returncode != 0:
            return _last_words(made)
        pip = [str(self.home / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", self.package]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode != 0:
            return _last_words(done)
        stamp.write_text(self.package)
        return None

    def python(self) -> str:
        return str(self.home / "bin/python")

    def prepare(self, work: Work) -> None:
        """Writes what it reads, before the clock starts."""

    def command(self, work: Work, again: bool) -> list[str]:
        """What starts it; `again`: after a run that was killed or left jobs without an answer."""
        raise NotImplementedError

    def environment(self, work: Work) -> dict[str, str]:
        return {}

    def answers(self, work: Work) -> dict[int, str]:
        """What it hands to its user as good, by the number of the job."""
        raise NotImplementedError


def _last_words(done: subprocess.CompletedProcess) -> str:
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["it said nothing"])[0]
