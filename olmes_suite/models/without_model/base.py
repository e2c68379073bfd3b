"""The base class of backends without a model, which answer requests one after the other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from olmes_suite.models.base import Backend
from olmes_suite.records import OPTIONAL, Request, Response


class WithoutModel(Backend):
    """A backend whose answers follow from the request. A subclass implements `respond`."""

    fields = frozenset({*OPTIONAL, "unset"})

    @abstractmethod
    def respond(self, request: Request, seeds: Sequence[int]) -> Iterable[Response]:
        """Return a response for each of the seeds (at least one)."""

    def run(
        self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]]
    ) -> Iterator[tuple[int, int, Response]]:
        """Yield a response for each requested sample, in order. Raises what `respond` raises."""
        for position, (request, row) in enumerate(zip(requests, seeds, strict=True)):
            if self.stop_requested:
                return
            requested = {sample: seed for sample, seed in enumerate(row) if seed is not None}
            if requested:
                responses = self.respond(request, list(requested.values()))
                for sample, response in zip(requested, responses, strict=True):
                    yield position, sample, response
