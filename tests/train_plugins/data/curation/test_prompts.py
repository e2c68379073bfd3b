"""`olmes data prompts`: personas, templates, filters, constraints that the verifier checks, equal bytes."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from curation_server import Run, adds_up, rejected_of, rows_of
from curation_server import everything as everything_served
from judge_server import Body, Reply, Served, chat, judge_server

from olmes_suite.constraints.registry import PROFILES, everything
from olmes_suite.errors import UsageError
from olmes_suite.yaml_files import Place
from train_plugins.data.curation import constraint_draws, personas, templates
from train_plugins.data.curation.personas import Personas
from train_plugins.verifiers.iftrain import TABLE
from train_plugins.verifiers.instructions import check_constraints

pytest.importorskip("rensa")
pytestmark = pytest.mark.usefixtures("punkt_tab")  # the constraints of prompts are checked as they are drawn
PLACE = Place("recipe.yaml")


def recipe(url: str, **keys: Any) -> dict[str, Any]:
    return {
        "personas": {"sample": True},
        "generator": {"model": "m", "base_url": url, "concurrency": 4, "tries": 2},
        "skills": [{"skill": "knowledge", "count": 30}, {"skill": "instructions", "count": 20}],
        **keys,
    }


def test_a_text_that_differs_only_in_punctuation_is_a_near_duplicate(run: Run, tmp_path: Path) -> None:
    texts = iter(["Is the old lamp lit, or not?", "Is the old lamp lit or not?", "Is  the old lamp lit, or not?"])

    def reply(body: Body, before: int) -> Reply:
        return Reply(chat(f"Question: {next(texts)}"))

    with judge_server(reply) as served:
        skills = [{"skill": "knowledge", "count": 3}]
        model = {"model": "m", "base_url": served.url, "concurrency": 1}
        assert run("prompts", recipe(served.url, skills=skills, generator=model)).returncode == 0
    assert [row["reason"] for row in rejected_of(tmp_path / "out")] == ["near_duplicate", "duplicate"]


@pytest.mark.long
def test_prompts_are_written_filtered_and_counted(run: Run, server: Served, tmp_path: Path) -> None:
    done = run("prompts", recipe(server.url))
    assert done.returncode == 0, done.stderr
    manifest = adds_up(tmp_path / "out")
    rejected = manifest["counts"]["rejected"]
    assert manifest["counts"]["read"] == 50
    assert rejected["refusal"] and rejected["no_label"] and rejected["duplicate"]
    rows = rows_of(tmp_path / "out")
    assert all(row["messages"][0]["content"].startswith("What would") or "clocks" in str(row) for row in rows)
    assert not any("Answer:" in str(row["messages"]) or "Question:" in str(row["messages"]) for row in rows)
    assert {row["skill"] for row in rows} == {"knowledge", "instructions"}
    assert "licence: Apache-2.0" in (tmp_path / "out" / "card.md").read_text()
    constrained = [row for row in rows if row["skill"] == "instructions"]
    for row in constrained:
        truth = json.loads(row["ground_truth"])
        assert row["dataset"] == "ifeval"
        check_constraints(truth, {})
        said = json.loads(row["constraints"])
        assert [one["id"] for one in said] == truth["instruction_id_list"]
        assert all(one["text"] in row["messages"][0]["content"] for one in said)
        assert row["messages"][0]["content"].startswith(row["task"])


@pytest.mark.long
def test_equal_bytes_whatever_the_concurrency(run: Run, server: Served, tmp_path: Path) -> None:
    for number, concurrency in enumerate((1, 16)):
        asked = recipe(server.url)
        asked["generator"]["concurrency"] = concurrency
        assert run("prompts", asked, out=f"out{number}").returncode == 0
    for name in ("data.parquet", "rejected.jsonl"):
        assert (tmp_path / "out0" / name).read_bytes() == (tmp_path / "out1" / name).read_bytes()


@pytest.mark.long
def test_equal_bytes_at_another_address(run: Run, tmp_path: Path) -> None:
    """A server on another port is the same model: the requests have the same seeds."""
    for out in ("a", "b"):
        with judge_server(everything_served) as server:
            assert run("prompts", recipe(server.url), out=out).returncode == 0
    for name in ("data.parquet", "rejected.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.long
def test_another_seed_gives_other_prompts(run: Run, server: Served, tmp_path: Path) -> None:
    assert run("prompts", recipe(server.url), out="a").returncode == 0
    assert run("prompts", recipe(server.url, seed=7), out="b").returncode == 0
    first, second = ({row["messages"][0]["content"] for row in rows_of(tmp_path / name)} for name in "ab")
    assert not first & second - {text for text in first if "clocks" in text}


def test_a_failed_request_is_recorded_and_the_others_go_on(run: Run, tmp_path: Path) -> None:
    def reply(body: Any, before: int) -> Reply:
        text = body["messages"][-1]["content"]
        if "fishing" in text or random.Random(text).random() < 0.2:
            return Reply({"error": "the prompt is not allowed"}, status=400)
        person = text[40:120].replace("\n", " ")
        return Reply(chat(f"Question: What makes the bread of {person} rise in the oven?"))

    with judge_server(reply) as served:
        done = run("prompts", recipe(served.url, skills=[{"skill": "knowledge", "count": 30}], few_shot=0))
    assert done.returncode == 0, done.stderr
    failed = [row for row in rejected_of(tmp_path / "out") if row["reason"] == "request_failed"]
    assert failed and "not allowed" in failed[0]["detail"]
    assert adds_up(tmp_path / "out")["models"][0]["failed"] >= 1


def test_a_dry_run_asks_nothing(run: Run, server: Served, tmp_path: Path) -> None:
    done = run("prompts", recipe(server.url), "--dry-run")
    assert done.returncode == 0 and "completions: 50" in done.stdout and not server.seen
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("skills.0.skill=knowledg", "unknown skill 'knowledg', did you mean 'knowledge'?"),
        ("skills.0.count=0", "expected at least 1, not 0"),
        ("skills=[]", "name at least one"),
        ("generator.temperature=9", "expected a number from 0 to 5"),
        ("generator.base_url=localhost:8000", "is not a URL such as"),
        ("generator.base_url=null", "for a served model, give `base_url`"),
        ("generator.backend=hf", "hf runs no served model"),
        ("personas.path=nowhere.jsonl", "give one of `path`, `hub` and `sample`"),
        ("personas={path: nowhere.jsonl}", "no such file or folder"),
        ("personas={sample: true, limit: -1}", "limit: expected a whole number of at least 1"),
        ("constraint_file=nowhere.yaml", "constraint_file: nowhere.yaml: no such file"),
        ("constraints=[3, 1]", "the fewest and the most"),
        ("filters.language=xx", "'xx' is none of"),
        ("filters={min_words: 9, max_words: 3}", "leave no text"),
        ("duplicates.near=2", "above 0 and at most 1"),
        ("few_shots=2", "unknown key 'few_shots', did you mean 'few_shot'?"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_asked(run: Run, server: Served, change: str, said: str) -> None:
    done = run("prompts", recipe(server.url), "--set", change)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr
    assert not server.seen


@pytest.mark.long
def test_a_server_that_is_not_there_is_one_line(run: Run, tmp_path: Path) -> None:
    done = run("prompts", recipe("http://127.0.0.1:9/v1"))
    assert done.returncode == 2 and "start the server or correct the address" in done.stderr
    assert not (tmp_path / "out").exists()


def test_personahub_is_named_as_non_commercial(tmp_path: Path) -> None:
    assert personas.licence_of(Personas(hub="proj-persona/PersonaHub")) == "CC-BY-NC-SA-4.0"
    copy = tmp_path / "mine.jsonl"
    copy.write_text('{"input persona": "a baker", "synthesized text": "x", "description": "y"}\n')
    (line,) = personas.warnings(Personas(path=str(copy), licence="Apache-2.0"))
    assert "not for commercial use" in line
    assert personas.licence_of(Personas()) == "CC-BY-4.0" and not personas.warnings(Personas())
    assert len(set(personas.read(Personas(sample=True)))) == 40


def test_a_persona_without_text_is_named_by_its_row(run: Run, server: Served, tmp_path: Path) -> None:
    file = tmp_path / "people.jsonl"
    file.write_text('{"persona": "a baker"}\n{"who": "a nurse"}\n')
    done = run("prompts", recipe(server.url, personas={"path": str(file)}))
    assert (
        done.returncode == 2
        and done.stderr.count("\n") == 1
        and "row 1 has no text in the column 'persona' (columns: who)" in done.stderr
    )
    assert not server.seen


def test_a_persona_that_is_not_unicode_is_named_by_its_row(run: Run, server: Served, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"persona": "a nurse"}\n{"persona": "a \\ud83d baker"}\n')
    done = run("prompts", recipe(server.url, personas={"path": str(file)}))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "row 1: text that is not Unicode" in done.stderr
    assert not server.seen


def test_every_constraint_is_the_reward_verifiers_and_none_is_unseen() -> None:
    found = constraint_draws.load()
    unseen = {name for profile in PROFILES for name in everything(profile)}
    ids = [one.id for one in found.constraints]
    assert len(set(ids)) == len(ids) >= 50 and set(TABLE) - {"copy:copying_simple"} <= set(ids)
    assert not unseen & set(ids)
    for seed in range(200):
        drawn = constraint_draws.draw(found, 3, random.Random(seed), "Tell a story.")
        assert 1 <= len(drawn) <= 3
        assert all("{" not in one.text for one in drawn)
        check_constraints(constraint_draws.truth(drawn), {})


def test_constraints_of_one_prompt_do_not_contradict_each_other() -> None:
    found = constraint_draws.load()
    groups = {one.id: one.group for one in found.constraints}
    alone = 0
    for seed in range(300):
        drawn = constraint_draws.draw(found, 3, random.Random(seed), "Tell a story.")
        named = {groups[one.id] for one in drawn}
        assert len(named) == len(drawn) == 3 and "whole" not in named
        values = [value for one in drawn for value in one.kwargs.values()]
        words = [word for value in values for word in (value if isinstance(value, list) else [value])]
        words = [word for word in words if word in found.words]
        assert len(set(words)) == len(words)
        (single,) = constraint_draws.draw(found, 1, random.Random(seed), "Tell a story.")
        alone += groups[single.id] == "whole"
    assert 30 < alone < 200


def test_a_prompt_has_no_two_constraints_that_no_answer_can_follow() -> None:
    found = constraint_draws.load()
    upper, lower = "change_case:english_capital", "change_case:english_lowercase"
    impossible = [
        {upper, "detectable_format:multiple_sections"}, {lower, "detectable_format:multiple_sections"},
        {upper, "copy:repeat_phrase"},
    ]  # fmt: skip
    together = 0
    for seed in range(2000):
        drawn = {one.id: one.kwargs for one in constraint_draws.draw(found, 5, random.Random(seed), "Sing, please.")}
        assert not any(pair <= set(drawn) for pair in impossible)
        assert "combination:repeat_prompt" not in drawn
        phrase = drawn.get("copy:repeat_phrase", {}).get("phrase", "").split()
        forbidden = drawn.get("keywords:forbidden_words", {}).get("forbidden_words", ())
        together += bool(phrase and forbidden)
        assert not set(phrase) & set(forbidden)
    assert together > 20


def test_a_request_with_braces_is_repeated_as_it_is() -> None:
    (entry,) = (one for one in constraint_draws.load().constraints if one.id == "copy:copying_multiple")
    found = constraint_draws.Constraints(words=("lamp",), constraints=(entry,))
    (drawn,) = constraint_draws.draw(found, 1, random.Random(0), "Fill in {N} of {prompt_to_repeat}.")
    assert drawn.text.endswith(": Fill in {N} of {prompt_to_repeat}.")
    assert f"it {drawn.kwargs['N']} times" in drawn.text


def test_draws_of_one_seed_are_equal() -> None:
    found = constraint_draws.load()
    first, second = (constraint_draws.draw(found, 3, random.Random("x"), "Tell a story.") for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("name", "said"),
    [("count:conjunctions", "of the unseen suite"), ("keywords:nothing", "unknown instruction")],
)
def test_a_users_constraint_of_the_unseen_suite_is_refused(tmp_path: Path, name: str, said: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"words: [a]\nconstraints: [{{id: '{name}', group: g, text: Do it.}}]\n")
    with pytest.raises(UsageError, match=said):
        constraint_draws.load(file)


@pytest.mark.parametrize(
    ("constraints", "said"),
    [
        ("[]", "name at least one"),
        ("[{id: 'punctuation:no_comma', text: x, group: g, draw: {n: 3}}]", "cannot be drawn as `draw` says"),
        ("[{id: 'punctuation:no_comma', text: x, group: g, draw: {n: {frm: 3}}}]", "is no way to draw an argument"),
        (
            "[{id: 'keywords:existence', text: x, group: g, draw: {keywords: {words: [1, 2]}}}]",
            "2 words are drawn from 1",
        ),
    ],
)
def test_a_users_constraints_that_cannot_be_drawn_are_one_line(tmp_path: Path, constraints: str, said: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"words: [lamp]\nconstraints: {constraints}\n")
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        constraint_draws.load(file)
    assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)


def test_a_constraint_without_words_left_is_passed_over() -> None:
    entry = {"id": "keywords:existence", "text": "Use {keywords}.", "draw": {"keywords": {"words": [1, 1]}}}
    entries = tuple(constraint_draws.Entry(group=group, **entry) for group in "ab")
    found = constraint_draws.Constraints(words=("lamp",), constraints=entries)
    assert len(constraint_draws.draw(found, 2, random.Random(0), "A task")) == 1


def test_templates_have_a_persona_a_label_and_seeds_that_pass_their_own_bounds() -> None:
    assert templates.names() == ["algebra", "code", "grade_math", "hard_math", "instructions", "knowledge", "safety"]
    for name in templates.names():
        template = templates.find(name, PLACE)
        for seed in template.seeds:
            assert template.least_words <= len(seed.split()) <= template.most_words
            assert templates.parsed(template, f"{template.label} {seed}") == seed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Problem: two and two?", "two and two?"),
        ("**Problem:** two and two?", "two and two?"),
        ("### Problem:\ntwo\nand two?", "two\nand two?"),
        ('Sure!\nProblem: "two and two?"\n\nSolution: four', "two and two?"),
        ("problem : two?\n**Answer:** 4", "two?"),
        ("Problem: two?\n\nProblem: three?\n\nProblem:", "two?"),
        ("Problem:\n\n**Problem:** two?", "two?"),
        ("Problem: is this a problem: two?", "is this a problem: two?"),
        ("Problem:", ""),
        ("Here it is: two?", None),
        ("The problem is this", None),
    ],
)
def test_labels_are_parsed_off(text: str, expected: str | None) -> None:
    assert templates.parsed(templates.find("algebra", PLACE), text) == expected


def test_a_users_template(run: Run, server: Served, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text('skill: mine\nlabel: "Wish:"\ntexts: ["What does {persona} wish for?"]\n')
    done = run("prompts", recipe(server.url, skills=[{"skill": str(file), "count": 5}]))
    assert done.returncode == 0, done.stderr
    assert {row["skill"] for row in rows_of(tmp_path / "out")} == {"mine"}
    other = tmp_path / "other.yaml"
    other.write_text('skill: mine\nlabel: "Wish:"\ntexts: ["What does one wish for?"]\n')
    done = run("prompts", recipe(server.url, skills=[{"skill": str(other), "count": 5}]), out="b")
    assert done.returncode == 2 and "has to contain {persona}" in done.stderr
