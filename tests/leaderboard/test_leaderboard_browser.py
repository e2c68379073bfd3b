"""The page in a real browser. Needs chromium, node, and playwright-core and axe-core in $OLMES_NODE_MODULES."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from board_store import Made, family, make
from board_text import HOSTILE, ONE

from leaderboard import build
from olmes_suite.cli.main import run as olmes

pytestmark = pytest.mark.slow
DRIVER = Path(__file__).parent / "leaderboard_browser.cjs"


@pytest.fixture(scope="session")
def drive():
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    modules = os.environ.get("OLMES_NODE_MODULES") or os.environ.get("NODE_PATH", "")
    if chromium is None or shutil.which("node") is None:
        pytest.skip("no chromium or no node on this machine (Debian: apt-get install chromium nodejs)")
    if not (Path(modules) / "playwright-core").is_dir() or not (Path(modules) / "axe-core").is_dir():
        pytest.skip("npm install playwright-core axe-core somewhere, and name its node_modules in $OLMES_NODE_MODULES")

    def call(scene: str, page: Path) -> dict:
        done = subprocess.run(
            ["node", str(DRIVER), chromium, scene, str(page)],
            capture_output=True, text=True, timeout=240, env={**os.environ, "NODE_PATH": modules},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["requests"] == []
        assert told["errors"] == []
        return told["seen"]

    return call


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    family(folder / "runs")
    for file in folder.glob("runs/llama-dpo-*/manifest.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"limit": 60}))
    return build.build(folder / "runs", folder / "board.html", with_published=True).path


def test_sort_filter_and_permalink(drive, page):
    seen = drive("use", page)
    for found, sign in ((seen["down"], -1), (seen["up"], 1)):
        numbers = [float(value) for value in found if value]
        assert numbers == sorted(numbers, key=lambda x: sign * x) and found[: len(numbers)] == [v for v in found if v]
    assert (seen["ariaDown"], seen["ariaUp"]) == ("descending", "ascending")
    assert seen["filtered"] == seen["restored"] == ["llama-rlvr-300-dev-00000006"]
    assert "sort=tulu3_gsm8k:asc" in seen["hash"] and "filter=stage:rlvr" in seen["hash"]
    assert seen["restoredFilter"] == "stage:rlvr 300"


def test_documents(drive, page):
    seen = drive("documents", page)
    assert seen["title"].startswith("gsm8k") and seen["again"] == seen["title"]
    assert seen["hash"] == "#open=llama-dpo-dev-00000003/tulu3_gsm8k"
    assert seen["count"] == "60 of 60 documents" and seen["none"] == "0 of 60 documents"
    assert seen["wrong"] == ["✗ wrong"] and seen["diff"] and seen["closed"] == ""


def test_compare(drive, page):
    seen = drive("compare", page)
    assert seen["hash"] == "#compare=llama-dpo-dev-00000003,llama-rlvr-300-dev-00000006"
    line = {row[0]: row for row in seen["rows"]}
    assert line["ifeval"][1].startswith("▲ +") and line["mmlu_pro"][1] == "0.0"
    assert seen["marked"] == ["2", "1"]  # of the rows from above: the candidate, the baseline
    assert seen["reversed"] == "#compare=llama-rlvr-300-dev-00000006,llama-dpo-dev-00000003"
    assert "Settings that differ:" in seen["differs"] and "limit" in seen["differs"]
    assert seen["scatter"] == 5 and seen["flips"] > 0


@pytest.fixture(scope="session")
def thinkers(tmp_path_factory):
    """Three checkpoints whose thoughts grow, the longest of which is often cut."""
    folder = tmp_path_factory.mktemp("thinkers")
    tasks = (("tulu3_gsm8k", "math"), ("tulu3_ifeval", "instruction following"))
    for number, (model, thinks, cut) in enumerate((("short", 100, 0.0), ("middle", 420, 0.05), ("long", 3900, 0.3))):
        made = Made(
            f"{model}-dev-0000000{number}", model, tasks, skill=0.4 + 0.1 * number, thinks=thinks, responses=300,
            flags={"length": cut}, started=1_760_000_000.0 + 86_400 * number,
            samples=2 if model == "middle" else 1,
        )  # fmt: skip
        make(folder / "runs", made)
    make(folder / "runs", Made("plain-dev-00000009", "plain", tasks, skill=0.3, responses=80))
    return build.build(folder / "runs", folder / "board.html").path


def test_tokens_and_thoughts(drive, thinkers):
    seen = drive("tokens", thinkers)
    assert sorted(seen["tokens"]) == ["", "150", "3,950", "470"] and seen["dots"] == 3
    assert seen["sorted"] == ["3,950", "470", "150", ""]
    assert seen["limit"].count("0.0 %") == 1 and "" in seen["limit"]
    assert len(seen["filtered"]) == 1 and seen["filtered"][0].endswith("for 3,950 tokens per answer")
    assert seen["chosen"].startswith("gsm8k against tokens per answer: long ")
    assert seen["cost"][0].startswith("3,950 tokens per answer, 3,900 of them thought · ")
    assert "ended at the token limit; the score over the others is " in seen["cost"][0]
    assert seen["closed"] and seen["summary"] == "Thought, 3,900 tokens, not closed, cut at the token limit"
    assert seen["cut"] == "✂ cut at the token limit" and seen["thought"].startswith("First I read the question.")
    assert seen["rest"] == "(nothing after the thought)"
    assert seen["compared"][-2:] == ["150 → 3,950 (26 ×)"] * 2


def test_axe_finds_nothing_serious_beside_tokens(drive, thinkers):
    assert drive("axe", thinkers) == []


def test_keyboard_alone(drive, page):
    seen = drive("keyboard", page)
    assert (seen["from"], seen["to"]) == ("tulu3_mmlu 0", "tulu3_popqa 1")
    assert seen["focused"] == "Close" and seen["second"] == "popqa 1"
    assert seen["sorted"] == "ascending" and seen["tabStops"] == 1


def test_dark_and_light(drive, page):
    seen = drive("theme", page)
    assert seen["light"] != seen["dark"] == seen["system"]


def test_axe_finds_nothing_serious(drive, page):
    assert drive("axe", page) == []


def test_without_javascript(drive, page):
    seen = drive("plain", page)
    assert seen["rows"] == 22 and re.search(r"\d\d\.\d \d+–\d+", seen["text"])


def test_downloads(drive, page):
    seen = drive("downloads", page)
    rows = list(csv.DictReader(io.StringIO(seen["CSV"])))
    assert [row["stage"] for row in rows] == ["rlvr", "rlvr", "rlvr", "rlvr", "rlvr"]
    assert 0 < float(rows[0]["gsm8k low"]) < float(rows[0]["gsm8k"]) < float(rows[0]["gsm8k high"]) <= 1
    assert len(json.loads(seen["JSON"])["runs"]) == 5
    assert (
        "(as published)" in seen["Markdown"]
        and seen["LaTeX"].startswith("\\begin{tabular}")
        and "mmlu\\_pro" in seen["LaTeX"]
    )


def test_hostile_runs_run_nothing(drive, tmp_path):
    about = {"parent": HOSTILE, "stage": HOSTILE, "recipe": HOSTILE, "data": [{"path": HOSTILE}]}
    made = Made("a<img src=x onerror=ran=1>", HOSTILE * 20, ONE, text=HOSTILE * 3 + "x" * 1_000_000, lineage=about)
    make(tmp_path / "runs", made)
    make(tmp_path / "runs", replace(made, name="b&amp;\u202eb", model="ok", started=1.0))
    seen = drive("hostile", build.build(tmp_path / "runs", tmp_path / "board.html").path)
    assert seen == {"ran": None, "elements": [], "scripts": 1, "wide": False}


def test_words_for_marks_and_bounds(drive, page):
    seen = drive("words", page)
    assert re.match(r"mmlu, llama-rlvr-300: \d+\.\d, 95 % interval \d+\.\d … \d+\.\d", seen["focused"])
    assert re.match(r"average of dev, llama-rlvr-300: .* interval", seen["average"])
    assert "documents are in the training data" in seen["marked"]
    assert seen["left"] and seen["bounds"] and seen["tapped"]


def test_filters_and_columns(drive, page):
    seen = drive("filters", page)
    assert seen["nothing"] == "No row matches the filter “no such row”. Clear the filter"
    assert seen["cleared"] == 22
    assert seen["start"] == 14 and seen["all"] == 19  # five tasks that only published rows have
    assert seen["dev"] == 9 and seen["devRows"] == ["llama-rlvr-100-dev-00000004"]
    assert seen["limited"] == ["llama-dpo-dev-00000003"]
    assert set(seen["covered"]) == {
        "llama-rlvr-300-dev-00000006", "llama-dpo-dev-00000003", "llama-sft-math-dev-00000002",
        "llama-sft-dev-00000001", "llama-base-dev-00000000",
    }  # fmt: skip
    assert not any(run.startswith("published") for run in seen["backend"]) and len(seen["backend"]) == 7
    assert seen["task"] == seen["covered"]


def test_colours_and_compact(drive, page):
    seen = drive("look", page)
    assert seen["highest"] == "6" and seen["lowest"] == "0"
    assert seen["coloured"] != seen["plain"]
    assert 0 < seen["compact"] < seen["usual"]


def test_a_narrow_screen_and_print_show_what_matters(drive, page):
    seen = drive("narrow", page)
    assert seen["difference"] < 390 and not seen["wide"]
    assert seen["printed"] <= seen["paper"] and seen["legend"]


@pytest.fixture(scope="session")
def asked(tmp_path_factory):
    """Mock answers to real tasks on sample documents: with few-shot examples, and with choices."""
    folder = tmp_path_factory.mktemp("asked")
    for task in ("gsm8k", "mmlu_abstract_algebra"):
        assert (
            olmes(["eval", "--backend", "mock", "--task", task, "--data", "sample", "--runs", str(folder / "runs")])
            == 0
        )
    return build.build(folder / "runs", folder / "board.html").path


def test_the_question_comes_first(drive, asked):
    seen = drive("question", asked)
    assert seen["parts"][0] == "Question" and seen["parts"][1] == "Answer"
    assert seen["question"].startswith("Question: ") and seen["question"].count("Question:") == 1
    assert seen["folded"] == ["8 examples before the question"]
    assert " — " in seen["reference"]
    assert seen["ranks"] == ["", ""] and "sample" in seen["tags"] and "mock" in seen["tags"]


def test_two_trainings_are_two_lines(drive, tmp_path):
    for training, skill in (("x", 0.3), ("y", 0.5)):
        for step in (100, 200, 300):
            about = {
                "parent": "base",
                "stage": "sft",
                "step": step,
                "recipe": {"output": f"out/{training}"},
                "data": [],
            }
            path = f"out/{training}/checkpoint-{step}"
            make(tmp_path / "runs", Made(f"{training}-{step}", path, ONE, skill, step, about))
    seen = drive("steps", build.build(tmp_path / "runs", tmp_path / "board.html").path)
    assert seen["lines"] == [3, 3]
    assert all(re.search(r"step \d+: \d+\.\d \(\d+\.\d–\d+\.\d\)", title) for title in seen["titles"])
