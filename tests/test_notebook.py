"""The notebook in examples runs, and shows what it shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers import ROOT
from notebook import execute


def plain(outputs: list[dict[str, Any]]) -> list[str]:
    """The outputs of a cell as text."""
    return ["".join(output.get("text") or output["data"]["text/plain"]) for output in outputs]


@pytest.mark.long
def test_the_notebook_shows_what_its_cells_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "examples/analysis.ipynb").read_text(encoding="utf-8"))["cells"]
    shown = [plain(cell["outputs"]) for cell in cells if cell["cell_type"] == "code"]
    with pd.option_context("display.max_colwidth", 50, "display.width", 80, "display.max_columns", 20):
        assert [plain(outputs) for outputs in execute(cells)] == shown
    assert sum(map(len, shown)) > 6
