"""Tasksets of the package `verifiers`: rows, rewards, what is refused. The package is not part of `make test`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from olmes_suite.errors import DataError, UsageError
from olmes_suite.scoring import tasksets

MODULE = """
import verifiers.v1 as vf

__all__ = ["Sums"]


class Data(vf.TaskData):
    answer: str


class Task(vf.Task[Data]):
    @vf.reward(weight=0.75)
    async def correct(self, task, trace) -> float:
        return float(trace.last_reply == task.answer)

    @vf.reward(weight=0.25)
    async def short(self, trace) -> float:
        return float(len(trace.last_reply) < 5)

    @vf.metric
    async def asked(self, trace) -> float:
        return float(len(trace.messages))
    # more


class Sums(vf.Taskset[Task]):
    INFINITE = False

    def load(self):
        for n in range(3):
            yield Task(Data(prompt=f"{n}+{n}?", system_prompt="Be brief.", answer=str(2 * n)), self.config.task)
"""
NEEDS_RUNTIME = """
    @vf.reward
    async def ran(self, trace, runtime) -> float:
        return 1.0
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a taskset that can be imported as `sums_of_a_test`."""
    pytest.importorskip("verifiers", reason="the extra `verifiers` is not installed")
    monkeypatch.syspath_prepend(str(tmp_path))
    tasksets.load.cache_clear()
    sys.modules.pop("sums_of_a_test", None)
    file = tmp_path / "sums_of_a_test.py"
    file.write_text(MODULE)
    yield file
    tasksets.load.cache_clear()
    sys.modules.pop("sums_of_a_test", None)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("olmes_suite.extras.installed", lambda name: False)
    tasksets.load.cache_clear()
    with pytest.raises(UsageError, match=r"pip install 'olmes-suite\[verifiers\]'") as caught:
        tasksets.load("any")
    assert "\n" not in str(caught.value)


def test_rows_and_rewards(module: Path) -> None:
    rows = list(tasksets.rows("sums_of_a_test"))
    assert [row.messages[-1]["content"] for row in rows] == ["0+0?", "1+1?", "2+2?"]
    assert rows[1].messages[0] == {"role": "system", "content": "Be brief."}
    data = json.loads(json.dumps(rows[2].data))
    for answer, reward in ((" 4 ", 1.0), ("5", 0.25), ("fourteen", 0.0)):
        assert tasksets.score_answer("sums_of_a_test", data, rows[2].messages, answer) == (reward, {"asked": 3.0})
    assert len(list(tasksets.rows("sums_of_a_test", 2))) == 2
    with pytest.raises(DataError, match="the task's data cannot be read"):
        tasksets.score_answer("sums_of_a_test", {"prompt": "a"}, rows[0].messages, "0")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("    # more", NEEDS_RUNTIME, "its reward 'ran' needs the runtime"),
        ("    async def short", "    def short", "its reward 'short' must be `async def`"),
        (
            "for n in range(3)",
            "raise OSError('offline')\n        for n in range(3)",
            "cannot be loaded: OSError: offline",
        ),
        ('__all__ = ["Sums"]', "raise SystemExit('no key')", "cannot be loaded: SystemExit: no key"),
        ("INFINITE = False", "INFINITE = True", "is endless; give --limit"),
        ('__all__ = ["Sums"]', "", "cannot be loaded: AttributeError"),
        ("import verifiers.v1 as vf", "import no_such_module", "cannot be loaded: ModuleNotFoundError"),
    ],
)
def test_what_cannot_be_scored_here_is_refused(module: Path, old: str, new: str, match: str) -> None:
    module.write_text(MODULE.replace(old, new))
    with pytest.raises(UsageError, match=match) as caught:
        list(tasksets.rows("sums_of_a_test"))
    assert "\n" not in str(caught.value)


def test_a_reward_that_is_not_a_number_is_refused(module: Path) -> None:
    module.write_text(MODULE.replace("float(trace.last_reply == task.answer)", "float('nan')"))
    row = next(tasksets.rows("sums_of_a_test"))
    with pytest.raises(ValueError, match="its rewards sum to nan"):
        tasksets.score_answer("sums_of_a_test", json.loads(json.dumps(row.data)), row.messages, "0")


def test_a_module_is_found_in_the_working_directory(
    module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one not in ("", str(tmp_path))])
    with pytest.raises(UsageError, match="no such module among the installed ones or in the working directory"):
        tasksets.load("sums_of_a_test")
    monkeypatch.chdir(tmp_path)
    assert len(list(tasksets.rows("sums_of_a_test"))) == 3


def test_a_prompt_that_is_no_text_is_refused(module: Path) -> None:
    module.write_text(MODULE.replace('prompt=f"{n}+{n}?"', "prompt=None"))
    with pytest.raises(DataError, match="task 0: its prompt does not end with a user's turn"):
        list(tasksets.rows("sums_of_a_test"))


def test_the_written_folder_is_a_task_and_training_rows(module: Path, tmp_path: Path) -> None:
    from helpers import olmes_here

    from train_plugins.data.rlvr_rows import prompt_row
    from train_plugins.verifiers.base import Malformed
    from train_plugins.verifiers.tasksets import taskset

    out = tmp_path / "out"
    done = olmes_here("tasks", "taskset", "sums_of_a_test", "--out", out, tmp=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    read = prompt_row(rows[1])
    assert read["verifier"] == "taskset"
    row = {"messages": rows[1]["messages"]}
    assert [taskset(answer, json.loads(read["truth"]), row) for answer in ("2", "3")] == [1.0, 0.25]
    with pytest.raises(Malformed, match=r"expected \{taskset, data\}"):
        taskset("2", {"data": {}}, row)
    document = json.loads((out / "sample.jsonl").read_text().splitlines()[2])
    assert tasksets.score(document, "4")["reward"] == 1.0
    asked = olmes_here(
        "eval", "--task", "sums_of_a_test", "--backend", "mock", "--include-path", out, "--data-dir", out / "data",
        "--runs", tmp_path / "runs", "--json", tmp=tmp_path,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    found = json.loads(asked.stdout)["tasks"]["sums_of_a_test"]
    assert (found["n"], found["primary"]) == (3, "reward")
