"""A backend of another package, found by its entry point, whose answers take time: for tests that kill its process."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from olmes_suite.errors import ModelError, RequestFailed
from olmes_suite.models.without_model.mock import MockBackend

ENTRY = "[olmes.backends]\nslow = slow_engine:Slow\n"


def install(folder: Path) -> str:
    """Write what makes the backend `slow` known to processes with this PYTHONPATH, which is returned."""
    metadata = folder / "slow_engine-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-engine\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(ENTRY)
    return os.pathsep.join([str(folder), str(Path(__file__).parent), str(Path(__file__).parents[2])])


class Slow(MockBackend):
    """`model` is orders: KEY=VALUE, with commas between them.

    load=S: seconds that the model takes to load; begun=FILE: FILE-PID is there once it begins to. pause=S: seconds an
    answer. die=WORD, fail=WORD, bug=WORD: what a prompt with this word does. none=FILE: the model cannot be loaded
    once there is such a file. most=N,until=FILE: a process gives N answers, and more only once there
    is such a file: what a test does at the N-th answer happens in the middle, however slow the machine is.
    """

    name = "slow"
    at_once = 4

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.orders = dict(order.split("=", 1) for order in model.split(","))
        self.given = 0
        if "begun" in self.orders:
            Path(f"{self.orders['begun']}-{os.getpid()}").touch()
        time.sleep(float(self.orders.get("load", 0)))
        gate = self.orders.get("none")
        if gate and Path(gate).exists():
            raise ModelError("the tests want no more of these")

    def run(self, requests, seeds):
        for position, sample, response in super().run(requests, seeds):
            time.sleep(float(self.orders.get("pause", 0)))
            text = (requests[position].text or "") + str(requests[position].messages)
            if self.orders.get("die", "\0") in text:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.orders.get("fail", "\0") in text:
                raise RequestFailed(f"{requests[position].task}: gave up")
            if self.orders.get("bug", "\0") in text:
                raise KeyError("a bug")
            while self._held() and not self.stop_requested:
                time.sleep(0.01)
            if self.stop_requested:
                return
            self.given += 1
            print("a library talks", file=sys.stdout)
            yield position, sample, response

    def _held(self) -> bool:
        most = int(self.orders.get("most", 10**9))
        return self.given >= most and not Path(self.orders["until"]).exists()
