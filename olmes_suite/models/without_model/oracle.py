"""A model that answers with the gold: every task must give it the full score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from olmes_suite.errors import RequestFailed
from olmes_suite.models.without_model.base import WithoutModel
from olmes_suite.records import Request, Response, sha256

Answers = Callable[[Request], str | float | None]
"""The gold response of a `generate` request, the log-likelihood of a choice, None where the task has no gold."""


class OracleBackend(WithoutModel):
    """Answers with what `answers` gives. The gold is passed on whole: no cut at stop strings."""

    name = "oracle"

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self.answers = answers

    @property
    def fingerprint(self) -> str:
        """A constant: the answers follow from the task's own data, which has a fingerprint of its own."""
        return sha256("oracle-1")

    def respond(self, request: Request, seeds: Sequence[int]) -> list[Response]:
        """The gold for every sample. Raises RequestFailed where the task has none."""
        return [self._answer(request)] * len(seeds)

    def _answer(self, request: Request) -> Response:
        gold = self.answers(request)
        if gold is None:
            raise RequestFailed(
                f"{request.task}: has no gold answer for document {request.doc_id}; leave the task out of an oracle run"
            )
        if request.kind == "generate":
            if not isinstance(gold, str):
                raise RequestFailed(
                    f"{request.task}: the gold answer of document {request.doc_id} is a number, a text is needed"
                )
            return Response(text=gold, finish_reason="stop", completion_tokens=len(gold.split()))
        if isinstance(gold, str):
            raise RequestFailed(
                f"{request.task}: the gold answer of document {request.doc_id} is a text, a log-likelihood is needed"
            )
        return Response(loglikelihood=float(gold), is_greedy=gold == 0.0)
