"""Several workers behind the interface of one backend."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from olmes_suite.errors import ModelError, OlmesError, RequestFailed
from olmes_suite.models.base import Backend, Sent
from olmes_suite.records import Request
from olmes_suite.workers.base import Worker, WorkerDied, WorkersDead
from olmes_suite.workers.engine import About
from olmes_suite.workers.scheduler import Answered, Board, Piece
from olmes_suite.workers.side_by_side import side_by_side

RESTARTS = 3
"""Restarts of a worker in one run."""
POLL = 0.2
"""Seconds between checks of `stop_requested`."""


@dataclass(slots=True)
class Seat:
    """The place of a worker. A new worker replaces one that died."""

    number: int
    make: Callable[[], Worker]
    worker: Worker | None = None
    pid: int | None = None
    """The process id of the worker."""
    piece: Piece | None = None
    """The current piece of the worker."""
    restarts: int = 0
    busy: threading.Lock = field(default_factory=threading.Lock)
    """A lock for the thread that communicates with the worker."""

    @property
    def lost(self) -> bool:
        """Whether the worker died and is not restarted."""
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
        """Remove the worker, dead or alive."""
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.close(gently)


class Fleet(Backend):
    """A backend that sends its requests to workers piece by piece, one worker for each of `makers`.

    `kind` names the workers ("processes", "Ray actors"); `tell` receives a line when a worker dies; `leave` is called
    after all workers have ended; `apart` says that the workers run on several machines. Answers come in the order in
    which the workers complete them. Raises the errors of loading a model.
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
        self.unused_arguments = first.unused_arguments
        self._notes, self._tokenizer_name = first.notes, first.tokenizer_name

    def _start(self) -> list[About]:
        """Start all workers at the same time. Where one fails, all are ended."""
        try:
            return side_by_side([seat.start for seat in self.seats])
        except BaseException as error:  # also Ctrl-C, which does not wait for workers that still load
            for seat in self.seats:
                seat.end(gently=False)
            if isinstance(error, WorkerDied):
                raise ModelError(f"a worker died while it loaded its model ({error})") from None
            raise

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer of the workers."""
        return self._tokenizer_name

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the model, compared between all workers where they run on several machines (`apart`).

        Raises ModelError where the machines hold different models.
        """
        if self._fingerprint is None:
            fingerprints = self._query("fingerprint", self.seats if self._apart else self.seats[:1])
            if len(set(fingerprints)) > 1:
                self.close()
                raise ModelError(
                    "the workers' machines hold different models under this name; copy one checkpoint to all of them"
                )
            self._fingerprint = str(fingerprints[0])
        return self._fingerprint

    def settings(self) -> dict[str, Any]:
        """Return the settings of the first living worker, the sum of all usage, and the state of the workers."""
        settings = self._query("settings", [seat for seat in self.seats if seat.worker is not None])
        merged: dict[str, Any] = dict(settings[0]) if settings else {}
        if usages := [one["usage"] for one in settings if isinstance(one.get("usage"), dict)]:
            merged["usage"] = {name: _sum([usage.get(name) for usage in usages]) for name in usages[0]}
        lost = sum(seat.lost for seat in self.seats)
        return merged | {"workers": {"kind": self.kind, "count": len(self.seats), "died": self._deaths, "lost": lost}}

    def sent(self, requests: Sequence[Request]) -> list[Sent | None]:
        """Return the value of the first living worker."""
        living = [seat for seat in self.seats if seat.worker is not None]
        found: list[list[Sent | None]] = self._query("sent", living[:1], list(requests))
        return found[0] if found else super().sent(requests)

    def _query(self, what: str, seats: Sequence[Seat], *arguments: Any) -> list[Any]:
        def ask(seat: Seat) -> Any:
            with seat.busy:
                try:
                    return None if seat.worker is None else seat.worker.tell(what, *arguments)
                except WorkerDied as death:
                    if what == "fingerprint":
                        raise ModelError(f"a worker died while it read its model's files ({death})") from None
                    return None

        return [value for value in side_by_side([partial(ask, seat) for seat in seats]) if value is not None]

    def notes(self) -> list[str]:
        """Return the notes of the workers, each once, and the number of workers."""
        later = self._query("notes", [seat for seat in self.seats if seat.worker is not None])
        notes = dict.fromkeys([*self._notes, *(note for one in later for note in one)])
        return [*notes, f"{len(self.seats)} workers ({self.kind})"]

    def close(self) -> None:
        """End all workers."""
        side_by_side([seat.end for seat in self.seats])
        self._leave()

    def run(self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]]) -> Iterator[Answered]:
        """Yield answers as the workers complete them. A failure is raised after the workers' current batches.

        Raises RequestFailed for a request that no worker can answer, WorkersDead where all workers died.
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
        finally:  # each thread waits until its worker is idle before the next run
            _stop(board, seats)
        if failure is not None:
            raise failure
        if not board.finished and not self.stop_requested:
            raise WorkersDead(
                f"all {len(self.seats)} workers died; the answers so far are on disk: repeat the command to continue"
            )

    def _serve(
        self, seat: Seat, board: Board, events: queue.SimpleQueue[list[Answered] | BaseException | None]
    ) -> None:
        """Send pieces to one worker until none is left, in the worker's own thread."""
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
        """Start a worker in the place of one that died, and return whether that worked."""
        seat.restarts += 1
        try:
            seat.start()
        except WorkerDied as death:
            self._say(f"worker {seat.number} died while it loaded its model ({death})")
        except OlmesError as error:  # the model loaded before, so that the other workers continue
            seat.restarts = RESTARTS
            self._say(f"worker {seat.number} cannot be restarted: {error}")
        return seat.worker is not None

    def _one_piece(
        self, seat: Seat, piece: Piece, board: Board, events: queue.SimpleQueue[list[Answered] | BaseException | None]
    ) -> None:
        assert seat.worker is not None
        seat.piece = piece
        try:
            if board.closed:  # closed after the piece was taken, so that no one would stop the piece
                return
            for answers in seat.worker.answer(piece):
                events.put(board.new(piece, answers))
        except WorkerDied as death:
            self._deaths += 1
            seat.end(gently=False)
            fate = "it is not restarted" if seat.lost else "it is restarted"
            left = board.unanswered(piece)
            self._say(f"worker {seat.number} died ({death}); its {left} open requests go to another worker; {fate}")
            board.give_back(piece, str(death))
            return
        finally:
            seat.piece = None
        if not board.closed and (left := board.unanswered(piece)):
            raise RequestFailed(f"{piece.requests[0].task}: the engine left {left} requests unanswered")


def _stop(board: Board, seats: Sequence[Seat]) -> None:
    """Close the board, and end the current pieces after their current batches."""
    board.close()
    for seat in seats:
        worker, piece = seat.worker, seat.piece
        if worker is not None and piece is not None:
            worker.stop(piece)


def _sum(values: Sequence[Any]) -> Any:
    """Return the sum of the numbers, or the first value where there are none."""
    numbers = [value for value in values if isinstance(value, (int, float))]
    return sum(numbers) if numbers else values[0]
