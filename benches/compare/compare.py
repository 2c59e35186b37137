"""Compares Sluice with peers from the registry of Python packages, against `sluice simulate`. `make compare` runs it.

Settings of the environment:

    SLUICE_COMPARE_ONLY   names of subjects or stages, separated by commas; all of them without it
    SLUICE_COMPARE_SCALE  a share of the jobs (1)
    SLUICE_COMPARE_TRIES  "theirs": each program's own number of tries (10)
    SLUICE_COMPARE_WITH   the program that is compared (target/release/sluice)

It needs Linux (memory is read from /proc), Python 3.11, pip, and for the check of addresses strace. Each peer gets a
virtual environment of its own under target/compare/peers. The result is printed, and written to
target/compare/report.md; every figure is in target/compare/figures.json.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from report import report
from stages import Stages
from subjects.async_batch_llm import AsyncBatchLlm
from subjects.batchllm import Batchllm
from subjects.curator import Curator
from subjects.flexllm import Flexllm
from subjects.sluice import Sluice

ROOT = Path(__file__).resolve().parent.parent.parent


def loopback_only() -> bool:
    """Goes into a network namespace that has nothing but the loopback address, where this user may: what is started
    from here on cannot reach anything else, whatever it tries."""
    new_network = 0x40000000
    if shutil.which("ip") is None or ctypes.CDLL(None, use_errno=True).unshare(new_network) != 0:
        return False
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    return True


def main() -> int:
    # Asked to end, it ends what it started, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    target = ROOT / "target/compare"
    target.mkdir(parents=True, exist_ok=True)
    sluice = Path(os.environ.get("SLUICE_COMPARE_WITH", ROOT / "target/release/sluice")).resolve()
    scale = float(os.environ.get("SLUICE_COMPARE_SCALE", "1"))
    retries = None if os.environ.get("SLUICE_COMPARE_TRIES") == "theirs" else 10
    only = {name.strip() for name in os.environ.get("SLUICE_COMPARE_ONLY", "").split(",") if name.strip()}
    peers = [Flexllm, Curator, Batchllm, AsyncBatchLlm]
    subjects = [Sluice(sluice), *(peer(target / "peers" / peer.name) for peer in peers)]
    known = {subject.name for subject in subjects} | set(Stages.ALL)
    if only - known:
        print(f"SLUICE_COMPARE_ONLY names {', '.join(sorted(only - known))}; there are {', '.join(sorted(known))}")
        return 2
    subjects = [subject for subject in subjects if not only & {s.name for s in subjects} or subject.name in only]
    wanted = [stage for stage in Stages.ALL if not only & set(Stages.ALL) or stage in only]

    began = time.monotonic()
    failed = {}
    for subject in subjects:
        print(f"{subject.name}: installing {subject.package}" if subject.package else f"{subject.name}", flush=True)
        if words := subject.install():
            failed[subject.name] = words
            print(f"{subject.name}: {words}", flush=True)
    installed = time.monotonic() - began
    apart = loopback_only()
    ready = [subject for subject in subjects if subject.name not in failed]
    figures = {subject.name: {} for subject in ready}
    stages = {s.name: Stages(s, sluice, target / "work" / s.name, scale, retries) for s in ready}
    # Stage by stage and not program by program: what else this machine does in the meantime meets all alike.
    for stage in wanted:
        for name, subject in stages.items():
            figures[name][stage] = subject.measure(stage)
    took = time.monotonic() - began - installed
    (target / "figures.json").write_text(json.dumps(figures, indent=1))
    text = report(subjects, figures, failed, apart, scale, installed, took)
    if retries is None:
        text += "\nTries: as many as each program makes by itself, and not as told above.\n"
    (target / "report.md").write_text(text)
    print(f"\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
