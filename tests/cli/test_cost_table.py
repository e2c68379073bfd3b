"""The table of tokens and cut answers, at 80 columns."""

from __future__ import annotations

import io

from olmes_suite.runs.schema import Answers, Completed, TaskResult, Tokens

THINKS = TaskResult(
    n=30,
    primary="pass_at_1",
    flags={"length": 20, "unclosed": 18, "empty": 18, "extraction_failed": 2},
    samples=32,
    samples_sd=0.0312,
    answers=Answers(n=960, length=137, unclosed=131, empty=131),
    tokens=Tokens(thinking=114_211.4, answer=812.2),
    completed=Completed(value=0.7123, n=823),
    correct_per_million_tokens=40.3,
)


def printed(**tasks: TaskResult) -> list[str]:
    from rich.console import Console

    from olmes_suite.cli.display import cost_table

    console = Console(width=80, file=io.StringIO(), highlight=False)
    console.print(cost_table(tasks))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_the_table_of_thoughts_fits_a_terminal() -> None:
    from olmes_suite.cli.display import _COST_NOTE

    lines = printed(tulu3_mmlu_high_school_us_history=THINKS)
    assert lines[0].split() == ["task", "tokens", "thought", "limit", "unclosed", "empty", "completed", "right/M"]
    assert lines[1].split()[-10:] == ["115,024", "114,211", "14.3", "%", "13.6", "%", "13.6", "%", "71.2", "40"]
    assert max(map(len, [*lines, *_COST_NOTE])) <= 80


def test_columns_of_thoughts_need_thoughts() -> None:
    plain = TaskResult(n=4, primary="m", tokens=Tokens(answer=122.0), answers=Answers(n=4, length=1))
    lines = printed(gsm8k=plain, mmlu_mc=TaskResult(n=3, primary="acc"))
    assert lines[0].split() == ["task", "tokens", "limit", "empty", "completed", "right/M"]
    assert [line.split() for line in lines[1:]] == [["gsm8k", "122", "25.0", "%", "0.0", "%", "–", "–"]]


def test_several_samples_count_as_answers() -> None:
    from olmes_suite.cli.display import _task_warnings

    assert _task_warnings("aime", THINKS) == [
        "aime: 137 of 960 answers ended at the token limit",
        "aime: 131 of 960 answers ended inside a thought",
        "aime: 131 of 960 answers were empty",
        "aime: 2 of 30 answers contained nothing that the scorer could extract",
        "aime: 32 samples of each document; run-to-run s.d. of one 3.1 points",
    ]
