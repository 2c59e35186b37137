"""bespokelabs-curator: `curator.LLM` with the OpenAI backend."""

from subjects.library import Library
from work import Work


class Curator(Library):
    name = "bespokelabs-curator"
    package = "bespokelabs-curator==0.1.31"
    program = "use_curator.py"
    settings = (
        "`curator.LLM(backend=\"openai\")`, `max_concurrent_requests`, `max_requests_per_minute`, "
        "`max_retries` 50 (as its README does where a provider fails often), `require_all_responses` off, cache on, "
        "`response_format` for JSON"
    )
    cannot = {"quota": "takes a rate and no burst"}

    def command(self, work: Work, again: bool) -> list[str]:
        # Without its set of answers it asks again for those that it has not; what it has, it keeps in another file.
        program = super().command(work, again)
        return ["sh", "-c", 'rm -f cache/*/*.arrow; exec "$@"', "sh", *program] if again else program

    def environment(self, work: Work) -> dict[str, str]:
        return {
            "HOME": str(work.folder),
            "CURATOR_CACHE_DIR": str(work.path("cache")),
            # Documented switches: curator's own, PostHog's, LiteLLM's price list, Hugging Face's libraries.
            "TELEMETRY_ENABLED": "False",
            "POSTHOG_DISABLED": "1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            # The encoding that curator counts tokens with would be fetched; LiteLLM brings it along.
            "TIKTOKEN_CACHE_DIR": next(map(str, self.home.glob("lib/*/site-packages/litellm/**/tokenizers")), ""),
            "CURATOR_DISABLE_RICH_DISPLAY": "1",
        }
