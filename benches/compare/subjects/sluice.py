"""Sluice itself: `sluice run`, with a private Postgres in the folder of the work, fsync on."""

import json
import os
import subprocess
from pathlib import Path

from subjects import Subject
from work import MODEL, SCHEMA, Work


class Sluice(Subject):
    name = "Sluice"
    settings = (
        "`sluice run FILE -o OUT`, private Postgres with fsync, made before by `sluice migrate`; `limits` as the "
        "provider has them; `validate.json_schema_file` for JSON; else defaults"
    )

    def __init__(self, program: Path):
        super().__init__(program.parent)
        self._program = program

    def install(self) -> str | None:
        return None if self._program.exists() else f"{self._program} is not there: make build"

    def prepare(self, work: Work) -> None:
        with work.path("prompts.jsonl").open("w") as file:
            for number in work.numbers:
                body = {"model": MODEL, "messages": [{"role": "user", "content": work.prompt(number)}]}
                line = {"custom_id": f"{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
                file.write(json.dumps(line) + "\n")
        limits = [f"concurrency = {work.in_flight}"]
        if work.per_minute is not None:
            limits = [f"requests_per_minute = {work.per_minute}", f"burst_requests = {work.burst}"]
        validate = ""
        if work.json:
            work.path("schema.json").write_text(json.dumps(SCHEMA))
            validate = f"validate = {{ json_schema_file = {json.dumps(str(work.path('schema.json')))} }}"
        work.path("sluice.toml").write_text(f"""
[database]
data_dir = "{work.path('postgres')}"
[spool]
dir = "{work.path('spool')}"
[http]
listen = "off"
[providers.api]
dialect = "openai"
base_url = "{work.base_url}"
limits = {{ {", ".join(limits)} }}
[models."api/{MODEL}"]
price = {{ input = "0.15", output = "0.60" }}
[routes.default]
rungs = ["api/{MODEL}"]
{validate}
""")
        if work.installed and not work.path("postgres").exists():
            # As after an installation: the stage `start` measures the first start.
            environment = {"PATH": os.environ["PATH"]} | self.environment(work)
            migrate = [str(self._program), "migrate"]
            subprocess.run(migrate, env=environment, cwd=work.folder, check=True, capture_output=True)

    def command(self, work: Work, again: bool) -> list[str]:
        run = [str(self._program), "run", "prompts.jsonl", "-o", "answers.jsonl", "--errors", "failed.jsonl"]
        name = f"from-{work.numbers.start}"
        run += ["--batch", name, "--force"]
        if not again:
            return run
        # Failed jobs stay as they are until a person puts them back.
        script = f'"$0" batch retry {name} --quiet; exec "$@"'
        return ["sh", "-c", script, str(self._program), *run]

    def environment(self, work: Work) -> dict[str, str]:
        return {"SLUICE_CONFIG": str(work.path("sluice.toml"))}

    def answers(self, work: Work) -> dict[int, str]:
        answers = {}
        path = work.path("answers.jsonl")
        for line in path.read_text().splitlines() if path.exists() else []:
            line = json.loads(line)
            content = line["response"]["body"]["choices"][0]["message"]["content"]
            answers[int(line["custom_id"])] = content or ""
        return answers
