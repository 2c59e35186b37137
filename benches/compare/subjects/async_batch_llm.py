"""async-batch-llm: `process_prompts` with a checkpoint in JSON Lines."""

from subjects.library import Library


class AsyncBatchLlm(Library):
    name = "async-batch-llm"
    package = "async-batch-llm[openai]==0.28.0"
    program = "use_async_batch_llm.py"
    settings = (
        "`process_prompts(llm(\"openai-compatible:…\"))`, `concurrency`, `max_requests_per_minute`, "
        "`quota_burst_seconds`, `RetryConfig(max_attempts=11)`, `JsonlArtifactStore` with `fsync`, "
        "`ResumePolicy.REUSE_SUCCESSES`, a Pydantic model as `response_parser` for JSON"
    )
