"""The settings of the judge that rewards may ask, and their checks. Nothing of the client is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from olmes_suite.errors import UsageError
from train_plugins.verifiers import judged


@dataclass(frozen=True, slots=True)
class JudgeKeys:
    """Keys under `rlvr.judge`: the model that the verifiers `judge` and `rubric` ask."""

    model: str
    """The served name."""
    base_url: str
    """Address of an OpenAI-compatible server, which usually ends in /v1; the key is `$OPENAI_API_KEY`."""
    concurrency: int = 32
    """Most requests at one time, of all processes together."""
    requests_per_minute: float | None = None
    """Most requests a minute, of all processes together."""
    max_tokens: int = 1024
    temperature: float = 0.0
    replies: int = 3
    """Replies to ask for until one can be read; then the response has no verdict."""
    tries: int = 7
    """Tries of a request that the server does not answer; then the training stops."""
    timeout: float = 120.0
    """Seconds without data in a request."""
    prompt: str | None = None
    """A file with the judge's prompt, with {prompt}, {response}, {reference} or {criteria}; None: our own."""
    cache: str | None = None
    """Folder of cached judgements; None: olmes' cache folder."""


def check_judge(keys: JudgeKeys) -> str | None:
    """Return the text of the prompt's file. Raises UsageError for numbers out of range and an unusable prompt."""
    for name, least in (("concurrency", 1), ("max_tokens", 1), ("replies", 1), ("tries", 1), ("temperature", 0)):
        if not getattr(keys, name) >= least:
            raise UsageError(f"rlvr.judge.{name} must be at least {least}, not {getattr(keys, name)}")
    for name in ("requests_per_minute", "timeout"):
        value = getattr(keys, name)
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"rlvr.judge.{name} must be above 0, not {value}")
    if not keys.base_url.startswith(("http://", "https://")):
        raise UsageError(f"rlvr.judge.base_url {keys.base_url}: expected http://HOST:PORT/v1")
    if keys.prompt is None:
        return None
    try:
        text = Path(keys.prompt).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"rlvr.judge.prompt {keys.prompt} cannot be read: {error}") from None
    if wrong := judged.check_template(text):
        raise UsageError(f"rlvr.judge.prompt {keys.prompt}: {wrong}")
    return text
