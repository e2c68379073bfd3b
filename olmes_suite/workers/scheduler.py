"""The scheduler of all kinds of workers, which hands out open requests piece by piece."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from olmes_suite.errors import RequestFailed
from olmes_suite.records import Request, Response

Answered = tuple[int, int, Response]
Seeds = tuple[int | None, ...]
MOST_DEATHS = 3
"""Workers that may die over a request before the request counts as the cause."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Requests for one worker, with the seeds of the open samples of each (None: not open)."""

    number: int
    positions: tuple[int, ...]
    """The positions of the requests among all requests of the run."""
    requests: tuple[Request, ...]
    seeds: tuple[Seeds, ...]


class Board:
    """The open requests, in an order that keeps equal prompt beginnings together and never splits a context.

    A piece has 1 / (2 * workers) of the open samples, and at least `least` of them, so that pieces shrink and all
    workers end together. Thread-safe.
    """

    def __init__(
        self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]], workers: int, least: int
    ) -> None:
        self._requests = requests
        self._workers = workers
        self._open_samples = [{sample: seed for sample, seed in enumerate(row) if seed is not None} for row in seeds]
        self._width = [len(row) for row in seeds]
        self._groups: deque[list[int]] = deque(_groups(requests, self._open_samples))
        self._left = sum(map(len, self._open_samples))
        self._least = min(least, max(1, -(-self._left // workers)))
        self._deaths: Counter[int] = Counter()
        self._number = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def finished(self) -> bool:
        """Whether all requests are answered."""
        with self._changed:
            return not self._left

    @property
    def closed(self) -> bool:
        """Whether the board hands out no more pieces."""
        return self._closed

    def take(self) -> Piece | None:
        """Return the next piece, or None at the end. Waits while other workers hold all open requests."""
        with self._changed:
            while not self._groups and self._left and not self._closed:
                self._changed.wait()
            if self._closed or not self._groups:
                return None
            waiting = sum(len(self._open_samples[position]) for group in self._groups for position in group)
            size = max(self._least, waiting // (2 * self._workers))
            taken: list[int] = []
            samples = 0
            while self._groups and samples < size:
                suspect = self._deaths[self._groups[0][0]] > 1
                if suspect and taken:
                    break
                group = self._groups.popleft()
                taken += group
                samples += sum(len(self._open_samples[position]) for position in group)
                if suspect:  # a piece of its own, to identify a request that kills workers
                    break
            self._number += 1
            return Piece(
                self._number,
                tuple(taken),
                tuple(self._requests[position] for position in taken),
                tuple(self._seeds_of(position) for position in taken),
            )

    def _seeds_of(self, position: int) -> Seeds:
        open_samples = self._open_samples[position]
        return tuple(open_samples.get(sample) for sample in range(self._width[position]))

    def new(self, piece: Piece, answers: Iterable[Answered]) -> list[Answered]:
        """Return the answers that are new, with their positions among all requests."""
        fresh = []
        with self._changed:
            for place, sample, response in answers:
                position = piece.positions[place]
                if self._open_samples[position].pop(sample, None) is not None:
                    self._left -= 1
                    fresh.append((position, sample, response))
            if not self._left:
                self._changed.notify_all()
        return fresh

    def give_back(self, piece: Piece, reason: str) -> None:
        """Return the open requests of a dead worker's piece to the front of the queue.

        Raises RequestFailed where MOST_DEATHS workers have died over the same request.
        """
        with self._changed:
            left = [position for position in piece.positions if self._open_samples[position]]
            self._deaths.update(left)
            for group in reversed(_together(left, self._requests)):
                self._groups.appendleft(group)
            self._changed.notify_all()
            if left and self._deaths[left[0]] >= MOST_DEATHS:
                request = self._requests[left[0]]
                raise RequestFailed(
                    f"{request.task}: {MOST_DEATHS} workers died over document {request.doc_id} ({reason}); "
                    "lower --batch-size or --max-length"
                )

    def unanswered(self, piece: Piece) -> int:
        """Count the requests of a piece that lack answers."""
        with self._changed:
            return sum(bool(self._open_samples[position]) for position in piece.positions)

    def close(self) -> None:
        """Stop handing out pieces."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _groups(requests: Sequence[Request], open_samples: Sequence[dict[int, int]]) -> list[list[int]]:
    """Group the positions of open requests by context, ordered by kind, long answers first, then by prompt."""
    positions = [position for position in range(len(requests)) if open_samples[position]]
    return _together(sorted(positions, key=lambda position: _order(requests[position])), requests)


def _order(request: Request) -> tuple[str, int, tuple[tuple[str, str], ...], str]:
    return request.kind, -(request.max_tokens or 0), request.messages or (), request.text or ""


def _together(positions: Sequence[int], requests: Sequence[Request]) -> list[list[int]]:
    """Put adjacent requests with the same context into one group."""
    groups: list[list[int]] = []
    last = None
    for position in positions:
        request = requests[position]
        context = request.kind, request.messages, request.text, request.prefix
        if context != last:
            groups.append([])
        groups[-1].append(position)
        last = context
    return groups
