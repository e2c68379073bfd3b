"""AlpacaEval 2: the judge's question, the preference, the length-controlled win rate, and the command line."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, as_json, environment, olmes, olmes_here, one_line_error
from judge_server import Reply, asked, chat, judge_server
from worker_runs import wait_for

from olmes_suite.errors import DataError, MissingData
from olmes_suite.judges.base import Answer
from olmes_suite.judges.length_control import FILE, Gamed, LengthControl, build, controlled, fit, read_gamed
from olmes_suite.models.cache import store
from olmes_suite.records import sha256
from olmes_suite.scoring.scorers import Item
from olmes_suite.scoring.tools import ToolOptions, Tools
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task

FOLDER = ROOT / "tasks/alpaca_eval"
DOC = {"instruction": "Say hello.", "output": "Hello from the baseline."}


@pytest.fixture(scope="module")
def task():
    spec = importlib.util.spec_from_file_location("alpaca_eval_task", FOLDER / "task.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def instruction(task, first):
    """An instruction for which the candidate stands first (or second)."""
    return next(text for n in range(50) if task.switched(text := f"Instruction {n}") is first)


def test_another_judge_than_the_references_is_a_variant() -> None:
    from olmes_suite.tasks.index import remarks

    assert remarks("olmo3_alpaca_eval", None) == remarks("olmo3_alpaca_eval", "gpt-4.1-2025-04-14")
    assert len(remarks("olmo3_alpaca_eval", None)) == 1
    for name in ("olmo3_alpaca_eval", "tulu3_alpaca_eval", "olmo3_simpleqa"):
        assert remarks(name, "gpt-4o")[-1].startswith(
            "a variant: judged by gpt-4o; scores of the reference are by gpt-4"
        )
    assert remarks("olmo3_gsm8k", "gpt-4o") == remarks("mine", "gpt-4o") == []


def test_the_order_is_that_of_the_package(task):
    # alpaca_eval's RandomSwitchTwoColumnsProcessor: seed is the column's name, the instruction and the seed 0
    for text in ("a", "Say hello.", "Ünïcödé"):
        assert task.switched(text) is random.Random("is_switched_outputs" + text + "0").choices([False, True], k=1)[0]
    assert 30 < sum(task.switched(f"instruction {n}") for n in range(100)) < 70


def test_the_prompt_is_that_of_the_package(task):
    # SHA-256 of the two messages in alpaca_eval 0.6.6, alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt
    prompt = task._prompt()
    assert sha256(f"{prompt['system']}\n{prompt['user']}") == (
        "439208eba842053f205db746937e30efb01786e6fd78d385db60af0afc8d6b12"
    )


@pytest.mark.data
def test_the_requests_are_those_of_the_reference(data_dir, protocol_dir):
    made = load_task(FOLDER / "tulu3_alpaca_eval.yaml", DataSource((data_dir,)))
    checked = 0
    with (protocol_dir / "examples/prompts.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["task"] != "tulu3_alpaca_eval":
                continue
            (request,) = made.requests(made.eval_docs[row["doc_id"]], row["doc_id"], chat=True)
            assert request.chat == row["messages"] and list(request.stop) == row["stop"]
            for field in ("prefix", "max_tokens", "temperature", "top_p", "samples"):
                assert getattr(request, field) == row[field], field
            checked += 1
    assert checked >= 5


@pytest.mark.parametrize("first", [True, False])
def test_the_question_holds_both_outputs_in_order(task, first):
    doc = {**DOC, "instruction": instruction(task, first)}
    asked = task.question(doc, "Candidate {output_1} {instruction}")
    system, user = asked.messages
    assert system[0] == "system" and system[1].startswith("You are a highly efficient assistant")
    assert f'"instruction": """{doc["instruction"]}""",' in user[1]
    own, other = user[1].index('"""Candidate {output_1} {instruction}"""'), user[1].index(f'"""{doc["output"]}"""')
    assert (own < other) is first
    assert user[1].endswith("## Best Model Identifier")
    assert (asked.max_tokens, asked.temperature, asked.top_logprobs) == (1, 1.0, 5)


@pytest.mark.parametrize("first", [True, False])
def test_the_preference_is_the_candidates_share_of_the_two_tokens(task, first):
    doc = {**DOC, "instruction": instruction(task, first)}
    answer = Answer("m", (("m", math.log(0.6)), ("M", math.log(0.2)), ("Both", math.log(0.1))))
    assert task.preference(doc, answer) == pytest.approx(0.75 if first else 0.25)
    assert task.preference(doc, Answer("m", (("m", -0.1),))) == (1.0 if first else 0.0)
    assert task.preference(doc, Answer(" m", ((" m", -0.1), ("model", -3.0)))) is None


class Referee:
    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def ask(self, questions):
        self.asked += questions
        for position in reversed(range(len(questions))):
            yield position, self.answer


def scored(task, items, answer):
    tools = Tools(ToolOptions())
    tools.made = {"judge": Referee(answer), "length_control": LengthControl(None)}
    return sorted(task.score.all(items, tools), key=lambda found: found[0]), tools.made["judge"]


def test_equal_outputs_are_a_tie_and_not_asked_about(task):
    items = [
        Item("alpaca_eval", 0, {**DOC, "instruction": instruction(task, True)}, ("Hi",)),
        Item("alpaca_eval", 1, DOC, (DOC["output"],)),
    ]
    found, referee = scored(task, items, Answer("m", (("m", math.log(0.8)), ("M", math.log(0.2)))))
    assert [s.scores["win_rate"] for _, s, _ in found] == [pytest.approx(0.8), 0.5]
    assert [s.scores["discrete_win_rate"] for _, s, _ in found] == [1.0, 0.5]
    assert len(referee.asked) == 1


def test_no_preference_is_no_score_and_is_counted(task):
    outputs = ("Hi", DOC["output"], "Ho")
    items = [Item("alpaca_eval", n, {**DOC, "instruction": f"no. {n}"}, (text,)) for n, text in enumerate(outputs)]
    found, _ = scored(task, items, Answer("A", (("A", -0.1),)))
    assert [s.failed for _, s, _ in found] == [True, False, True]
    assert [s.scores["win_rate"] for _, s, _ in found] == [None, 0.5, None]
    with pytest.raises(MissingData, match="name no output"):
        scored(task, items[:1], Answer("A", (("A", -0.1),)))


def test_every_response_is_judged_and_the_first_one_counts(task):
    doc = {**DOC, "instruction": instruction(task, True)}
    found, referee = scored(task, [Item("alpaca_eval", 0, doc, ("Hi", doc["output"]))], Answer("M", (("M", -0.1),)))
    ((_, document, samples),) = found
    assert [sample.scores["win_rate"] for sample in samples] == [0.0, 0.5]
    assert document.scores["win_rate"] == 0.0 and len(referee.asked) == 1


# the length-controlled win rate ---------------------------------------------------------------------------------------


def annotations(seed=0, documents=400, slope=1.0, bias=0.0):
    random_ = np.random.default_rng(seed)
    baseline, own = random_.integers(200, 4000, documents), random_.integers(200, 4000, documents)
    delta = baseline - own
    score = bias - slope * np.tanh(delta / delta.std(ddof=1)) + random_.normal(size=documents) * 0.3
    return (1 / (1 + np.exp(-score))).tolist(), own.tolist(), baseline.tolist(), list(range(documents))


def test_without_a_length_bias_it_is_the_win_rate():
    preferences, own, baseline, rows = annotations(slope=0.0, bias=0.7)
    assert np.mean(controlled(preferences, own, baseline, rows).predicted) == pytest.approx(
        np.mean(preferences), abs=0.005
    )


def test_a_judge_that_likes_length_is_seen_through():
    preferences, own, baseline, rows = annotations(slope=2.0)
    longer = [length + 2500 for length in own]
    delta = np.array(baseline) - np.array(longer)
    preferences = (1 / (1 + np.exp(2.0 * np.tanh(delta / delta.std(ddof=1))))).tolist()
    assert np.mean(preferences) > 0.75
    assert np.mean(controlled(preferences, longer, baseline, rows).predicted) == pytest.approx(0.5, abs=0.01)


def test_scores_have_the_predictions_mean_and_the_documents_spread():
    preferences, own, baseline, rows = annotations(bias=0.4)
    preferences[3] = None
    found = controlled(preferences, own, baseline, rows)
    assert np.mean(found.scores) == pytest.approx(np.mean(found.predicted), abs=1e-12)
    assert np.std(found.predicted) < 1e-12 < np.std(found.scores)


def by_formula(bias, step=104729, documents=200):
    """Annotations without chance: preferences, lengths (candidate, baseline), difficulties, standard differences."""
    n = np.arange(documents)
    baseline, own = 200 + n * 7919 % 3800, 300 + n * step % 4500
    delta = (baseline - own) / np.std(baseline - own, ddof=1)
    difficulty = np.sin(1.3 * n)
    score = bias - 0.8 * np.tanh(delta) + 0.6 * difficulty + 0.7 * np.sin(2.7 * n)
    return 1 / (1 + np.exp(-score)), own, baseline, difficulty, delta


@pytest.fixture(scope="module")
def gamed():
    parts = [by_formula(-0.8, 1299709), by_formula(0.3, 15485863)]
    preference, delta, difficulty = (np.concatenate([part[k] for part in parts]) for k in (0, 4, 3))
    return Gamed(preference, delta, difficulty, dict(enumerate(parts[0][3].tolist())))


# What alpaca_eval 0.6.6 makes of these annotations (scikit-learn 1.9.1): length_controlled_winrate, lc_standard_error.
PACKAGE = [
    (0.4, (), True, 59.0790, 0.6617),
    (0.4, (), False, 59.0831, 0.0),
    (0.4, (3, 50), True, 59.0024, 0.6645),
    (-1.5, (), True, 20.2830, 0.4564),
    (-1.5, (3, 50), False, 20.1336, 0.0),
]


@pytest.mark.parametrize(("bias", "unread", "with_file", "value", "stderr"), PACKAGE)
def test_the_win_rate_is_that_of_the_package(gamed, bias, unread, with_file, value, stderr):
    preference, own, baseline, _, _ = by_formula(bias)
    given = [None if n in unread else float(p) for n, p in enumerate(preference)]
    found = controlled(given, own.tolist(), baseline.tolist(), range(200), gamed if with_file else None)
    assert 100 * np.mean(found.predicted) == pytest.approx(value, abs=0.05)
    assert 100 * np.std(found.predicted, ddof=1) / np.sqrt(200) == pytest.approx(stderr, abs=0.005)


def test_few_documents_and_equal_lengths_have_a_value():
    assert controlled([0.9], [5], [5], [0]).predicted == [pytest.approx(0.9, abs=1e-3)]
    with pytest.raises(ValueError, match="preference"):
        controlled([None, None], [5, 6], [5, 6], [0, 1])
    assert controlled([0.2, 0.8, 0.8], [5, 9, 7], [5, 6, 7], [0, 1, 2]).predicted[0] == pytest.approx(0.6, abs=1e-3)
    assert controlled([0.7] * 8, [5] * 8, [5] * 8, list(range(8))).predicted[0] == pytest.approx(0.7, abs=0.01)


def test_the_fit_is_the_optimum():
    sklearn = pytest.importorskip("sklearn.linear_model")
    random_ = np.random.default_rng(4)
    features = np.column_stack([random_.normal(size=(500, 2)), np.ones(500)])
    target = 1 / (1 + np.exp(-(features @ [0.8, -0.5, 0.3])))
    weight = random_.choice([0.1, 1.0], 500)
    own = fit(features, target, weight)
    # the strongest data term wins the cross-validation of noiseless data
    reference = sklearn.LogisticRegression(C=1e4, fit_intercept=False, tol=1e-10, max_iter=10_000)
    reference.fit(
        np.vstack([features, features]),
        np.repeat([1, 0], 500),
        np.concatenate([target, 1 - target]) * np.tile(weight, 2),
    )
    assert own == pytest.approx(reference.coef_[0], abs=1e-3)


def write_gamed(path, documents, difficulty):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["model,index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline"]
    for model, preference in (("concise", 0.2), ("verbose", 0.6)):
        lines += [f"{model},{n},{preference},{0.1 * (n % 5)},{difficulty[n]},False" for n in range(documents)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_gamed_baselines_enter_with_the_difficulties(tmp_path):
    preferences, own, baseline, rows = annotations(documents=100, bias=0.5)
    difficulty = np.random.default_rng(1).normal(size=100)
    path = write_gamed(tmp_path / "m/tatsu-lab/alpaca_eval" / FILE, 100, difficulty)
    made = build(ToolOptions(mirrors=(tmp_path / "m",)))
    assert made.glm == "length_controlled_v1" and made.gamed.by_instruction[7] == difficulty[7]
    assert made.fingerprint != LengthControl(None).fingerprint
    with_file = controlled(preferences, own, baseline, rows, made.gamed)
    assert np.std(with_file.predicted) > 0  # by difficulty
    with pytest.raises(DataError, match="instruction 100"):
        controlled(preferences, own, baseline, [*rows[:-1], 100], made.gamed)
    path.write_text("index,preference\n1,0.5\n")
    with pytest.raises(DataError, match="gamed annotations"):
        read_gamed(path)


def test_sample_documents_have_no_gamed_baselines(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_gamed(tmp_path / "m/tatsu-lab/alpaca_eval" / FILE, 3, [0.0] * 3)
    assert build(ToolOptions(mirrors=(tmp_path / "m",), sample=True)).gamed is None
    assert FILE in build(ToolOptions()).notes()[0]


# the command line -----------------------------------------------------------------------------------------------------


def likes_m(body, before):
    return Reply(chat("m", {"m": math.log(0.7), "M": math.log(0.2), "The": -4.0}))


def command(tmp_path, served, *more):
    return (
        "eval", "--task", "alpaca_eval", "--data", "sample", "--backend", "mock", "--judge", "referee",
        "--judge-base-url", served.url, "--runs", tmp_path / "runs", "--json", *more,
    )  # fmt: skip


def expected_win_rate(task):
    docs = load_task(FOLDER / "tulu3_alpaca_eval.yaml", DataSource(sample=True)).task_docs
    share = 0.7 / 0.9
    return np.mean([share if task.switched(doc["instruction"]) else 1 - share for doc in docs])


@pytest.mark.long
def test_a_run_from_the_command_line(tmp_path, task):
    with judge_server(likes_m) as served:
        found = as_json(olmes(*command(tmp_path, served), tmp=tmp_path))
        entry = found["tasks"]["tulu3_alpaca_eval"]
        assert entry["n"] == 6 and "error" not in entry
        metrics = entry["metrics"]
        assert metrics["win_rate"]["value"] == pytest.approx(expected_win_rate(task))
        assert 0 <= metrics["length_controlled_winrate"]["value"] <= 1
        assert metrics["length_controlled_winrate"]["stderr"] > 0
        assert metrics["avg_length"]["value"] > 1
        assert len(served.seen) == 6 and all("GET" not in asked(body) for _, body in served.seen)
        with open(f"{found['path']}/manifest.json", encoding="utf-8") as handle:
            recorded = json.load(handle)["judge"]
        assert recorded["judge"] | {"fingerprint": None} == {
            "model": "referee", "base_url": served.url, "fingerprint": None, "asked": 6, "cached": 0, "retries": 0,
            "prompt_tokens": 42, "completion_tokens": 6, "truncated": 0, "cost_usd": None,
        }  # fmt: skip
        assert recorded["length_control"]["glm"] == "length_controlled_minimal"
        again = as_json(olmes("score", found["path"], "--json", tmp=tmp_path))
        assert again["tasks"]["tulu3_alpaca_eval"] == entry
        assert len(served.seen) == 6  # from the cache


def test_a_run_says_that_the_judge_is_retired(tmp_path):
    done = olmes_here("eval", "--backend", "mock", "--task", "alpaca_eval", "--data", "sample", tmp=tmp_path)
    first = done.stderr.splitlines()[0]
    assert "alpaca_eval: its judge, GPT-4 Turbo, is retired" in first
    assert "olmo3_alpaca_eval asks GPT-4.1, and scores of the two do not compare" in first


def test_without_a_judge_nothing_is_generated(tmp_path):
    done = olmes_here(
        "eval", "--task", "alpaca_eval", "--data", "sample", "--backend", "mock", "--runs", tmp_path / "runs", "--json",
        tmp=tmp_path,
    )  # fmt: skip
    found = as_json(done)
    assert done.returncode == 1
    assert "--judge" in found["tasks"]["tulu3_alpaca_eval"]["error"]
    assert not list((tmp_path / "runs").rglob("responses/*"))


def test_a_url_without_a_name_is_a_wrong_command(tmp_path):
    done = olmes("eval", "--task", "alpaca_eval", "--judge-base-url", "http://localhost:1/v1", tmp=tmp_path)
    assert "--judge" in one_line_error(done)


@pytest.mark.long
def test_a_judge_that_is_down_fails_the_task_and_the_same_command_goes_on(tmp_path):
    down, turn = [True], itertools.count()  # the requests come at the same time, and each takes its turn

    def reply(body, before):
        return Reply(None, status=400) if down[0] and next(turn) >= 3 else likes_m(body, before)

    with judge_server(reply) as served:
        failed = olmes(*command(tmp_path, served), tmp=tmp_path)
        entry = as_json(failed)["tasks"]["tulu3_alpaca_eval"]
        assert failed.returncode == 1 and entry["metrics"] == {} and "HTTP 400" in entry["error"]
        before, down[0] = len(served.seen), False
        done = olmes(*command(tmp_path, served), tmp=tmp_path)
        entry = as_json(done)["tasks"]["tulu3_alpaca_eval"]
        assert done.returncode == 0 and entry["n"] == 6
        assert len(served.seen) - before == 3  # three verdicts were on disk


@pytest.mark.long
@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_an_end_among_the_judgements_loses_none(tmp_path, how, code):
    silent, turn = [True], itertools.count()

    def reply(body, before):
        return Reply(hang=60) if silent[0] and next(turn) >= 3 else likes_m(body, before)

    def kept():
        folder = tmp_path / "cache/judgements"
        return (folder / store.FILE).is_file() and sum(model.responses for model in store.Store(folder).holdings())

    with judge_server(reply) as served:
        arguments = [sys.executable, "-m", "olmes_suite.cli.main", *map(str, command(tmp_path, served))]
        process = subprocess.Popen(arguments, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(lambda: process.poll() is not None or (len(served.seen) == 6 and kept() == 3))
        process.send_signal(how)
        process.communicate(timeout=40)
        assert process.returncode == code
        assert not list((tmp_path / "runs").glob("mock-*"))
        silent[0] = False
        found = as_json(olmes(*command(tmp_path, served), tmp=tmp_path))
        assert found["tasks"]["tulu3_alpaca_eval"]["n"] == 6
        assert len(served.seen) == 6 + 3


@pytest.mark.long
def test_responses_from_anywhere_are_judged(tmp_path, task):
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps({"doc_id": n, "responses": [f"answer {n}"]}) + "\n" for n in range(4)))
    arguments = ("score", "--task", "alpaca_eval", "--responses", file, "--data", "sample", "--json")
    with judge_server(likes_m) as served:
        done = olmes(*arguments, "--judge", "referee", "--judge-base-url", served.url, tmp=tmp_path)
    found = as_json(done)
    assert found["n"] == 4 and found["metrics"]["win_rate"]["stderr"] > 0
    assert "--judge" in one_line_error(olmes(*arguments, tmp=tmp_path), 1)
