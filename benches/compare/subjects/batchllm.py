"""batchllm-ai: its command `batchllm run` with a checkpoint."""

import json
import math

from subjects import Subject
from work import KEY, MODEL, Work


class Batchllm(Subject):
    name = "batchllm-ai"
    package = "batchllm-ai==0.2.0"
    settings = (
        "`batchllm run IN -o OUT -c IN_FLIGHT --max-retries 10 --checkpoint FILE`, with a quota as many in flight as "
        "it admits by latency, `--expect-json --expect-keys` for JSON"
    )
    cannot = {"quota": "takes no rate: only calls in flight"}

    def prepare(self, work: Work) -> None:
        with work.path("in.jsonl").open("w") as file:
            for number in work.numbers:
                file.write(json.dumps({"input": work.prompt(number)}) + "\n")

    def command(self, work: Work, again: bool) -> list[str]:
        in_flight = work.in_flight
        if work.per_minute is not None:
            in_flight = math.ceil(work.per_minute / 60 * work.latency)
        argv = [str(self.home / "bin/batchllm"), "run", "in.jsonl", "-o", "out.jsonl", "-m", MODEL]
        argv += ["-c", str(in_flight), "--checkpoint", "run.ckpt"]
        argv += ["--base-url", work.base_url, "--api-key", KEY]
        if work.retries is not None:
            argv += ["--max-retries", str(work.retries)]
        if work.json:
            argv += ["--expect-json", "--expect-keys", "label,sure,reason"]
        if again:
            argv += ["--retry-failed"]
        return argv

    def answers(self, work: Work) -> dict[int, str]:
        answers = {}
        path = work.path("out.jsonl")
        lines = path.read_text().splitlines() if path.exists() else []
        for number, line in zip(work.numbers, lines):
            line = json.loads(line)
            if not line.get("error"):
                answers[number] = line.get("output") or ""
        return answers
