"""The commands of the documentation: each one parses, and what can be run on this machine prints what its page says."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import doc_commands
import pytest
from doc_commands import PAGES, ROOT, Command, Shell, below, read, same, tree

HOWTOS = sorted((ROOT / "docs/howto").glob("*.md"))
QUICK = [
    pytest.param(page, marks=[pytest.mark.long] if page.name == "from-trl.md" else [])  # it imports TRL
    for page in [*HOWTOS, ROOT / "docs/own-task.md", ROOT / "docs/installation.md"]
]
WITH_COMMANDS = [page for page in PAGES if read(page.read_text(encoding="utf-8")).commands]
STAND_IN = {"N": "2", "K": "2", "DAYS": "7", "POINTS": "5", "KEY=VALUE": "seed=1"}
"""Values for the words that a page leaves to the reader where an option takes a number."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def calls(page: Path) -> Iterator[tuple[Command, list[str]]]:
    """Yield the calls of `olmes` in a page's fenced blocks."""
    for command in read(page.read_text(encoding="utf-8")).commands:
        if (words := doc_commands.words(command.line)) is not None:
            yield command, [STAND_IN.get(word, word) for word in words]


def context_of(words: list[str]) -> Any:
    """Parse a call as the command line does, without running it. Raises what the command line shows as usage error."""
    command, name, rest = tree()[words[0]], words[0], words[1:]
    inner = below(command)
    if rest and rest[0] in inner:
        command, name, rest = inner[rest[0]], f"{name} {rest[0]}", rest[1:]
    return command.make_context(name, list(rest))


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_fenced_commands_parse(page: Path) -> None:
    wrong = {}
    for command, words in calls(page):
        try:
            context_of(words).close()
        except Exception as error:
            wrong[command.line] = getattr(error, "message", None) or repr(error)
    assert wrong == {}


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own, without mirrors, keys, or a terminal's width."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OLMES_", "PYTEST_", "OPENAI_"))}
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with mock.patch.dict(os.environ, kept | {"OLMES_CACHE": str(tmp_path / "cache"), "COLUMNS": "80"}, clear=True):
        yield folder


@pytest.mark.parametrize("page", QUICK, ids=name_of)
def test_a_page_prints_what_it_says(page: Path, empty_folder: Path) -> None:
    shell, found = Shell(), read(page.read_text(encoding="utf-8"))
    for step in found.steps:
        if isinstance(step, tuple):
            doc_commands.write_file(*step)
        elif not step.reason and shell.knows(step.line):
            printed = shell.run(step.line)
            if step.kind == "console":
                assert same(step.output, printed), f"$ {step.line}\n{printed}"
            else:
                assert shell.status in (0, 1), f"$ {step.line}\n{printed}"


# The other pages are run with the mock backend in place of the model, and sample documents ---------------------------

OLD_PAGES = [page for page in WITH_COMMANDS if page not in [one.values[0] for one in QUICK]]
DROPPED = {
    "--model", "--backend", "--base-url", "--device", "--dtype", "--batch-size", "--max-length", "--model-args",
    "--judge", "--judge-base-url", "--classifier", "--classifier-base-url", "--encoder", "--data-dir", "--data",
    "--revision", "--concurrency", "--prefill", "--workers", "--thinking", "--baseline", "--config",
}  # fmt: skip
"""Options of `eval`, with a value, that a run of the mock backend on sample documents does not take."""
FILES = {
    "answers.jsonl": '{"doc_id": 0, "responses": ["So the answer is 7."]}\n',
    "responses.jsonl": '{"doc_id": 0, "responses": ["The final answer is \\\\boxed{7}."]}\n',
    "scores.jsonl": '{"task": "my_task", "doc_id": 0, "score": 1.0}\n',
    "gate.yaml": "margin: 2.0\n",
    "mine.yaml": "suite: mine\ntasks: [gsm8k]\n",
    **dict.fromkeys(("my_tasks/mine.yaml", "kept/mine.yaml"), "task: mine\ndata: rows.jsonl\nmetric: exact_match\n"),
    **dict.fromkeys(("my_tasks/rows.jsonl", "kept/rows.jsonl"), '{"question": "2 + 2?", "answer": "4"}\n'),
    "mix.jsonl": '{"messages": [{"role": "user", "content": "a b c"}, {"role": "assistant", "content": "d"}]}\n',
}
"""Files that pages speak of."""
NAMES = {
    **dict.fromkeys(("A", "RUN", "base", "runs/RELEASED", "OLD", "BASELINE", "RELEASED"), "good"),
    **dict.fromkeys(("B", "cand", "runs/RUN", "NEW", "mock", "CANDIDATE"), "poor"),
    "RUNS/RUN": "poor", "dev": "quick", "unseen": "quick", "S": "quick", "FOLDER": "kept", "NAME": "gsm8k",
    "demo/smollm2": "good", "demo/smollm2-damaged": "poor", "smollm2": "poor", "olmo3_dev": "quick",
    "sft-demo_sums-bc9a9eb4": "good", "dpo-demo_sums-42960c8f": "poor", "demo/runs": "runs",
    "FILE": "answers.jsonl", "eval/baseline.json.gz": "baseline.json.gz", "~/.cache/olmes-responses": "kept",
}  # fmt: skip
"""Runs and folders that pages name."""
NOT_RUN = (
    (("data", "pull"), "needs a network"),
    (("data", "verify"), "needs a mirror"),
    (("data", "ruler"), "needs a tokenizer of 4,000 tokens and its corpus"),
    (("data", "mix"), "needs the page's data; tests/train_plugins/data/curation run it"),
    (("data", "ablate"), "needs the page's data; tests/train_plugins/data/curation run it"),
    (("data", "prompts"), "needs a server; tests/train_plugins/data/curation run it"),
    (("import",), "needs logs of the tool; tests/runs run it"),
    (("train",), "needs the page's recipe and a model; tests/train_plugins run it"),
    (("decontam",), "needs the page's data; tests/decontam run it"),
    (("plan",), "needs a run of all documents; tests/cli run it"),
    (("leaderboard", "--watch"), "does not end"),
    (("export", "hub"), "sample documents are not for a model card; tests/runs run it"),
    (("tasks", "taskset"), "needs the package verifiers"),
)
"""Commands that are parsed and not run, and why."""


def reason_not_to_run(words: list[str]) -> str:
    """Say why a call is not run; empty for one that is."""
    if "--report-to" in words:
        return "needs a tracker's client; tests/test_trackers.py runs it"
    if words[0] == "eval" and {"--plan", "--until-decided", "--ray"} & set(words):
        return "needs a run of all documents, or a cluster; tests/evaluation and tests/workers run it"
    if words[0] == "eval" and {"NAME", "mine:anything"} & set(words) and "--task" in words:
        return "names a task or judge of the reader's"
    return next((why for start, why in NOT_RUN if set(start) <= set(words) and words[0] == start[0]), "")


def adapted(words: list[str]) -> list[str]:
    """Replace what the page leaves to the reader: the model, documents, runs and folders."""
    words = [NAMES.get(word, word) for word in words]
    if words[0] not in ("eval", "prompts", "score", "tasks") or (words[0] == "score" and "--task" not in words):
        return words
    kept, position = [words[0]], 1
    while position < len(words):
        if words[position] in DROPPED and not (words[0] == "score" and words[position] == "--thinking"):
            position += 2
        else:
            kept.append(words[position])
            position += 1
    if words[0] == "tasks":
        return [*kept, "gsm8k"] if kept == ["tasks", "check"] else kept  # all tasks take a minute
    return [*kept, "--data", "sample", *(["--backend", "mock"] if words[0] == "eval" else [])]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs and files that pages speak of."""
    folder = tmp_path_factory.mktemp("store")
    with contextlib.chdir(folder):
        shell = Shell()
        for backend in ("oracle --name good", "mock --name poor --cache kept"):
            printed = shell.run(f"olmes eval --backend {backend} --suite quick --data sample")
            assert shell.status == 0, printed
        shell.run("olmes baseline save good baseline.json.gz")
        for name, text in FILES.items():
            doc_commands.write_file(name, text)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("page", OLD_PAGES, ids=name_of)
def test_commands_run(page: Path, store: Path, empty_folder: Path) -> None:
    shutil.copytree(store, empty_folder, dirs_exist_ok=True)
    shell, failed = Shell(), {}
    for command, words in calls(page):
        if not (command.reason or reason_not_to_run(words)):
            printed = shell.olmes(adapted(words))
            if shell.status not in (0, 1, 3):  # 1: a task without a judge, or a gate that fails; 3: inconclusive
                failed[command.line] = printed
    assert failed == {}


def test_reasons_are_used() -> None:
    """A reason that no command needs any more is taken out."""
    said = {reason_not_to_run(words) for page in OLD_PAGES for _, words in calls(page)}
    assert {why for _, why in NOT_RUN} - said == set()


# How pages are read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        (
            "```console\n$ olmes runs\nrun 1\n$ olmes \\\n    tasks\n```",
            [("olmes runs", "run 1\n"), ("olmes tasks", "")],
        ),
        ("```sh\nolmes eval --model A   # why\n\nmake docs\n```", [("olmes eval --model A", ""), ("make docs", "")]),
        ("```yaml\nolmes: runs\n```", []),
    ],
)
def test_blocks_are_read(text: str, commands: list[tuple[str, str]]) -> None:
    assert [(one.line, one.output) for one in read(text).commands] == commands


def test_a_reason_belongs_to_its_block() -> None:
    page = read("<!-- not run: needs a GPU -->\n```sh\nolmes eval\n```\n\n```sh\nolmes runs\n```\n")
    assert [one.reason for one in page.commands] == ["needs a GPU", ""]


def test_files_of_a_page_stand_between_its_commands() -> None:
    page = read('```sh\nolmes runs\n```\n```yaml title="a/b.yaml"\nx: 1\n```\n')
    assert page.steps[1] == ("a/b.yaml", "x: 1\n")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("olmes eval --model A [--device cuda] | cat", ["eval", "--model", "A", "--device", "cuda"]),
        ("olmes compare A B [C …]", ["compare", "A", "B"]),
        ("olmes train merge a b > log", ["train", "merge", "a", "b"]),
        ("CUDA_VISIBLE_DEVICES=0 olmes runs", ["runs"]),
        ("pip install olmes", None),
    ],
)
def test_words_of_a_call(line: str, words: list[str] | None) -> None:
    assert doc_commands.words(line) == words


@pytest.mark.parametrize(
    ("expected", "got", "equal"),
    [
        ("run a-01234567\n", "run a-89abcdef\n", True),
        ("score 5.0\n", "score 6.0\n", False),
        ("one\n…\nfour\n", "one\ntwo\nthree\nfour\n", True),
        ("one\n…\nfour\n", "one\ntwo\nthree\n", False),
        ("11-29 19:29\n", "12-01 00:00\n", True),
        ("", "something\n", False),
    ],
)
def test_outputs_are_compared(expected: str, got: str, equal: bool) -> None:
    assert same(expected, got) is equal


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["eval", "--no-such"], r"(?i)no such option"),
        (["show"], r"(?i)missing"),
        (["eval", "--limit", "many"], r"(?i)integer|number"),
        (["tasks", "check", "--limit"], r"(?i)requires an argument"),
    ],
)
def test_wrong_calls_are_seen(words: list[str], said: str) -> None:
    with pytest.raises(Exception, match=said):
        context_of(words)
