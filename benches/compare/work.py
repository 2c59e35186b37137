"""What a subject is asked to do, and what it is told of the provider."""

from dataclasses import dataclass
from pathlib import Path

MODEL = "gpt-4o-mini"
# No provider has given it out: the simulator takes any.
KEY = "sk-no-real-key"

# What an answer has to be in the stage `json`.
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}, "sure": {"type": "boolean"}, "reason": {"type": "string"}},
    "required": ["label", "sure", "reason"],
    "additionalProperties": False,
}


@dataclass
class Work:
    """Some numbered jobs in a folder of their own."""

    folder: Path
    base_url: str
    numbers: range
    # Calls under way at once, at most.
    in_flight: int
    # How long an answer takes on average, in seconds.
    latency: float = 0.0
    # The provider's quota, where there is one.
    per_minute: int | None = None
    burst: int | None = None
    # How often a failed call is made again, for those who can be told; None: as often as they do by themselves.
    retries: int | None = 10
    # Whether answers have to keep to SCHEMA.
    json: bool = False
    # Whether what is set up once, before the first work, is there.
    installed: bool = True

    def prompt(self, number: int) -> str:
        return f"Job number {number}: is this letter about billing, about a fault, or praise? It came on day {number}."

    def prompts(self) -> list[str]:
        return [self.prompt(number) for number in self.numbers]

    def path(self, name: str) -> Path:
        return self.folder / name
