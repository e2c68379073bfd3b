"""`olmes data responses` and `passrate`: verified, filtered, counted; every row is in the output or rejected."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from curation_server import SUM, Run, adds_up, rejected_of, rows_of, sums
from judge_server import Body, Reply, Served, asked, chat, judge_server

from olmes_suite.stats import wilson
from olmes_suite.training_rows.files import in_folder
from train_plugins.data.curation.prompt_rows import prompt_of

pytest.importorskip("rensa")


def recipe(url: str, file: Path, **keys: Any) -> dict[str, Any]:
    model = {"model": "m", "base_url": url, "concurrency": 4, "tries": 2, "temperature": 1.0}
    return {"prompts": [{"path": str(file)}], "models": [model], "workers": 1, **keys}


def right(row: dict[str, Any]) -> bool:
    a, b = map(int, SUM.findall(row["messages"][0]["content"])[-1])
    return re.findall(r"\d+", row["messages"][-1]["content"])[-1] == str(a + b)


@pytest.mark.long
def test_only_verified_answers_are_kept(run: Run, server: Served, tmp_path: Path) -> None:
    done = run("responses", recipe(server.url, sums(tmp_path / "p.jsonl", 40)))
    assert done.returncode == 0, done.stderr
    manifest = adds_up(tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert all(map(right, rows)) and all(row["verified"] == 1.0 and row["dataset"] == "gsm8k" for row in rows)
    assert set(manifest["counts"]["rejected"]) == {"not_verified"}
    assert 10 < len(rows) < 30
    assert {row["id"] for row in rows} <= {f"sum-{n}" for n in range(40)}
    assert manifest["models"][0]["completions"] == 40 and manifest["models"][0]["prompt_tokens"] == 280


@pytest.mark.long
def test_best_of_asks_again_only_where_none_has_passed(run: Run, server: Served, tmp_path: Path) -> None:
    done = run("responses", recipe(server.url, sums(tmp_path / "p.jsonl", 40), best_of=4))
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "out")
    assert len(rows) >= 34 and all(map(right, rows))
    asked_of = Counter(row["candidates"] for row in rows)
    assert asked_of[1] > 10 and asked_of[2] > 3
    completions = adds_up(tmp_path / "out")["models"][0]["completions"]
    assert completions == sum(row["candidates"] for row in rows) + 4 * (40 - len(rows))


@pytest.mark.long
@pytest.mark.parametrize("keep", ["all", "shortest"])
def test_all_or_the_shortest_is_kept(run: Run, server: Served, tmp_path: Path, keep: str) -> None:
    done = run("responses", recipe(server.url, sums(tmp_path / "p.jsonl", 10), best_of=6, keep=keep))
    assert done.returncode == 0, done.stderr
    adds_up(tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    by_prompt: dict[str, list[str]] = {}
    for row in rows:
        by_prompt.setdefault(row["id"], []).append(row["messages"][-1]["content"])
    if keep == "shortest":
        assert all(len(texts) == 1 for texts in by_prompt.values())
    else:
        assert any(len(texts) > 1 for texts in by_prompt.values())
        assert all(len(set(texts)) == len(texts) == row["passed"] for row, texts in
                   ((next(r for r in rows if r["id"] == one), texts) for one, texts in by_prompt.items()))  # fmt: skip


def test_unusable_answers_are_left_out_with_a_reason_each(run: Run, tmp_path: Path) -> None:
    answers = {
        "empty": Reply(chat("  ")),
        "refusal": Reply(chat("I’m sorry, but I can't answer that.")),
        "meta": Reply(chat("As an AI language model, I have no opinion on lamps.")),
        "repetition": Reply(chat("It is bright. " * 12)),
        "too_long": Reply(chat(" ".join(f"w{n}" for n in range(200)))),
        "request_failed": Reply({"error": "not allowed"}, status=400),
        "fine": Reply(chat("A lamp gives light where there is none.")),
    }
    cut = chat("It begins with")
    cut["choices"][0]["finish_reason"] = "length"
    answers["cut"] = Reply(cut)
    answers["markup"] = Reply(chat("Half of a pair, \ud83d, is in this answer, which no file of rows can hold."))
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"lamp {name}"}) + "\n" for name in answers))
    with judge_server(lambda body, before: answers[asked(body).split()[1]]) as served:
        done = run("responses", recipe(served.url, file, filters={"max_words": 100}))
    assert done.returncode == 0, done.stderr
    adds_up(tmp_path / "out")
    assert [row["messages"][0]["content"] for row in rows_of(tmp_path / "out")] == ["lamp fine"]
    names = list(answers)
    assert {names[row["row"]]: row["reason"] for row in rejected_of(tmp_path / "out")} == {
        name: name for name in names if name != "fine"
    }


def thinker(body: Body, before: int) -> Reply:
    text = "I add them up." if "1 and 4" in asked(body) else "<think>3 + 10 is 13, I think."
    return Reply(chat(f"<think>{text}</think>\n\nIt is 5."))


@pytest.mark.parametrize("thoughts", ["column", "turn"])
def test_thoughts_are_kept_apart(run: Run, tmp_path: Path, thoughts: str) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "What is 1 and 4?"}\n')
    with judge_server(thinker) as served:
        assert run("responses", recipe(served.url, file, thoughts=thoughts)).returncode == 0
    (row,) = rows_of(tmp_path / "out")
    assert row["thinking"].strip() == "I add them up." and row["messages"][-1]["content"] == "It is 5."
    assert (row["messages"][-1].get("reasoning_content") or "").strip() == (
        "I add them up." if thoughts == "turn" else ""
    )


def test_thoughts_and_columns_that_are_not_unicode_are_written(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "What is 1 and 4?", "id": "\\ud83d", "ground_truth": "\\ude00"}\n')
    with judge_server(lambda body, before: Reply(chat("<think>Half: \ud83d.</think>\n\nIt is 5."))) as served:
        assert run("responses", recipe(served.url, file)).returncode == 0
    (row,) = rows_of(tmp_path / "out")
    assert (row["thinking"].strip(), row["ground_truth"]) == ("Half: \ufffd.", "\ufffd")
    assert len(row["id"]) == 16  # a hash in place of an id that cannot be written


@pytest.mark.long
def test_a_rows_own_answer_is_kept_or_replaced(run: Run, tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {n} and 1?"},
                {"role": "assistant", "content": f"It is {n + 1 + (n % 2)}."},
            ],
            "dataset": "gsm8k", "ground_truth": str(n + 1),
        }
        for n in range(4)
    ]  # fmt: skip
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def reply(body: Body, before: int) -> Reply:
        a, b = map(int, SUM.findall(asked(body))[-1])
        return Reply(chat(f"The sum: {a + b if a == 1 else 0}"))

    found = {}
    with judge_server(reply) as served:
        for original in ("ignore", "first", "fallback"):
            assert run("responses", recipe(served.url, file, original=original), out=original).returncode == 0
            adds_up(tmp_path / original)
            found[original] = {row["row"]: row["model"] for row in rows_of(tmp_path / original)}
    assert found["ignore"] == {1: "m"}
    assert found["first"] == {0: "original", 1: "m", 2: "original"}
    assert found["fallback"] == {0: "original", 1: "m", 2: "original"}


def test_several_models_answer_and_are_named(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "Name a lamp."}\n{"prompt": "Name a boat."}\n')
    with judge_server(lambda body, before: Reply(chat(f"{body['model']} names it {asked(body)}"))) as served:
        models = [{"model": name, "base_url": served.url} for name in ("a", "b")]
        assert run("responses", recipe(served.url, file, models=models, keep="all")).returncode == 0
    assert [(row["row"], row["model"]) for row in rows_of(tmp_path / "out")] == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]
    assert len(adds_up(tmp_path / "out")["models"]) == 2


BAD_ROWS = {
    "broken JSON": ('{"prompt": ', "JSON"),
    "no prompt": ('{"text": 3}', "no 'messages' and no 'prompt' (columns: text)"),
    "missing role": ('{"messages": [{"content": "hi"}]}', "a turn without a role (messages[0], "),
    "wrong order": ('{"messages": [{"role": "assistant", "content": "hi"}]}', "wrong turn order"),
    "unknown role": ('{"messages": [{"role": "boss", "content": "hi"}]}', "a turn of the unknown role 'boss'"),
    "two users": (
        '{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}', "wrong turn order",
    ),
    "empty content": ('{"messages": [{"role": "user", "content": "  "}]}', "a user turn without content"),
    "null content": ('{"messages": [{"role": "user", "content": null}]}', "instead of text"),
    "unknown verifier": ('{"prompt": "a", "dataset": "gsm9k", "ground_truth": "1"}', "gsm9k"),
    "unseen task": ('{"prompt": "a", "dataset": "gpqa", "ground_truth": "1"}', "unseen"),
    "wrong truth": ('{"prompt": "a", "dataset": "gsm8k", "ground_truth": "none"}', "cannot read"),
    "unknown constraint": (
        '{"prompt": "a", "dataset": "ifeval", "ground_truth": {"instruction_id_list": ["a:b"], "kwargs": [{}]}}',
        "unknown instruction 'a:b'",
    ),
    "a constraint of the unseen suite": (
        '{"prompt": "a", "dataset": "ifeval", "ground_truth": {"instruction_id_list": ["count:numbers"], '
        '"kwargs": [{}]}}', "unseen suite",
    ),
    "half a character": ('{"prompt": "\\ud800"}', "not Unicode"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_named_before_anything_is_asked(run: Run, server: Served, tmp_path: Path, name: str) -> None:
    line, said = BAD_ROWS[name]
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "fine"}\n' + line + "\n")
    done = run("responses", recipe(server.url, file))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"{file}: row 1: " in done.stderr and said in done.stderr
    assert not server.seen and not (tmp_path / "out").exists()


def test_bad_rows_may_be_skipped_and_are_listed(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text("".join(line + "\n" for line, _ in BAD_ROWS.values()) + '{"prompt": "fine"}\n')
    asked_for = recipe("", file)
    asked_for["prompts"][0]["bad_rows"] = "skip"
    with judge_server(lambda body, before: Reply(chat("Good."))) as served:
        asked_for["models"][0]["base_url"] = served.url
        done = run("responses", asked_for)
    assert done.returncode == 0, done.stderr
    manifest = adds_up(tmp_path / "out")
    assert manifest["counts"]["written"] == 1
    assert manifest["counts"]["rejected"] == {"bad_row": len(BAD_ROWS)}


PUBLIC = {
    "Tülu 3": {"messages": [{"role": "user", "content": "1 and 2?"}], "ground_truth": "3", "dataset": "GSM8K"},
    "Dolci-Think-RL": {"prompt": "user: 1 and 2?", "ground_truth": ["3"], "dataset": ["gsm8k"]},
    "verl": {
        "prompt": [{"role": "user", "content": "1 and 2?"}], "data_source": "openai/gsm8k",
        "reward_model": {"style": "rule", "ground_truth": "3"},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_rows_of_public_sets_are_read(name: str) -> None:
    prompt = prompt_of(PUBLIC[name], "s", 0, {"openai/gsm8k": "gsm8k"})
    assert (prompt.messages, prompt.verifier, prompt.truth) == ((("user", "1 and 2?"),), "gsm8k", "3")


def test_a_verifier_that_asks_a_model_counts_as_none() -> None:
    prompt = prompt_of({"prompt": "Write.", "dataset": "judge", "ground_truth": "a reference"}, "s", 0)
    assert prompt.verifier is None and prompt.dataset == "judge"


def test_rows_without_a_verifier_where_one_is_required(run: Run, server: Served, tmp_path: Path) -> None:
    file = sums(tmp_path / "p.jsonl", 3)
    file.write_text(file.read_text() + '{"prompt": "What is the sum of 1 and 2?"}\n')
    assert run("responses", recipe(server.url, file, verify="required")).returncode == 0
    assert adds_up(tmp_path / "out")["counts"]["rejected"]["no_verifier"] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("models=[]", "name at least one model"),
        ("best_of=0", "at least 1, not 0"),
        ("keep=longest", "'longest' is none of first, all, shortest"),
        ("prompts.0.path=nowhere.jsonl", "no such file or folder"),
        ("prompts=[]", "name at least one set"),
        ("prompts.0.hub=a/b", "give either `path` or `hub`"),
        ("workers=0", "at least 1, not 0"),
        ("least=2", "at most 1"),
        ("models.0.thinking=thonk", "unknown reader"),
        ("models.0.price=[1]", "expected two numbers"),
        ("models.0.price=[.nan, 1]", "expected two numbers"),
        ("models.0.top_k=-5", "at least 1"),
        ("models.0.min_p=2", "from 0 to 1"),
        ("models.0.batch_size=0", "at least 1"),
        ("timeout=.nan", "timeout: expected seconds above 0"),
        ("timeout=0", "timeout: expected seconds above 0"),
    ],
)
def test_mistakes_are_one_line(run: Run, server: Served, tmp_path: Path, change: str, said: str) -> None:
    done = run("responses", recipe(server.url, sums(tmp_path / "p.jsonl")), "--set", change)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr and not server.seen


def test_the_cost_is_computed_from_the_recipes_price(run: Run, server: Served, tmp_path: Path) -> None:
    asked_for = recipe(server.url, sums(tmp_path / "p.jsonl", 10), verify="off")
    asked_for["models"][0]["price"] = [1.0, 10.0]
    assert run("responses", asked_for).returncode == 0
    (spent,) = adds_up(tmp_path / "out")["models"]
    assert spent["cost_usd"] == pytest.approx((70 * 1 + 10 * 10) / 1e6)


def test_a_folder_that_a_command_has_made_is_read_without_its_rejected_rows(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "lamp 0"}\n{"prompt": "lamp 1"}\n')

    def reply(body: Body, before: int) -> Reply:
        return Reply({"error": "no"}, status=400) if asked(body) == "lamp 1" else Reply(chat("It shines."))

    with judge_server(reply) as served:
        for number, form in enumerate(("parquet", "jsonl")):
            source = tmp_path / f"out{number - 1}" if number else file
            assert run("responses", recipe(served.url, source, format=form), out=f"out{number}").returncode == 0
    assert in_folder(tmp_path / "out0") == [tmp_path / "out0" / "data.parquet"]
    (row,) = map(json.loads, (tmp_path / "out1" / "data.jsonl").read_text().splitlines())
    assert row["messages"][0]["content"] == "lamp 0"


# Pass rates


def rates(url: str, file: Path, **keys: Any) -> dict[str, Any]:
    model = {"model": "m", "base_url": url, "temperature": 1.0}
    return {"prompts": [{"path": str(file)}], "model": model, "samples": 8, "workers": 1, **keys}


def by_number(body: Body, before: int) -> Reply:
    """Question 0 is never solved, 1 always, the others in some samples."""
    a, b = map(int, SUM.findall(asked(body))[-1])
    solved = a == 1 or (a > 1 and body["seed"] % 3 != 0)
    return Reply(chat(f"{a + b if solved else a + b + 1}"))


@pytest.mark.long
def test_prompts_that_are_always_or_never_solved_are_left_out(run: Run, tmp_path: Path) -> None:
    with judge_server(by_number) as served:
        done = run("passrate", rates(served.url, sums(tmp_path / "p.jsonl", 12)))
    assert done.returncode == 0, done.stderr
    manifest = adds_up(tmp_path / "out")
    reasons = {row["row"]: row["reason"] for row in rejected_of(tmp_path / "out")}
    assert reasons[0] == "never_solved" and reasons[1] == "always_solved"
    rows = rows_of(tmp_path / "out")
    for row in rows:
        assert row["passrate"] == row["passed"] / 8 and 0 < row["passrate"] < 1 and row["samples"] == 8
        assert (row["passrate_low"], row["passrate_high"]) == pytest.approx(wilson(row["passed"], 8))
        assert row["passrate_model"] == "m" and row["dataset"] == "gsm8k" and row["ground_truth"]
    assert sum(manifest["passrates"]) == 12 and manifest["models"][0]["completions"] == 96


@pytest.mark.long
def test_a_range_of_pass_rates(run: Run, tmp_path: Path) -> None:
    with judge_server(by_number) as served:
        file = sums(tmp_path / "p.jsonl", 12)
        assert run("passrate", rates(served.url, file, above=None, below=None), out="all").returncode == 0
        assert run("passrate", rates(served.url, file, above=0.5, below=0.8), out="some").returncode == 0
    every = {row["row"]: row["passrate"] for row in rows_of(tmp_path / "all")}
    assert len(every) == 12
    some = {row["row"]: row["passrate"] for row in rows_of(tmp_path / "some")}
    assert some == {row: rate for row, rate in every.items() if 0.5 < rate < 0.8}
    adds_up(tmp_path / "some")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model.temperature=0", "at temperature 0 are all the same"),
        ("samples=0", "at least 1"),
        ("above=0.9", "leave no prompt"),
        ("below=1.5", "from 0 to 1"),
        ("least=0", "above 0 and at most 1"),
        ("least=.nan", "above 0 and at most 1"),
    ],
)
def test_mistakes_of_pass_rates(run: Run, server: Served, tmp_path: Path, change: str, said: str) -> None:
    asked_for = rates(server.url, sums(tmp_path / "p.jsonl"), below=0.9)
    done = run("passrate", asked_for, "--set", change)
    assert done.returncode == 2 and said in done.stderr and not server.seen


# Half surrogate pairs, which no file of text can hold


@pytest.mark.long
@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_columns_and_answers_that_are_not_unicode_end_no_command(run: Run, tmp_path: Path, form: str) -> None:
    """They would end it when everything is paid for, and again at each --resume."""
    file = sums(tmp_path / "p.jsonl", 3)
    first, *rest = map(json.loads, file.read_text().splitlines())
    odd = {**first, "id": "\ud800", "note": "a \ud83d", "score": float("nan")}
    file.write_text("".join(json.dumps(row) + "\n" for row in (odd, *rest)))

    def reply(body: Body, before: int) -> Reply:
        solved = sum(map(int, SUM.findall(asked(body))[-1])) + body["seed"] % 2
        return Reply(json.dumps(chat(f"\ud83d, I think it is {solved}.")).encode())

    with judge_server(reply) as served:
        done = run("passrate", rates(served.url, file, above=None, below=None, format=form))
        assert done.returncode == 0, done.stderr
        done = run("responses", recipe(served.url, file, format=form), out="answers")
    assert done.returncode == 1 and "left out as markup" in done.stderr
    if form == "parquet":
        rows = rows_of(tmp_path / "out")
        assert json.loads(rows[0]["columns"]) == {"note": "a \ud83d", "score": None}
        assert "NaN" not in rows[0]["columns"] and len(rows) == 3 and any(row["passed"] for row in rows)
        rows[0]["id"].encode()


def test_a_truth_that_is_not_unicode_is_refused_before_anything_is_asked(
    run: Run, server: Served, tmp_path: Path
) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"prompt": "Q", "dataset": "string", "ground_truth": "\ud800"}) + "\n")
    done = run("passrate", rates(server.url, file))
    assert done.returncode == 2 and "row 0: a 'ground_truth' that is not Unicode" in done.stderr and not server.seen


@pytest.mark.parametrize(
    ("command", "text", "said"),
    [
        ("responses", "models: [{model: some/where}]\nbest_of: 0\n", "best_of"),
        ("passrate", "model: {model: some/where}\nsamples: 0\n", "samples"),
        ("preferences", "policy: {model: some/where}\nby: verifier\non_policy: 2\n", "on_policy"),
        ("prompts", "generator: {model: some/where}\nskills: [{skill: algebra, count: 0}]\n", "skills[0]: count"),
    ],
)
def test_a_wrong_value_is_said_before_a_model_is_looked_for(
    run: Run, tmp_path: Path, command: str, text: str, said: str
) -> None:
    prompts = "" if command == "prompts" else "prompts: [{path: p.jsonl}]\n"
    (tmp_path / "p.jsonl").write_text('{"prompt": "What is 1 and 4?"}\n')
    done = run(command, yaml.safe_load(prompts + text))
    assert done.returncode == 2 and said in done.stderr and "some/where" not in done.stderr, done.stderr
