"""Uses async-batch-llm as "Production runs" in its README does: checkpoints, resume, admission by the quota."""

import asyncio
import json

from async_batch_llm import (
    ArtifactIdentity,
    JsonlArtifactStore,
    ProcessorConfig,
    RateLimitConfig,
    ResumePolicy,
    RetryConfig,
    llm,
    process_prompts,
)
from pydantic import BaseModel, ConfigDict

with open("work.json") as file:
    work = json.load(file)


class Letter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    label: str
    sure: bool
    reason: str


def letter(response):
    Letter.model_validate_json(response.text)
    return response.text


async def main() -> None:
    parser = {"response_parser": letter} if work["schema"] else {}
    strategy = llm(f"openai-compatible:{work['model']}", base_url=work["base_url"], api_key=work["key"], **parser)
    config = ProcessorConfig(
        concurrency=work["in_flight"],
        max_requests_per_minute=work["per_minute"],
        quota_burst_seconds=work["burst"] * 60 / work["per_minute"] if work["per_minute"] else None,
        # It counts the first attempt, too.
        retry=RetryConfig(max_attempts=work["retries"] + 1) if work["retries"] else RetryConfig(),
        rate_limit=RateLimitConfig(cooldown_seconds=1, slow_start_items=0),
    )
    identity = ArtifactIdentity(provider="simulator", model=work["model"])
    batch = await process_prompts(
        strategy,
        [(str(job["number"]), job["prompt"]) for job in work["jobs"]],
        config=config,
        artifact_store=JsonlArtifactStore("run.jsonl", identity=identity, fsync=True),
        resume=ResumePolicy.REUSE_SUCCESSES,
    )
    print(batch.summary())
    with open("answers.json", "w") as file:
        json.dump([[result.item_id, result.output] for result in batch.results if result.success], file)


asyncio.run(main())
