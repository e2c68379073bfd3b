"""A model that is loaded while the requests are planned."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """Makes something in a thread of its own, or, unless `early`, when it is asked for."""

    def __init__(self, make: Callable[[], Made], early: bool) -> None:
        self._make = make
        self._made: list[Made] = []
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        if early:
            # a daemon: where planning fails, nobody waits for the model
            self._thread = threading.Thread(target=self._work, name="load", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        try:
            self._made.append(self._make())
        except BaseException as error:  # raised where the result is asked for
            self._error = error

    def get(self) -> Made:
        """What was made; waits for it. Raises what making it raised."""
        if self._thread is None:
            return self._make()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._made[0]
