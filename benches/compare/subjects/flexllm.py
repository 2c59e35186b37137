"""flexllm: its command `flexllm batch`, with its configuration in the folder of the work."""

import json

from subjects import Subject
from work import KEY, MODEL, SCHEMA, Work


class Flexllm(Subject):
    name = "flexllm"
    package = "flexllm==0.17.10"
    settings = (
        "`flexllm batch IN -o OUT -c IN_FLIGHT`, `--max-qps` a sixtieth of the quota, `batch.retry_times: 10`, "
        "`--no-track-cost`, `--schema` for JSON"
    )
    cannot = {"quota": "takes a rate and no burst"}

    def prepare(self, work: Work) -> None:
        with work.path("in.jsonl").open("w") as file:
            for number in work.numbers:
                file.write(json.dumps({"messages": [{"role": "user", "content": work.prompt(number)}]}) + "\n")
        home = work.path(".flexllm")
        home.mkdir(exist_ok=True)
        config = {
            "default": MODEL,
            "models": [
                {"id": MODEL, "name": MODEL, "provider": "openai", "base_url": work.base_url, "api_key": KEY}
            ],
            "batch": {"concurrency": work.in_flight, "return_usage": True},
        }
        if work.retries is not None:
            config["batch"]["retry_times"] = work.retries
        # JSON is YAML, too.
        (home / "config.yaml").write_text(json.dumps(config))

    def command(self, work: Work, again: bool) -> list[str]:
        argv = [str(self.home / "bin/flexllm"), "batch", "in.jsonl", "-o", "out.jsonl", "-c", str(work.in_flight)]
        # To track costs it would look for today's price list on the internet.
        argv += ["--no-track-cost"]
        if work.per_minute is not None:
            argv += ["--max-qps", f"{work.per_minute / 60:g}"]
        if work.json:
            # As a whole response_format: from a file it would be sent without the name that OpenAI asks for.
            form = {"type": "json_schema", "json_schema": {"name": "letter", "schema": SCHEMA}}
            argv += ["--schema", json.dumps(form)]
        return argv

    def environment(self, work: Work) -> dict[str, str]:
        return {"HOME": str(work.folder)}

    def answers(self, work: Work) -> dict[int, str]:
        answers = {}
        path = work.path("out.jsonl")
        for line in path.read_text().splitlines() if path.exists() else []:
            line = json.loads(line)
            if line.get("status", "success") == "success":
                answers[work.numbers[line["index"]]] = line.get("output") or ""
        return answers
