"""Several calls at the same time, which nobody has to wait for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

Found = TypeVar("Found")


def side_by_side(calls: Sequence[Callable[[], Found]]) -> list[Found]:
    """What the calls give, in their order; each is made in a thread of its own.

    Raises the first failure as soon as it comes. The threads are daemons, which those of `concurrent.futures` are not:
    after a failure or Ctrl-C the process can end while the others are still under way.
    """
    ended: queue.SimpleQueue[tuple[int, list[Found], BaseException | None]] = queue.SimpleQueue()

    def work(number: int, call: Callable[[], Found]) -> None:
        try:
            ended.put((number, [call()], None))
        except BaseException as error:  # raised where the result is waited for
            ended.put((number, [], error))

    for number, call in enumerate(calls):
        threading.Thread(target=work, args=(number, call), daemon=True).start()
    found: dict[int, Found] = {}
    while len(found) < len(calls):
        number, results, error = ended.get()
        if error is not None:
            raise error
        (found[number],) = results
    return [found[number] for number in range(len(calls))]
