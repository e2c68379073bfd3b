"""What backends without a model share: they answer one request after the other, at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from olmes_suite.models.base import Backend
from olmes_suite.records import Request, Response


class WithoutModel(Backend):
    """A backend whose answers follow from the request. A subclass says how one request is answered."""

    @abstractmethod
    def respond(self, request: Request, seeds: Sequence[int]) -> Iterable[Response]:
        """Return a response for each seed, of which there is at least one."""

    def run(
        self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]]
    ) -> Iterator[tuple[int, int, Response]]:
        """An answer for every sample that is asked for, in order. Raises what `respond` raises."""
        for position, (request, row) in enumerate(zip(requests, seeds, strict=True)):
            if self.stop_requested:
                return
            wanted = {sample: seed for sample, seed in enumerate(row) if seed is not None}
            if wanted:
                given = self.respond(request, list(wanted.values()))
                for sample, response in zip(wanted, given, strict=True):
                    yield position, sample, response
