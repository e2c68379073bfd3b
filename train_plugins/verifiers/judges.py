"""The judge of a training: it asks a served model about responses, all at once, and reports what that cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from olmes_suite.errors import OlmesError, RequestFailed, StageRefused, UsageError
from olmes_suite.judges.base import Answer, Question
from olmes_suite.judges.server import ServerJudge
from train_plugins.verifiers import judged
from train_plugins.verifiers.base import Call, Malformed, VerifierFailed, where
from train_plugins.verifiers.judge_keys import JudgeKeys, check_judge


@dataclass(slots=True)
class Spent:
    """The judge's requests and tokens since these counts were last read."""

    requests: float = 0
    cached: float = 0
    """Questions answered from the cache, or by an equal question."""
    retries: float = 0
    """Requests that were sent again."""
    prompt_tokens: float = 0
    completion_tokens: float = 0
    unparsed: float = 0
    """Responses without a verdict, because no reply could be read."""
    seconds: float = 0
    dollars: float = 0
    """By OpenAI's published prices; 0 for other servers."""


class Judges:
    """Asks the judge of a training about responses; for use by one thread."""

    def __init__(self, keys: JudgeKeys, share: int = 1) -> None:
        """`share`: number of processes that ask at the same time and share the limits. Raises UsageError."""
        self.keys = keys
        self.template = check_judge(keys)
        rate = keys.requests_per_minute
        self.judge = ServerJudge(
            keys.model, keys.base_url, concurrency=max(keys.concurrency // share, 1), tries=keys.tries,
            timeout=keys.timeout, cache=Path(keys.cache).expanduser() if keys.cache else None,
            per_minute=rate / share if rate else None,
        )  # fmt: skip
        self.spent = Spent()
        self._counted = (0, 0, 0, 0, 0)
        self._paid = 0.0

    def check(self) -> None:
        """Check that the server answers and has the model. Raises UsageError."""
        try:
            names = self.judge.endpoint.models()
        except OlmesError as error:
            raise UsageError(f"rlvr.judge: {error}") from None
        if names is not None and self.keys.model not in names:
            listed = ", ".join(names[:5])
            raise UsageError(f"rlvr.judge: {self.keys.base_url} has no model {self.keys.model!r}; it has {listed}")

    def verify(self, calls: Sequence[Call]) -> list[float | None]:
        """Return the value of each response, in order; None where no reply could be read.

        A blank response gets 0 without a question. Raises StageRefused if the server fails for good, VerifierFailed for
        a truth that cannot be read.
        """
        started = time.monotonic()
        values: dict[int, float | None] = dict.fromkeys(range(len(calls)), 0.0)
        texts = {number: self._text(call) for number, call in enumerate(calls) if call.response.strip()}
        try:
            for attempt in range(1, self.keys.replies + 1):
                replies = self._asked(texts, attempt)
                for number, reply in replies.items():
                    call = calls[number]
                    values[number] = judged.value_of(call.verifier.lower(), reply, call.truth)
                texts = {number: text for number, text in texts.items() if values[number] is None}
                if not texts:
                    break
        finally:
            self._count(len(texts), time.monotonic() - started)
        return [values[number] for number in range(len(calls))]

    def take(self) -> Spent:
        """Return what was spent since the last call."""
        spent, self.spent = self.spent, Spent()
        return spent

    def abandon(self) -> None:
        """Wait for no more replies: a server may be silent for minutes."""
        self.judge.abandon()

    def close(self) -> None:
        """Close the cache."""
        self.judge.close()

    def _text(self, call: Call) -> str:
        try:
            return judged.question(call.verifier.lower(), call.response, call.truth, call.row, self.template)
        except Malformed as error:
            raise VerifierFailed(f"{where(call)}: {error}") from None

    def _asked(self, texts: Mapping[int, str], attempt: int) -> dict[int, str]:
        """Return the replies; a repeated question differs, so that the cache does not answer it."""
        again = "" if attempt == 1 else judged.AGAIN.replace("{number}", str(attempt))
        numbers = list(texts)
        questions = [
            Question((("user", texts[number] + again),), None, self.keys.max_tokens, self.keys.temperature)
            for number in numbers
        ]
        replies: dict[int, Answer] = {}
        try:
            replies = {numbers[position]: answer for position, answer in self.judge.ask(questions)}
        except RequestFailed as error:
            raise StageRefused(
                f"the judge {error}; the answers so far are cached: when it answers again, continue with --resume"
            ) from None
        return {number: answer.text for number, answer in replies.items()}

    def _count(self, unparsed: int, seconds: float) -> None:
        usage = self.judge.usage
        now = (usage.asked, usage.cached, usage.retries, usage.prompt_tokens, usage.completion_tokens)
        requests, cached, retries, prompt, completion = (
            after - before for after, before in zip(now, self._counted, strict=True)
        )
        self._counted = now
        paid = self.judge.cost() or 0.0
        spent = self.spent
        self.spent = Spent(
            spent.requests + requests, spent.cached + cached, spent.retries + retries, spent.prompt_tokens + prompt,
            spent.completion_tokens + completion, spent.unparsed + unparsed, spent.seconds + seconds,
            spent.dollars + paid - self._paid,
        )  # fmt: skip
        self._paid = paid
