"""The figures as a page in Markdown."""

import datetime
import os
import platform
from dataclasses import dataclass
from typing import Callable

from stages import TOKENS
from subjects import Subject

MEGABYTE = 1_000_000


@dataclass
class Row:
    """A line of the table."""

    what: str
    stage: str
    # What stands in the cell.
    shown: Callable[[dict], str]
    # What is compared: the best is set in bold, with those within two hundredths of it. None: nothing is.
    value: Callable[[dict], float] | None = None
    most_is_best: bool = False


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _lost_then(figures: dict) -> str:
    return f"{figures['lost']}, then {figures['lost_then']}" if figures["lost"] else "0"


def _thousand(figures: dict) -> str:
    return f"{figures['dollars_per_good'] * 1000:.4f}" if figures["dollars_per_good"] else "none good"


def _rubbish(stage: str, name: str) -> list[Row]:
    return [
        Row(f"{name}: bad answers handed over as good", stage, lambda f: f"{f['bad']}", lambda f: f["bad"]),
        Row(f"{name}: jobs without an answer, and after a second start", stage, _lost_then, lambda f: f["lost"]),
        Row(
            f"{name}: dollars per 1,000 good answers",
            stage,
            _thousand,
            lambda f: f["dollars_per_good"] or float("inf"),
        ),
    ]


ROWS = [
    Row("start to end of one job, the first time, s", "start", lambda f: f"{f['first']:.1f}", lambda f: f["first"]),
    Row("the next time, s", "start", lambda f: f"{f['again']:.1f}", lambda f: f["again"]),
    Row(
        "no limits: answers a second, from the first call to the last answer",
        "rate",
        lambda f: f"{f['per_second']:,.0f}",
        lambda f: f["per_second"],
        most_is_best=True,
    ),
    Row(
        "no limits: answers a second, from the start of the program to its end",
        "rate",
        lambda f: f"{f['whole_per_second']:,.0f}",
        lambda f: f["whole_per_second"],
        most_is_best=True,
    ),
    Row(
        "no limits: resident memory at most, all processes, MB",
        "rate",
        lambda f: f"{f['bytes'] / MEGABYTE:.0f}"
        + (f" (Postgres {f['postgres_bytes'] / MEGABYTE:.0f})" if f["postgres_bytes"] else ""),
        lambda f: f["bytes"],
    ),
    Row(
        "quota: share used, from the first call to the last answer",
        "quota",
        lambda f: _percent(f["used"]),
        lambda f: f["used"],
        most_is_best=True,
    ),
    Row(
        "quota: share used, from the start of the program to its end",
        "quota",
        lambda f: _percent(f["used_by_wall"]),
        lambda f: f["used_by_wall"],
        most_is_best=True,
    ),
    Row("quota: answers 429", "quota", lambda f: f"{f['rate_limited']}", lambda f: f["rate_limited"]),
    Row("quota: jobs without an answer", "quota", lambda f: f"{f['lost']}", lambda f: f["lost"]),
    Row(
        "faults: jobs without an answer, and after a second start",
        "faults",
        _lost_then,
        lambda f: f["lost"],
    ),
    Row("faults: from the start to the end, s", "faults", lambda f: f"{f['seconds']:.0f}", lambda f: f["seconds"]),
    Row("faults: calls made for that", "faults", lambda f: f"{f['calls']:,}", lambda f: f["calls"]),
    Row(
        "faults: calls before a wait was over that an answer had told",
        "faults",
        lambda f: f"{f['early']}",
        lambda f: f["early"],
    ),
    Row(
        "`kill -9`: answered twice; calls under way when it came",
        "kill",
        lambda f: f"{f['twice']}; {f['cut_off']}",
        lambda f: f["twice"],
    ),
    Row("`kill -9`: jobs without an answer in the end", "kill", lambda f: f"{f['lost']}", lambda f: f["lost"]),
    *_rubbish("text", "text"),
    *_rubbish("json", "JSON"),
    Row(
        "addresses called beyond this machine (strace)",
        "addresses",
        lambda f: (", ".join(f["addresses"]) or "none") if f["checked"] else "not checked",
    ),
]


def _line(row: Row, names: list[str], figures: dict[str, dict]) -> str:
    cells = {}
    values = {}
    for name in names:
        found = figures.get(name, {}).get(row.stage)
        if found is None:
            cells[name] = "" if name in figures else "not installed"
        elif "error" in found:
            cells[name] = "failed"
        else:
            cells[name] = row.shown(found)
            if row.value is not None:
                values[name] = row.value(found)
    if len(values) > 1:
        best = max(values.values()) if row.most_is_best else min(values.values())
        equal = [name for name, value in values.items() if abs(value - best) <= abs(best) * 0.02]
        # What all do as well is no merit of one.
        for name in equal if len(equal) < len(values) else []:
            cells[name] = f"**{cells[name]}**"
    return f"| {row.what} | " + " | ".join(cells[name] for name in names) + " |"


def _jobs(figures: dict[str, dict]) -> str:
    """How many jobs each stage had."""
    numbers = {stage: one["jobs"] for found in figures.values() for stage, one in found.items() if "jobs" in one}
    return ", ".join(f"{stage} {number:,}" for stage, number in numbers.items())


def report(
    subjects: list[Subject],
    figures: dict[str, dict],
    failed: dict[str, str],
    apart: bool,
    scale: float,
    installed: float,
    took: float,
) -> str:
    names = [subject.name for subject in subjects]
    lines = [
        f"{datetime.date.today():%Y-%m-%d}, {os.cpu_count()} cores, {platform.system()}, Python "
        f"{platform.python_version()}. Installing took {installed:.0f} s, measuring {took:.0f} s"
        + (f", with {scale:g} of the jobs." if scale != 1 else "."),
        "",
        "| | " + " | ".join(subject.package or subject.name for subject in subjects) + " |",
        "|---|" + "---|" * len(subjects),
    ]
    lines += [_line(row, names, figures) for row in ROWS if any(row.stage in found for found in figures.values())]
    lines += [
        "",
        f"The best of a line is in bold. Jobs: {_jobs(figures)}; {TOKENS} tokens an answer.",
        "The programs ran "
        + ("where there is no network but the loopback address." if apart else "with the network of this machine."),
        "",
        "| | told | cannot be told |",
        "|---|---|---|",
    ]
    for subject in subjects:
        cannot = "; ".join(f"{stage}: {what}" for stage, what in subject.cannot.items())
        lines.append(f"| {subject.name} | {subject.settings} | {cannot} |")
    trouble = [f"- {name} could not be installed: {words[:200]}" for name, words in failed.items()]
    for name, stages in figures.items():
        for stage, found in stages.items():
            words = [found["error"]] if "error" in found else found["trouble"]
            trouble += [f"- {name}, {stage}: {word}" for word in words]
    if trouble:
        lines += ["", "Trouble:", "", *trouble]
    return "\n".join(lines) + "\n"
