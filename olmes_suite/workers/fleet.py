"""Several workers as one backend: the runner does not know that there are many."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from olmes_suite.errors import ModelError, OlmesError, RequestFailed
from olmes_suite.models.base import Backend
from olmes_suite.records import Request
from olmes_suite.workers.base import Worker, WorkerDied, WorkersDead
from olmes_suite.workers.engine import About
from olmes_suite.workers.scheduler import Answered, Board, Piece
from olmes_suite.workers.side_by_side import side_by_side

RESTARTS = 3
"""Times that a worker which died is started again in one run."""
POLL = 0.2
"""Seconds between looks at `stop_requested`."""


@dataclass(slots=True)
class Seat:
    """A worker's place: the worker may die and another takes it."""

    number: int
    make: Callable[[], Worker]
    worker: Worker | None = None
    pid: int | None = None
    """The worker's process."""
    piece: Piece | None = None
    """What the worker has in hand."""
    restarts: int = 0
    busy: threading.Lock = field(default_factory=threading.Lock)
    """Held by the thread that talks to the worker."""

    @property
    def lost(self) -> bool:
        """Nobody sits here any more."""
        return self.worker is None and self.restarts >= RESTARTS

    def start(self) -> About:
        """Start a worker and wait until it is ready. Raises OlmesError or WorkerDied."""
        self.worker = self.make()
        try:
            about = self.worker.ready()
        except BaseException:
            self.end(gently=False)
            raise
        self.pid = about.pid
        return about

    def end(self, gently: bool = True) -> None:
        """Clear away a worker, dead or alive."""
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.close(gently)


class Fleet(Backend):
    """The backend that workers run, `makers` of them, each asked piece by piece.

    `kind` is what they are ("processes", "Ray actors"); `tell` gets a line when one dies; `leave` is called when all
    have ended. Answers come in the order in which they are given.
    Raises what loading a model raises, ModelError where workers have different models.
    """

    def __init__(
        self,
        makers: Sequence[Callable[[], Worker]],
        kind: str,
        tell: Callable[[str], None],
        *,
        apart: bool = False,
        leave: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self.kind, self._say, self._apart, self._leave = kind, tell, apart, leave
        self.seats = [Seat(number, make) for number, make in enumerate(makers, 1)]
        self._fingerprint: str | None = None
        self._deaths = 0
        first = self._start()[0]
        self.name, self.chat, self.max_length = first.name, first.chat, first.max_length
        self.at_once, self.seeded, self.together = first.at_once, first.seeded, first.together
        self._notes, self._tokenizer_name = first.notes, first.tokenizer_name

    def _start(self) -> list[About]:
        """All at once; where one fails, none is left."""
        try:
            return side_by_side([seat.start for seat in self.seats])
        except BaseException as error:  # Ctrl-C too: those that still load are not waited for
            for seat in self.seats:
                seat.end(gently=False)
            if isinstance(error, WorkerDied):
                raise ModelError(f"a worker died while it loaded its model ({error})") from None
            raise

    @property
    def tokenizer_name(self) -> str:
        """The workers' own."""
        return self._tokenizer_name

    @property
    def fingerprint(self) -> str:
        """The workers' own; all are asked where they are on several machines (`apart`)."""
        if self._fingerprint is None:
            found = self._told("fingerprint", self.seats if self._apart else self.seats[:1])
            if len(set(found)) > 1:
                self.close()
                raise ModelError("the workers' machines hold different models under this name; copy the checkpoint")
            self._fingerprint = str(found[0])
        return self._fingerprint

    def settings(self) -> dict[str, Any]:
        """The first living worker's, usage added up over all, and what became of them."""
        found = self._told("settings", [seat for seat in self.seats if seat.worker is not None])
        merged: dict[str, Any] = dict(found[0]) if found else {}
        if usages := [one["usage"] for one in found if isinstance(one.get("usage"), dict)]:
            merged["usage"] = {name: _sum([usage.get(name) for usage in usages]) for name in usages[0]}
        lost = sum(seat.lost for seat in self.seats)
        return merged | {"workers": {"kind": self.kind, "count": len(self.seats), "died": self._deaths, "lost": lost}}

    def _told(self, what: str, seats: Sequence[Seat]) -> list[Any]:
        def ask(seat: Seat) -> Any:
            with seat.busy:
                try:
                    return None if seat.worker is None else seat.worker.tell(what)
                except WorkerDied as death:
                    if what == "fingerprint":
                        raise ModelError(f"a worker died while it read its model's files ({death})") from None
                    return None

        return [one for one in side_by_side([partial(ask, seat) for seat in seats]) if one is not None]

    def notes(self) -> list[str]:
        """The first worker's, and how many there are."""
        return [*self._notes, f"{len(self.seats)} workers ({self.kind})"]

    def close(self) -> None:
        """End all workers."""
        side_by_side([seat.end for seat in self.seats])
        self._leave()

    def run(self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]]) -> Iterator[Answered]:
        """Answers as they come. After a failure, workers end the batch in hand; then it is raised.

        Raises RequestFailed for a request that no worker can answer, WorkersDead when none is left.
        """
        seats = [seat for seat in self.seats if not seat.lost]
        board = Board(requests, seeds, max(1, len(seats)), max(1, self.at_once // 4))
        events: queue.SimpleQueue[list[Answered] | BaseException | None] = queue.SimpleQueue()
        for seat in seats:
            threading.Thread(target=self._serve, args=(seat, board, events), daemon=True).start()
        failure: BaseException | None = None
        try:
            running = len(seats)
            while running:
                if self.stop_requested or failure is not None:
                    _stop(board, seats)
                try:
                    event = events.get(timeout=POLL)
                except queue.Empty:
                    continue
                if event is None:
                    running -= 1
                elif isinstance(event, BaseException):
                    failure = failure or event
                    _stop(board, seats)
                else:
                    yield from event
        finally:  # the threads see to it that their workers are idle before the next run
            _stop(board, seats)
        if failure is not None:
            raise failure
        if not board.finished and not self.stop_requested:
            raise WorkersDead(
                f"all {len(self.seats)} workers died; what was answered is on disk: repeat the command to go on"
            )

    def _serve(
        self, seat: Seat, board: Board, events: queue.SimpleQueue[list[Answered] | BaseException | None]
    ) -> None:
        """Feed one worker until nothing is left, in a thread of its own."""
        with seat.busy:
            try:
                while not (seat.lost or board.closed or board.finished):
                    if (seat.worker is not None or self._restarted(seat)) and (piece := board.take()) is not None:
                        self._one_piece(seat, piece, board, events)
            except BaseException as error:  # raised in the main thread
                events.put(error)
            finally:
                events.put(None)

    def _restarted(self, seat: Seat) -> bool:
        """Whether another worker took the place of one that died."""
        seat.restarts += 1
        try:
            seat.start()
        except WorkerDied as death:
            self._say(f"worker {seat.number} died while it loaded its model ({death})")
        except OlmesError as error:  # it worked before: the others go on
            seat.restarts = RESTARTS
            self._say(f"worker {seat.number} cannot be started again: {error}")
        return seat.worker is not None

    def _one_piece(
        self, seat: Seat, piece: Piece, board: Board, events: queue.SimpleQueue[list[Answered] | BaseException | None]
    ) -> None:
        assert seat.worker is not None
        seat.piece = piece
        try:
            if board.closed:  # since it was taken: nobody would stop it
                return
            for answers in seat.worker.answer(piece):
                events.put(board.new(piece, answers))
        except WorkerDied as death:
            self._deaths += 1
            seat.end(gently=False)
            what = "it is not started again" if seat.lost else "it is started again"
            left = board.unanswered(piece)
            self._say(f"worker {seat.number} died ({death}); {left} requests that it had go to another; {what}")
            board.give_back(piece, str(death))
            return
        finally:
            seat.piece = None
        if not board.closed and (left := board.unanswered(piece)):
            raise RequestFailed(f"{piece.requests[0].task}: the engine left {left} requests of a piece unanswered")


def _stop(board: Board, seats: Sequence[Seat]) -> None:
    """Hand out nothing more, and end what is in hand after the batch."""
    board.close()
    for seat in seats:
        worker, piece = seat.worker, seat.piece
        if worker is not None and piece is not None:
            worker.stop(piece)


def _sum(values: Sequence[Any]) -> Any:
    """The sum of numbers; the first of anything else."""
    numbers = [value for value in values if isinstance(value, (int, float))]
    return sum(numbers) if numbers else values[0]
