"""A backend that gives a constant, degenerate answer to every request, to measure the floor of tasks.

`olmes eval --backend floor` runs each answer in turn (`olmes_suite.evaluation.floor`); the best score of a task is its
floor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from olmes_suite.errors import UsageError
from olmes_suite.models.stops import cut_at_stop
from olmes_suite.models.without_model.base import WithoutModel
from olmes_suite.records import Request, Response, sha256

_WORD = "Spring"
_FILLER = (
    "There is much to be said about this, and it can be looked at from several sides. First of all it helps to be "
    "clear about what is meant. Then one may weigh what speaks for it and what speaks against it. In the end it "
    "depends on the case at hand, on what is known about it, and on what is to be done with the answer."
)


def _prompt(request: Request) -> str:
    return request.messages[-1][1] if request.messages else request.text or ""


ANSWERS: Mapping[str, Callable[[Request], str]] = {
    "empty": lambda request: "",
    "word": lambda request: _WORD,
    "echo": _prompt,
    "filler": lambda request: "\n\n".join([_FILLER] * 8),
}
"""The answers by name: an empty text, an English noun, the last user message, a long text without content."""


class FloorBackend(WithoutModel):
    """Gives one of `ANSWERS` to every request, and all continuations the same log-likelihood."""

    name = "floor"

    def __init__(self, answer: str = "word") -> None:
        """Raises UsageError for an unknown name of an answer."""
        super().__init__()
        if answer not in ANSWERS:
            raise UsageError(f"the floor's answers are {', '.join(ANSWERS)}, not {answer!r}")
        self.answer = answer

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the answer's name; the version "floor-2" changes when a text of `ANSWERS` does."""
        return sha256(f"floor-2\n{self.answer}")

    def respond(self, request: Request, seeds: Sequence[int]) -> list[Response]:
        """Return the same text for every sample, or a log-likelihood of -1."""
        ranked = Response(loglikelihood=-1.0, is_greedy=False)
        return [self._text(request) if request.kind == "generate" else ranked] * len(seeds)

    def _text(self, request: Request) -> Response:
        """Return the text as a model would: within the token limit (a word is a token), cut at stop strings."""
        raw = ANSWERS[self.answer](request)
        if request.max_tokens is not None:
            raw = " ".join(raw.split(" ")[: request.max_tokens])
        text = cut_at_stop(raw, request.stop)
        return Response(
            text=text, finish_reason="stop", completion_tokens=len(text.split()), raw=raw if raw != text else None
        )
