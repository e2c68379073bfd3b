"""Concurrent calls in daemon threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

Result = TypeVar("Result")


def side_by_side(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run each call in a thread and return the results in the order of the calls.

    Raises the first failure at once. The threads are daemons, unlike those of `concurrent.futures`: after a failure or
    Ctrl-C the process can end while other calls still run.
    """
    ended: queue.SimpleQueue[tuple[int, list[Result], BaseException | None]] = queue.SimpleQueue()

    def work(number: int, call: Callable[[], Result]) -> None:
        try:
            ended.put((number, [call()], None))
        except BaseException as error:  # raised in the thread that waits for the result
            ended.put((number, [], error))

    for number, call in enumerate(calls):
        threading.Thread(target=work, args=(number, call), daemon=True).start()
    by_number: dict[int, Result] = {}
    while len(by_number) < len(calls):
        number, results, error = ended.get()
        if error is not None:
            raise error
        (by_number[number],) = results
    return [by_number[number] for number in range(len(calls))]
