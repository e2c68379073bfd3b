"""The cost of a served model or judge: requests, tokens, and money where the price is published."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

PRICED_HOST = "api.openai.com"


@dataclass(slots=True)
class Usage:
    """The counts of one run."""

    asked: int = 0
    """Requests that a model answered."""
    cached: int = 0
    """Requests answered from the cache or by an equal request of this run."""
    retries: int = 0
    """Tries beyond the first of each request."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    truncated: int = 0
    """Requests whose prompt did not fit the model's context and was cut on the left."""

    def add(self, prompt_tokens: int, completion_tokens: int, cached: bool) -> None:
        """Count one answer. A cached answer costs no tokens."""
        if cached:
            self.cached += 1
            return
        self.asked += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def as_json(self) -> dict[str, Any]:
        """Return the counts in the form used in manifest.json."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@lru_cache(maxsize=1)
def _prices() -> dict[str, tuple[float, float]]:
    return yaml.safe_load((Path(__file__).parent / "prices.yaml").read_text(encoding="utf-8"))


def cost(model: str, base_url: str, usage: Usage) -> float | None:
    """Return the cost in US dollars, or None where the model has no published price."""
    if urlsplit(base_url).hostname != PRICED_HOST or model not in _prices():
        return None
    prompt, completion = _prices()[model]
    return (usage.prompt_tokens * prompt + usage.completion_tokens * completion) / 1e6
