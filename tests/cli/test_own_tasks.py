"""A task of the user's own through the commands: evaluated by name, and found again from the run's manifest."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from helpers import as_json, olmes_here, one_line_error

from decontam.items import items
from leaderboard import reading
from olmes_suite.runs import task_folders
from olmes_suite.runs.schema import Manifest
from olmes_suite.tasks import catalog
from olmes_suite.tasks.documents import DataSource

ROWS = [{"question": f"What is {n}+{n}?", "answer": str(2 * n)} for n in range(6)]


def olmes(*args: str | Path, tmp: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in this process as a new process would: without the folders of the commands before it."""
    with catalog.including(()):
        return olmes_here(*args, tmp=tmp)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task of questions, one of lm-eval's form, a group, a suite of all, and a run of the suite."""
    folder = tmp_path_factory.mktemp("own")
    tasks = folder / "tasks"
    tasks.mkdir()
    (tasks / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tasks / "sums.yaml").write_text("task: sums\ndata: q.jsonl\nmetric: number\n")
    (tasks / "more.yaml").write_text("task: more\ndata: q.jsonl\nmetric: number\n")
    (tasks / "both.yaml").write_text("group: both\ntask: [sums, more]\n")
    (tasks / "lm.yaml").write_text(
        f"task: lm\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tasks / 'q.jsonl'}}}}}\n"
        'test_split: test\noutput_type: generate_until\ndoc_to_text: "{{question}}"\ndoc_to_target: "{{answer}}"\n'
    )
    (folder / "own.yaml").write_text("suite: own\ntasks: [gsm8k, both, {task: lm, skill: math}]\n")
    command = ("eval", "--backend", "mock", "--suite", folder / "own.yaml", "--include-path", tasks, "--data", "sample")
    done = olmes(*command, "--name", "mine", "--runs", folder / "runs", tmp=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_suite_holds_own_and_lm_evals_tasks_and_groups(folder: Path) -> None:
    results = json.loads((folder / "runs/mine/results.json").read_text())
    assert {"tulu3_gsm8k", "both", "sums", "more", "lm"} == set(results["tasks"])
    assert results["suites"]["own"]["value"] is not None
    manifest = json.loads((folder / "runs/mine/manifest.json").read_text())
    assert manifest["include_paths"] == [str(folder / "tasks")] and manifest["name"] == "mine"


def test_commands_over_a_run_find_its_tasks_and_suite(folder: Path, tmp_path: Path) -> None:
    runs = folder / "runs"
    again = olmes("score", "mine", "--runs", runs, "--json", tmp=tmp_path)  # another working folder
    assert as_json(again)["tasks"]["sums"]["n"] == 6
    shown = olmes("show", "mine", "sums", "--wrong", "1", "--runs", runs, tmp=tmp_path)
    assert "question:   What is 0+0?" in shown.stdout, shown.stdout + shown.stderr
    page = olmes("leaderboard", "--runs", runs, "--out", tmp_path / "page.html", tmp=tmp_path)
    assert page.returncode == 0 and "cannot be rendered" not in (tmp_path / "page.html").read_text()
    assert reading.read(runs / "mine", {}).model == "mine"


def test_a_suite_is_found_where_the_run_was_made(folder: Path) -> None:
    manifest = Manifest(run="r", tasks={}, plan=(), folder=str(folder), suites=("own.yaml", "dev", "absent.yaml"))
    assert task_folders.suite_names(manifest) == (str(folder / "own.yaml"), "dev", "absent.yaml")


def test_an_older_run_names_the_folder_in_its_command(folder: Path, tmp_path: Path) -> None:
    path = folder / "runs/mine/manifest.json"
    text = path.read_text()
    manifest = json.loads(text)
    del manifest["include_paths"]
    older = {"command": ["olmes", "eval", "--include-path", "tasks"], "folder": str(folder)}
    path.write_text(json.dumps({**manifest, **older}))
    try:
        again = olmes("score", "mine", "--runs", folder / "runs", tmp=tmp_path)
    finally:
        path.write_text(text)
    assert again.returncode == 0, again.stderr


def test_a_folders_tasks_are_listed_checked_and_planned(folder: Path) -> None:
    listed = as_json(olmes("tasks", "--include-path", folder / "tasks", "--json", tmp=folder))
    assert [one["task"] for one in listed] == ["both", "lm"]
    checked = olmes("tasks", "check", "--include-path", folder / "tasks", tmp=folder)
    assert checked.returncode == 0 and "ok   sums" in checked.stdout, checked.stdout + checked.stderr
    power = as_json(
        olmes("power", "--task", "sums", "--delta", "5", "--include-path", folder / "tasks", "--json", tmp=folder)
    )
    assert power["have"] == 6
    (folder / "none").mkdir(exist_ok=True)
    nothing = olmes("tasks", "--include-path", folder / "none", tmp=folder)
    assert "no task file" in one_line_error(nothing)


def test_the_other_tasks_of_a_folder_are_listed_where_a_file_of_questions_is_missing(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text("task: first\ndata: absent.jsonl\n")
    alone = olmes("tasks", "--include-path", tmp_path, tmp=tmp_path)
    assert "absent.jsonl" in one_line_error(alone)
    (tmp_path / "q.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    (tmp_path / "sums.yaml").write_text("task: sums\ndata: q.jsonl\nmetric: number\n")
    (tmp_path / "third.yaml").write_text("task: third\ndata: gone.jsonl\n")
    listed = olmes("tasks", "--include-path", tmp_path, "--json", tmp=tmp_path)
    assert [one["task"] for one in as_json(listed)] == ["sums"]
    assert [line.split("/")[-1] for line in listed.stderr.splitlines()] == ["absent.jsonl", "gone.jsonl"]
    checked = olmes("tasks", "check", "--include-path", tmp_path, tmp=tmp_path)
    assert "absent.jsonl" in one_line_error(checked)


def test_decontamination_reads_the_items_of_own_tasks(folder: Path) -> None:
    with catalog.including([folder / "tasks"]):
        chosen = items.of_suites([], ["sums", "lm"], {})
        read = [items.items(one, DataSource(sample=True)) for one in chosen.evaluations]
    assert [[(item.doc_id, item.parts[0]) for item in group[:1]] for group in read] == [
        [(0, ("question", "What is 0+0?"))]
    ] * 2


def test_a_dry_run_counts_without_a_model(folder: Path, tmp_path: Path) -> None:
    command = ("eval", "--backend", "mock", "--tasks", "both,gsm8k", "--include-path", folder / "tasks")
    more = ("--data", "sample", "--runs", folder / "runs", "--dry-run")
    counted = as_json(olmes(*command, *more, "--max-documents", "6", "--json", tmp=tmp_path))
    both, total = counted["tasks"]["both"], counted["total"]
    assert (both["documents"], both["of"], both["answers"], both["max_new_tokens"]) == (3, 12, 3, 3 * 512)
    assert (total["documents"], total["requests"], total["prompt_tokens"]) == (6, 6, None)
    assert counted["basis"] == ["mine"] and total["seconds"] > 0
    table = olmes(*command, *more, tmp=tmp_path)
    assert table.returncode == 0 and "as in mine" in table.stdout, table.stdout + table.stderr
    assert all(len(line) <= 80 for line in table.stdout.splitlines() if not line.startswith("!"))
    assert [path.name for path in (folder / "runs").iterdir() if not path.name.startswith(".")] == ["mine"]
    failing = olmes("eval", "--backend", "mock", "--task", "alpaca_eval", *more, tmp=tmp_path)
    assert failing.returncode == 1 and "would have no score: needs a judge" in failing.stdout


def test_a_dry_run_counts_answers_within_the_context(folder: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    command = ("eval", "--model", tiny_checkpoint, "--task", "sums", "--include-path", folder / "tasks")
    counted = as_json(olmes(*command, "--dry-run", "--json", tmp=tmp_path))["tasks"]["sums"]
    context = 512  # of the model, which is also the limit of an answer
    assert counted["answers"] == 6 and counted["prompt_tokens"] > 0
    assert counted["max_new_tokens"] == 6 * context - counted["prompt_tokens"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--num_fewshot", "5"), "each task has its own number of examples"),
        (("--batch_size=auto",), "--batch-size N"),
        (("--output_path", "x"), "--runs DIR"),
        (("--log_samples",), "always recorded"),
        (("--apply_chat_template",), "always applied"),
        (("--include_path", "x"), "--include-path DIR"),
    ],
)
def test_options_of_lm_eval_are_explained(tmp_path: Path, option: tuple[str, ...], said: str) -> None:
    line = one_line_error(olmes("eval", "--model", "m", "--tasks", "gsm8k", *option, tmp=tmp_path))
    assert said in line and line.count("\n") <= 1 and "is an option of lm-eval" in line


def test_a_group_without_an_average_does_not_hide_the_other_tasks(folder: Path, tmp_path: Path) -> None:
    for name in ("q.jsonl", "sums.yaml", "more.yaml"):
        (tmp_path / name).write_text((folder / "tasks" / name).read_text())
    (tmp_path / "more.yaml").write_text("task: more\ndata: q.jsonl\nmetric: exact_match\n")
    (tmp_path / "both.yaml").write_text("group: both\ntask: [sums, more]\n")
    for command in (("tasks", "check"), ("tasks",)):
        done = olmes(*command, "--include-path", tmp_path, tmp=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "sums" in done.stdout and "more" in done.stdout
        assert done.stderr.startswith("note: group 'both' has no average")
