"""Helpers for the scoring functions of tasks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from olmes_suite.scoring import module_beside


def test_a_module_beside_is_not_seen_before_its_code_has_run(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(0.2)\nvalue = 1\n")
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda _: module_beside(str(tmp_path / "task.py"), "slow.py").value, range(2)))
    assert found == [1, 1]
