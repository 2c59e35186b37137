"""Uses bespokelabs-curator as its README does: a class with `prompt` and `parse`, and the OpenAI backend."""

import json

from bespokelabs import curator
from datasets import Dataset
from pydantic import BaseModel

with open("work.json") as file:
    work = json.load(file)


class Letter(BaseModel):
    label: str
    sure: bool
    reason: str


class Clerk(curator.LLM):
    def prompt(self, job: dict):
        return job["prompt"]

    def parse(self, job: dict, response):
        answer = response.model_dump_json() if isinstance(response, BaseModel) else response
        return [{"number": job["number"], "answer": answer}]


if __name__ == "__main__":
    clerk = Clerk(
        model_name=work["model"],
        backend="openai",
        response_format=Letter if work["schema"] else None,
        backend_params={
            "base_url": work["base_url"],
            "api_key": work["key"],
            "max_concurrent_requests": work["in_flight"],
            # Without a quota: more than it can do. It has no way to say "no limit".
            "max_requests_per_minute": work["per_minute"] or 10_000_000,
            "max_tokens_per_minute": 10_000_000_000,
            # Its README's number for a provider that often fails: it makes failed calls again without a pause.
            **({"max_retries": 50} if work["retries"] else {}),
            "require_all_responses": False,
        },
    )
    answered = clerk(Dataset.from_list(work["jobs"]))
    with open("answers.json", "w") as file:
        json.dump([[row["number"], row["answer"]] for row in answered.dataset], file)
