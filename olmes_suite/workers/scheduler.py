"""What is left to ask, handed out piece by piece: the one scheduler of all kinds of workers."""

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
"""Workers that may die over a request before it is held to be the cause."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Requests for one worker, with the seeds of the samples that are wanted of each (None: not wanted)."""

    number: int
    positions: tuple[int, ...]
    """Of the requests, among all that are asked."""
    requests: tuple[Request, ...]
    seeds: tuple[Seeds, ...]


class Board:
    """Requests in an order that keeps equal beginnings together; those of one context never part.

    A piece is a share of what is left (1 / twice the number of workers), so that pieces get smaller towards the end
    and all workers end together; it has `least` samples or more. Safe to use from several threads.
    """

    def __init__(
        self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]], workers: int, least: int
    ) -> None:
        self._requests = requests
        self._workers = workers
        self._wanted = [{sample: seed for sample, seed in enumerate(row) if seed is not None} for row in seeds]
        self._width = [len(row) for row in seeds]
        self._groups: deque[list[int]] = deque(_groups(requests, self._wanted))
        self._left = sum(map(len, self._wanted))
        self._least = min(least, max(1, -(-self._left // workers)))
        self._deaths: Counter[int] = Counter()
        self._number = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def finished(self) -> bool:
        """All that was asked is answered."""
        with self._changed:
            return not self._left

    @property
    def closed(self) -> bool:
        """Nothing more is handed out."""
        return self._closed

    def take(self) -> Piece | None:
        """The next piece. Waits while others are at work on all that is left; None when there is nothing to come."""
        with self._changed:
            while not self._groups and self._left and not self._closed:
                self._changed.wait()
            if self._closed or not self._groups:
                return None
            waiting = sum(len(self._wanted[position]) for group in self._groups for position in group)
            size = max(self._least, waiting // (2 * self._workers))
            taken: list[int] = []
            samples = 0
            while self._groups and samples < size:
                suspect = self._deaths[self._groups[0][0]] > 1
                if suspect and taken:
                    break
                group = self._groups.popleft()
                taken += group
                samples += sum(len(self._wanted[position]) for position in group)
                if suspect:  # alone, so that a request that kills is found
                    break
            self._number += 1
            return Piece(
                self._number,
                tuple(taken),
                tuple(self._requests[position] for position in taken),
                tuple(self._seeds_of(position) for position in taken),
            )

    def _seeds_of(self, position: int) -> Seeds:
        wanted = self._wanted[position]
        return tuple(wanted.get(sample) for sample in range(self._width[position]))

    def new(self, piece: Piece, answers: Iterable[Answered]) -> list[Answered]:
        """The answers to a piece that nobody gave before, with their positions among all requests."""
        fresh = []
        with self._changed:
            for place, sample, response in answers:
                position = piece.positions[place]
                if self._wanted[position].pop(sample, None) is not None:
                    self._left -= 1
                    fresh.append((position, sample, response))
            if not self._left:
                self._changed.notify_all()
        return fresh

    def give_back(self, piece: Piece, why: str) -> None:
        """The piece's worker died: what it did not answer goes to another, first of all.

        Raises RequestFailed where that was the last of so many workers that died over the same request.
        """
        with self._changed:
            left = [position for position in piece.positions if self._wanted[position]]
            self._deaths.update(left)
            for group in reversed(_together(left, self._requests)):
                self._groups.appendleft(group)
            self._changed.notify_all()
            if left and self._deaths[left[0]] >= MOST_DEATHS:
                request = self._requests[left[0]]
                raise RequestFailed(
                    f"{request.task}: {MOST_DEATHS} workers died over document {request.doc_id} ({why}); "
                    "lower --batch-size or --max-length"
                )

    def unanswered(self, piece: Piece) -> int:
        """Requests of a piece that are not answered whole."""
        with self._changed:
            return sum(bool(self._wanted[position]) for position in piece.positions)

    def close(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _groups(requests: Sequence[Request], wanted: Sequence[dict[int, int]]) -> list[list[int]]:
    """Positions of what is asked, by context; kinds apart, long answers first, then by the prompt's text."""
    asked = [position for position in range(len(requests)) if wanted[position]]
    return _together(sorted(asked, key=lambda position: _order(requests[position])), requests)


def _order(request: Request) -> tuple[str, int, tuple[tuple[str, str], ...], str]:
    return request.kind, -(request.max_tokens or 0), request.messages or (), request.text or ""


def _together(positions: Sequence[int], requests: Sequence[Request]) -> list[list[int]]:
    """Neighbours with the same context in one group."""
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
