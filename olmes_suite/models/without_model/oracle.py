"""A backend that answers with the gold, to which every task must give the full score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from olmes_suite.errors import RequestFailed
from olmes_suite.models.without_model.base import WithoutModel
from olmes_suite.records import Request, Response, sha256

Answers = Callable[[Request], str | float | None]
"""Function from a request to the gold response, or the log-likelihood of a choice; None if the task has no gold."""


class OracleBackend(WithoutModel):
    """Answers with the gold that `answers` returns, without a cut at stop strings."""

    name = "oracle"

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self.answers = answers

    @property
    def fingerprint(self) -> str:
        """A constant, because the answers follow from the task's data, which has a fingerprint."""
        return sha256("oracle-1")

    def respond(self, request: Request, seeds: Sequence[int]) -> list[Response]:
        """Return the gold for every sample. Raises RequestFailed if the task has no gold."""
        return [self._answer(request)] * len(seeds)

    def _answer(self, request: Request) -> Response:
        gold = self.answers(request)
        if gold is None:
            raise RequestFailed(
                f"no answer that scores 1 is known for document {request.doc_id} of {request.task}; "
                "leave the task out of an oracle run"
            )
        if request.kind == "generate":
            if not isinstance(gold, str):
                raise RequestFailed(
                    f"{request.task}: the gold answer of document {request.doc_id} is a number; it must be a text"
                )
            return Response(text=gold, finish_reason="stop", completion_tokens=len(gold.split()))
        if isinstance(gold, str):
            raise RequestFailed(
                f"{request.task}: the gold answer of document {request.doc_id} is a text; it must be a log-likelihood"
            )
        return Response(loglikelihood=float(gold), is_greedy=gold == 0.0)
