"""Loading a model while the requests are planned."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Loaded = TypeVar("Loaded")


class Ahead(Generic[Loaded]):
    """Calls a function in a separate thread if `early`, otherwise when the result is requested."""

    def __init__(self, make: Callable[[], Loaded], early: bool) -> None:
        self._make = make
        self._result: list[Loaded] = []
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        if early:
            # a daemon, so that a failed plan does not wait for the model
            self._thread = threading.Thread(target=self._work, name="load", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        try:
            self._result.append(self._make())
        except BaseException as error:  # `get` raises it in the calling thread
            self._error = error

    def get(self) -> Loaded:
        """Wait for the result and return it. Raises the exception that the function raised."""
        if self._thread is None:
            return self._make()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result[0]
