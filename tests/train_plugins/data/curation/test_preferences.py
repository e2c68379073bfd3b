"""`olmes data preferences`: by a judge, a verifier, two models, or a relaxed constraint; rows that DPO reads."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from curation_server import Run, adds_up, rated, rating, rejected_of, rows_of, sums
from judge_server import Body, Reply, Served, asked, chat, judge_server

from train_plugins.data.curation.preference_answers import relaxed
from train_plugins.data.curation.preference_keys import JudgeModel
from train_plugins.data.curation.prompt_rows import prompt_of
from train_plugins.data.curation.recipe import plain
from train_plugins.data.messages import preference

pytest.importorskip("rensa")


def recipe(url: str, file: Path, **keys: Any) -> dict[str, Any]:
    def model(name: str, **more: Any) -> dict[str, Any]:
        return {"model": name, "base_url": url, "concurrency": 4, "tries": 2, "temperature": 1.0, **more}

    return {
        "prompts": [{"path": str(file)}],
        "policy": model("policy"),
        "pool": [model("one"), model("two"), model("three"), model("four")],
        "judge": model("judge", temperature=0.0),
        "workers": 1,
        **keys,
    }


def questions(file: Path, count: int = 24) -> Path:
    file.write_text("".join(json.dumps({"prompt": f"Describe the lamp number {n}."}) + "\n" for n in range(count)))
    return file


def described(body: Body, before: int) -> Reply:
    """A judge, and models that describe lamps in their own ways."""
    if "<answer 1>" in body["messages"][1 % len(body["messages"])]["content"]:
        return rated(body)
    return Reply(chat(f"As {body['model']} sees it, the lamp of {asked(body)} shines {body['seed'] % 97} metres far."))


def test_pairs_by_a_judge(run: Run, tmp_path: Path) -> None:
    with judge_server(described) as served:
        done = run("preferences", recipe(served.url, questions(tmp_path / "p.jsonl"), on_policy=0.5))
    assert done.returncode == 0, done.stderr
    manifest = adds_up(tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert len(rows) > 15
    for row in rows:
        answers = json.loads(row["answers"])
        assert len(answers) == 4
        assert all(set(one["ratings"].values()) == {rating(one["text"])} for one in answers)
        chosen, rejected = row["chosen"][0]["content"], row["rejected"][0]["content"]
        assert row["chosen_score"] == rating(chosen) == max(one["score"] for one in answers)
        assert row["rejected_score"] == rating(rejected) < row["chosen_score"]
        if row["on_policy"]:
            assert "policy" in (row["chosen_model"], row["rejected_model"])
        assert "policy" in [one["model"] for one in answers] or not row["on_policy"]
        assert preference({**row})["chosen"][-1]["content"] == chosen
    asked_policy = {asked(body) for _, body in served.seen if body.get("model") == "policy"}
    assert len(asked_policy) == 12
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80 and "  " in done.stdout
    assert "position bias" in done.stdout and "length bias" in done.stdout and "agreement with itself" in done.stdout
    assert manifest["judge"]["agreement"]["exact"] == 1.0
    assert "osition bias" in (tmp_path / "out" / "card.md").read_text()


@pytest.mark.long
@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 6), (1.0, 24)])
def test_the_on_policy_share_is_exact(run: Run, tmp_path: Path, share: float, expected: int) -> None:
    with judge_server(described) as served:
        done = run("preferences", recipe(served.url, questions(tmp_path / "p.jsonl"), on_policy=share))
    assert done.returncode == 0, done.stderr
    assert len({asked(body) for _, body in served.seen if body.get("model") == "policy"}) == expected


def test_a_pair_whose_policy_gave_no_usable_answer_is_not_on_policy(run: Run, tmp_path: Path) -> None:
    def reply(body: Body, before: int) -> Reply:
        refuses = body["model"] == "policy" and "number 1" in asked(body)
        return Reply(chat("I'm sorry, but I can't help with that.")) if refuses else described(body, before)

    with judge_server(reply) as served:
        done = run("preferences", recipe(served.url, questions(tmp_path / "p.jsonl"), on_policy=1.0))
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "out")
    for row in rows:
        assert row["on_policy"] == ("policy" in (row["chosen_model"], row["rejected_model"]))
    on_policy = sum(row["on_policy"] for row in rows)
    assert on_policy < len(rows) and f"pairs: {on_policy} with an answer of the policy" in done.stdout


@pytest.mark.long
def test_equal_bytes_whatever_the_concurrency(run: Run, tmp_path: Path) -> None:
    with judge_server(described) as served:
        for number, concurrency in enumerate((1, 12)):
            asked_for = recipe(served.url, questions(tmp_path / "p.jsonl", 8))
            for model in (asked_for["policy"], asked_for["judge"], *asked_for["pool"]):
                model["concurrency"] = concurrency
            assert run("preferences", asked_for, out=f"out{number}").returncode == 0
    for name in ("data.parquet", "rejected.jsonl", "card.md"):
        assert (tmp_path / "out0" / name).read_bytes() == (tmp_path / "out1" / name).read_bytes()


def test_a_judge_in_prose_drops_its_prompts_and_loses_nothing(run: Run, tmp_path: Path) -> None:
    def reply(body: Body, before: int) -> Reply:
        first = body["messages"][1 % len(body["messages"])]["content"]
        return Reply(chat("All fine!")) if "<answer 1>" in first and "number 3." in first else described(body, before)

    with judge_server(reply) as served:
        done = run("preferences", recipe(served.url, questions(tmp_path / "p.jsonl", 10)))
    assert done.returncode == 0, done.stderr
    counts = adds_up(tmp_path / "out")["counts"]
    assert counts["rejected"]["ratings_unreadable"] == 1
    (row,) = [row for row in rejected_of(tmp_path / "out") if row["reason"] == "ratings_unreadable"]
    assert row["row"] == 3 and "0 ratings instead of 4" in row["detail"]


@pytest.mark.long
def test_pairs_by_a_verifier_of_the_policys_own_answers(run: Run, server: Served, tmp_path: Path) -> None:
    asked_for = recipe(server.url, sums(tmp_path / "p.jsonl", 20), by="verifier", pool=[], judge=None, completions=6)
    done = run("preferences", asked_for)
    assert done.returncode == 0, done.stderr
    adds_up(tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert len(rows) > 10
    for row in rows:
        truth = str(row["ground_truth"])
        assert truth in row["chosen"][0]["content"] and truth not in row["rejected"][0]["content"]
        assert (row["chosen_score"], row["rejected_score"], row["on_policy"]) == (1.0, 0.0, True)


def test_an_answer_that_passes_in_part_is_never_chosen(run: Run, tmp_path: Path) -> None:
    def reply(body: Body, before: int) -> Reply:
        word = ["lamp", "table", "lamp, table"][body["seed"] % (3 if "room 0" in asked(body) else 2)]
        return Reply(chat(f"A {word} of {body['seed']} is here"))

    file = constrained(tmp_path / "p.jsonl")
    rows = [{**json.loads(line), "dataset": "ifeval_fraction"} for line in file.read_text().splitlines()[:2]]
    for row in rows:
        row["ground_truth"]["kwargs"][1]["keywords"] = ["lamp", "table"]
        row["ground_truth"]["instruction_id_list"][0] = "startend:quotation"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with judge_server(reply) as served:
        asked_for = recipe(served.url, file, by="verifier", pool=[], completions=6)
        assert run("preferences", asked_for).returncode == 1
    adds_up(tmp_path / "out")
    assert [row["reason"] for row in rejected_of(tmp_path / "out")] == ["not_verified"] * 2


def test_delta_pairs_filter_the_chosen_side_only(run: Run, tmp_path: Path) -> None:
    def reply(body: Body, before: int) -> Reply:
        refuses = body["model"] == "weak" or "number 2." in asked(body)
        text = f"I'm sorry, but I can't describe {asked(body)}" if refuses else f"Here it shines: {asked(body)}"
        return Reply(chat(text + f" {body['model']}"))

    with judge_server(reply) as served:
        strong, weak = ({"model": name, "base_url": served.url} for name in ("strong", "weak"))
        file = questions(tmp_path / "p.jsonl", 6)
        done = run("preferences", {"prompts": [{"path": str(file)}], "by": "delta", "strong": strong, "weak": weak})
    assert done.returncode == 0 and "pairs: chosen is longer in 0 of 5" in done.stdout, done.stderr + done.stdout
    adds_up(tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert {row["row"] for row in rows} == {0, 1, 3, 4, 5}
    assert all((row["chosen_model"], row["rejected_model"]) == ("strong", "weak") for row in rows)


def test_a_key_that_is_not_given_is_not_in_the_recipe_of_a_judge() -> None:
    judge = JudgeModel(model="m")
    assert "example" not in plain(judge) and plain(replace(judge, example=True))["example"] is True


def constrained(file: Path) -> Path:
    """Prompts with two constraints, with one, with none, and with two that no verifier checks."""
    both = [
        {"id": "punctuation:no_comma", "kwargs": {}, "text": "Do without commas."},
        {"id": "keywords:existence", "kwargs": {"keywords": ["lamp"]}, "text": "Work this word in: lamp."},
    ]
    rows = []
    for n, constraints in enumerate([both, both, both[:1], [], both]):
        truth = {"instruction_id_list": [c["id"] for c in constraints], "kwargs": [c["kwargs"] for c in constraints]}
        text = " ".join([f"Describe room {n}.", *(c["text"] for c in constraints)])
        rows.append(
            {
                "prompt": text, "task": f"Describe room {n}.", "constraints": json.dumps(constraints),
                "dataset": "ifeval" if constraints and n < 4 else None, "ground_truth": truth if constraints else None,
            }
        )  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.long
def test_persona_pairs_relax_one_constraint(run: Run, tmp_path: Path) -> None:
    def reply(body: Body, before: int) -> Reply:
        text = asked(body)
        comma = "" if "commas" in text else ","
        return Reply(chat(f"The room{comma} as I see it has a {'lamp' if 'lamp' in text else 'table'} in it."))

    with judge_server(reply) as served:
        asked_for = {
            "prompts": [{"path": str(constrained(tmp_path / "p.jsonl"))}], "by": "relaxed", "workers": 1,
            "pool": [{"model": "m", "base_url": served.url}],
        }  # fmt: skip
        done = run("preferences", asked_for)
    assert done.returncode == 0, done.stderr
    adds_up(tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [row["row"] for row in rows] == [0, 1]
    for row in rows:
        assert "commas" in row["prompt"][0]["content"] and "lamp" in row["prompt"][0]["content"]
        assert row["chosen"][0]["content"] == "The room as I see it has a lamp in it."
        assert row["rejected"][0]["content"] != row["chosen"][0]["content"]
    reasons = [row["reason"] for row in rejected_of(tmp_path / "out")]
    assert reasons == ["too_few_constraints", "too_few_constraints", "no_verifier"]
    assert not any("room 4" in asked(body) for _, body in served.seen)


def test_prompts_with_a_pass_rate_can_be_relaxed(tmp_path: Path) -> None:
    row = json.loads(constrained(tmp_path / "p.jsonl").read_text().splitlines()[0])
    row["ground_truth"] = json.dumps(row["ground_truth"])
    packed = {name: row.pop(name) for name in ("task", "constraints")}
    prompt = prompt_of({**row, "passrate": 0.5, "columns": json.dumps(packed)}, "p", 0)
    easier = relaxed(prompt, 0)
    assert easier is not None and easier.text != prompt.text
    assert "columns" not in prompt.columns and prompt.columns["task"] == packed["task"]


@pytest.mark.long
def test_constraints_are_added_to_a_share_of_the_prompts(punkt_tab: None, run: Run, tmp_path: Path) -> None:
    with judge_server(described) as served:
        added = {"share": 0.5, "count": [1, 2]}
        asked_for = recipe(served.url, questions(tmp_path / "p.jsonl", 10), on_policy=0, add_constraints=added)
        assert run("preferences", asked_for).returncode == 0
    prompts = {asked(body) for _, body in served.seen if str(body.get("model")) in ("one", "two", "three", "four")}
    assert sum(not text.endswith(tuple(f"number {n}." for n in range(10))) for text in prompts) == 5
    adds_up(tmp_path / "out")


def test_equal_answers_and_too_few_answers(run: Run, tmp_path: Path) -> None:
    def reply(body: Body, before: int) -> Reply:
        if "number 0." in asked(body):
            return Reply(chat("A lamp."))
        if "number 1." in asked(body) and body["model"] != "one":
            return Reply({"error": "no"}, status=400)
        return described(body, before)

    with judge_server(reply) as served:
        asked_for = recipe(served.url, questions(tmp_path / "p.jsonl", 3), on_policy=0)
        assert run("preferences", asked_for).returncode == 0
    adds_up(tmp_path / "out")
    reasons = {row["row"]: row["reason"] for row in rejected_of(tmp_path / "out")}
    assert (reasons[0], reasons[1]) == ("same_answers", "request_failed")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("by=jugde", "'jugde' is none of judge, verifier, delta, relaxed"),
        ("judge=null", "by: judge needs the model `judge`"),
        ("by=delta", "delta needs the models `strong` and `weak`"),
        ("rejected=best", "'best' is none of random_lower, worst"),
        ("on_policy=1.5", "from 0 to 1"),
        ("completions=1", "a pair takes at least 2"),
        ("policy_completions=9", "from 1 to 4"),
        ("length_ratio=0.5", "at least 1"),
        ("length_ratio=.nan", "at least 1"),
        ("margin=.nan", "at least 0"),
        ("timeout=.inf", "timeout: expected seconds above 0"),
        ("judge.aspects=[kindness]", "unknown 'kindness'"),
        ("judge.asked=0", "at least 1"),
        ("pool.1.model=one", "two models are called 'one'"),
        ("add_constraints.share=2", "from 0 to 1"),
        ("add_constraints={share: 0.5, file: nowhere.yaml}", "nowhere.yaml"),
    ],
)
def test_mistakes_are_one_line(run: Run, server: Served, tmp_path: Path, change: str, said: str) -> None:
    done = run("preferences", recipe(server.url, questions(tmp_path / "p.jsonl")), "--set", change)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr and not server.seen


def test_a_dry_run_counts_requests(run: Run, server: Served, tmp_path: Path) -> None:
    done = run("preferences", recipe(server.url, questions(tmp_path / "p.jsonl")), "--dry-run", "--json")
    planned = json.loads(done.stdout)
    assert planned["completions"] == 96 and planned["requests to the judge"] == 106 and not server.seen


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("on_policy", 1.5, "on_policy: expected a fraction"),
        ("timeout", 0, "timeout: expected seconds"),
        ("length_ratio", 0.5, "length_ratio: expected"),
        ("judge", {"model": "j", "base_url": "http://localhost", "asked": 0}, "judge: asked: expected"),
        ("policy", {"model": "p", "base_url": "http://localhost", "top_p": 2}, "policy: top_p: expected"),
        ("pool", [{"model": "policy", "base_url": "http://localhost"}], "pool[0]: two models are called 'policy'"),
        ("prompts", [{"path": "nowhere.jsonl"}], "prompts[0]: nowhere.jsonl: no such file"),
        (
            "add_constraints",
            {"share": 0.5, "file": "nowhere.yaml"},
            "add_constraints: file: nowhere.yaml: no such file",
        ),
    ],
)
def test_mistakes_name_the_line_and_the_key(run: Run, tmp_path: Path, key: str, value: Any, said: str) -> None:
    wrong = recipe("http://localhost:1/v1", questions(tmp_path / "p.jsonl")) | {key: value}
    done = run("preferences", wrong)
    lines = (tmp_path / "preferences.yaml").read_text().splitlines()
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    start = next(number for number, line in enumerate(lines, 1) if line.startswith(f"{key}:"))
    found = re.search(r"preferences\.yaml, line (\d+): ", done.stderr)
    assert found and start <= int(found[1]) <= start + 5 and said in done.stderr, done.stderr
