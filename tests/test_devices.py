"""Everything asks one function whether there is a GPU."""

from __future__ import annotations

import re

import pytest
from helpers import ROOT

from olmes_suite.devices import has_gpu


@pytest.mark.parametrize("there", [True, False])
def test_torch_says_it(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    assert has_gpu() is there


def test_nothing_else_asks_torch() -> None:
    asking = [
        path.relative_to(ROOT)
        for folder in ("olmes_suite", "train_plugins", "decontam", "leaderboard")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"cuda\.is_available", path.read_text(encoding="utf-8"))
    ]
    assert [str(path) for path in asking] == ["olmes_suite/devices.py"]
