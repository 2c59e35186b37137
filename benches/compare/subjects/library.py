"""A library: a short program of ours uses it as its documentation shows, and hands its answers over."""

import json
from pathlib import Path

from subjects import Subject
from work import KEY, MODEL, SCHEMA, Work

PROGRAMS = Path(__file__).resolve().parent.parent / "programs"


class Library(Subject):
    # Its program, in the folder `programs`.
    program: str

    def prepare(self, work: Work) -> None:
        told = {
            "base_url": work.base_url,
            "key": KEY,
            "model": MODEL,
            "jobs": [{"number": number, "prompt": work.prompt(number)} for number in work.numbers],
            "in_flight": work.in_flight,
            "per_minute": work.per_minute,
            "burst": work.burst,
            "retries": work.retries,
            "schema": SCHEMA if work.json else None,
        }
        work.path("work.json").write_text(json.dumps(told))

    def command(self, work: Work, again: bool) -> list[str]:
        return [self.python(), str(PROGRAMS / self.program)]

    def answers(self, work: Work) -> dict[int, str]:
        path = work.path("answers.json")
        return {int(number): answer for number, answer in json.loads(path.read_text())} if path.exists() else {}
