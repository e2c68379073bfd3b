"""Constraints of IFEval-OOD and IFBench: passing and failing answers of our own, properties, the reference's scores."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from helpers import as_json, olmes
from hypothesis import given, settings
from hypothesis import strategies as st

from olmes_suite.constraints import count, registry, verdicts
from olmes_suite.constraints.count import within
from olmes_suite.constraints.french import is_french
from olmes_suite.constraints.loose import loose_variants
from olmes_suite.constraints.places import countries_named
from olmes_suite.constraints.registry import Profile, constraint, everything, find
from olmes_suite.constraints.text import listed
from olmes_suite.errors import MissingData, UsageError
from olmes_suite.scoring import language_resources
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task

ROOT = Path(__file__).parents[2]
CASES = [
    json.loads(line)
    for line in (Path(__file__).with_name("constraints.jsonl")).read_text(encoding="utf-8").splitlines()
]
PROFILES: tuple[Profile, ...] = ("reference", "repaired")
ADDED = (
    "count:keywords_multiple", "count:words_japanese", "format:no_whitespace", "format:output_template",
    "format:title_case", "repeat:repeat_change", "repeat:repeat_simple", "repeat:repeat_span",
    "words:keywords_specific_position", "words:words_position",
)  # fmt: skip


def document(*named: tuple[str, dict[str, Any]], prompt: str = "Say something.") -> dict[str, Any]:
    return {
        "key": "1",
        "prompt": prompt,
        "instruction_id_list": [name for name, _ in named],
        "kwargs": [arguments for _, arguments in named],
    }


def follows(name: str, profile: Profile, response: str, **arguments: Any) -> bool:
    """Ask a checker itself."""
    entry = find(name, profile)
    assert entry is not None
    return entry.check(response, **arguments)


def skip_without(names: Iterable[str]) -> None:
    """Skip where this machine lacks what a checker reads."""
    try:
        language_resources.require(names)
    except MissingData as error:
        pytest.skip(str(error))


@pytest.fixture
def nltk_data() -> None:
    """All of NLTK's data that checkers read."""
    skip_without(language_resources.NLTK_DATA)


@pytest.fixture
def marked_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of a spaCy model: places are written with | between them."""
    monkeypatch.setattr(count, "places", lambda text: [place.strip() for place in text.split("|")])


# Every constraint ---------------------------------------------------------------------------------------------------


def test_all_constraints_are_there() -> None:
    repaired, reference = set(everything("repaired")), set(everything("reference"))
    assert len(repaired) == 62 and repaired.issuperset(ADDED)
    families = [name.split(":")[0] for name in repaired - set(ADDED)]
    assert {family: families.count(family) for family in set(families)} == {
        "count": 10, "format": 12, "ratio": 5, "sentence": 3, "words": 11, "custom": 11,
    }  # fmt: skip
    assert repaired - reference == {"count:words_french"}


@pytest.mark.parametrize("name", everything("repaired"))
def test_our_own_answers(name: str, marked_places: None) -> None:
    needed = {need for profile in PROFILES if (entry := find(name, profile)) for need in entry.needs}
    skip_without(needed - {"spacy_model"})
    seen = set()
    for case in (case for case in CASES if case["constraint"] == name):
        for profile in PROFILES if case["profile"] == "both" else (case["profile"],):
            if find(name, profile) is None:
                continue
            doc = document((name, case["kwargs"]), prompt=case["prompt"])
            (verdict,) = verdicts.verdicts(doc, case["response"], profile)
            assert verdict.strict == case["follows"], (profile, case, verdict.error)
            seen.add((profile, case["follows"]))
    wanted = {(profile, follows) for profile in PROFILES for follows in (True, False) if find(name, profile)}
    assert seen == wanted - {("reference", True)} if name == "words:keywords_specific_position" else seen == wanted


@pytest.mark.parametrize("profile", PROFILES)
def test_a_missing_number_is_drawn_in_the_reference_and_an_error_when_repaired(profile: Profile) -> None:
    """Zero counts as missing in the reference, whose checkers then draw."""
    doc = document(("count:numbers", {"N": 0}), ("count:pronouns", {}))
    zero, absent = verdicts.verdicts(doc, "She has no digits.", profile)
    if profile == "repaired":
        assert zero.strict and zero.error is None
        assert not absent.loose and "lacks its parameter N" in str(absent.error)
    else:
        assert not zero.strict and zero.error is absent.error is None


def test_what_is_drawn_depends_on_the_document_only() -> None:
    doc = document(("count:word_count_range", {}))
    random.seed(1)
    before = random.getstate()
    found = {verdicts.report(verdicts.verdicts(doc, "word " * 200, "reference")) for _ in range(5)}
    assert len(found) == 1 and random.getstate() == before


@pytest.mark.parametrize(
    ("given_", "problem"),
    [
        ({"N": 2.5}, "whole number"),
        ({"N": "two"}, "must be a number"),
        ({"N": 2, "M": 1}, "does not take the parameter M"),
    ],
)
def test_parameters_that_make_no_sense(given_: dict[str, Any], problem: str) -> None:
    (verdict,) = verdicts.verdicts(document(("count:numbers", given_)), "1 and 2", "repaired")
    assert not verdict.strict and problem in str(verdict.error)


def test_whole_numbers_may_be_floats_or_text() -> None:
    for value in (2, 2.0, "2", "2.0"):
        (verdict,) = verdicts.verdicts(document(("count:numbers", {"N": value, "word": None})), "1 and 2", "repaired")
        assert verdict.strict


def test_a_checker_that_raises_is_an_error_and_not_followed() -> None:
    doc = document(("ratio:overlap", {"reference_text": "abcdef", "percentage": 50}), ("format:no_whitespace", {}))
    found = verdicts.scored(doc, "ab", "reference")
    assert found.flags == ("checker_error",) and found.scores["inst_level_loose_acc"] == 0.5
    assert "ZeroDivisionError" in str(found.extracted)
    assert verdicts.scored(doc, "ab", "repaired").flags == ()
    unknown = verdicts.scored(document(("count:moons", {})), "one", "repaired")
    assert unknown.flags == ("checker_error",) and unknown.scores["prompt_level_loose_acc"] == 0.0


def test_blank_follows_nothing_and_is_no_error() -> None:
    found = verdicts.scored(
        document(("format:no_whitespace", {}), ("words:repeats", {"small_n": 3})), " \n", "reference"
    )
    assert set(found.scores.values()) == {0.0} and found.failed and found.flags == ()


def test_loose_forgives_a_first_line() -> None:
    doc = document(("count:numbers", {"N": 2}))
    found = verdicts.scored(doc, "Here are 2 numbers:\n3 and 4", "repaired").scores
    assert (found["prompt_level_strict_acc"], found["prompt_level_loose_acc"]) == (0.0, 1.0)


def test_one_line_registers_a_constraint(monkeypatch: pytest.MonkeyPatch) -> None:
    everything("reference")
    monkeypatch.setattr(registry, "_REGISTER", dict(registry._REGISTER))

    @constraint("count:test_only_vowels", version=2)
    def vowels(response: str, *, N: int) -> bool:
        """At least `N` vowels."""
        return sum(letter in "aeiou" for letter in response) >= N

    assert vowels("aei", N=3)
    for profile in PROFILES:
        entry = everything(profile).get("count:test_only_vowels")
        assert entry is not None and entry.types == {"N": int} and entry.version == 2
    with pytest.raises(UsageError, match="twice"):

        @constraint("count:test_only_vowels")
        def other(response: str) -> bool:
            return True


TASK = """
from olmes_suite.constraints import constraint
from olmes_suite.constraints.verdicts import scored
from olmes_suite.scoring import scorer

@constraint("mine:exclamations")
def exclamations(response: str, *, N: int) -> bool:
    return response.count("!") >= N

@scorer()
def score(doc, response):
    return scored(doc, response, "repaired")
"""


@pytest.mark.long
def test_a_users_own_constraint_in_a_task_of_their_own(tmp_path: Path) -> None:
    doc = document(("mine:exclamations", {"N": 2}), ("count:numbers", {"N": 0}), prompt="Shout!!")
    (tmp_path / "mine").mkdir()
    (tmp_path / "docs.jsonl").write_text(json.dumps(doc) + "\n")
    (tmp_path / "mine/task.py").write_text(TASK)
    (tmp_path / "mine/loud.yaml").write_text(
        f"task: loud\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/docs.jsonl}}}}\n"
        "test_split: test\noutput_type: generate_until\ndoc_to_text: '{{prompt}}'\ndoc_to_target: ''\n"
        "generation_kwargs: {until: [], max_gen_toks: 9, do_sample: false}\nprocess_results: !function task.score\n"
        "metric_list: [{metric: prompt_level_loose_acc, aggregation: mean, higher_is_better: true}]\n"
        "metadata: {version: 1.0}\n"
    )
    asked = ("--task", "loud", "--include-path", tmp_path / "mine", "--runs", tmp_path / "runs", "--json")
    done = as_json(olmes("eval", "--backend", "floor", *asked, tmp=tmp_path, HF_HOME=str(tmp_path)))
    assert done["tasks"]["loud"]["floor"]["scores"] == {"empty": 0.0, "word": 0.0, "echo": 1.0, "filler": 0.0}
    assert not done["tasks"]["loud"]["flags"]["checker_error"], "the constraint was found"


# Properties ---------------------------------------------------------------------------------------------------------

TEXT = st.text(alphabet=st.sampled_from("abcdeAB .,!?;:*-'\"\n<i>/()[]1234é犬🙂"), max_size=60)
WITHOUT_PARAMETERS = [
    (profile, name) for profile in PROFILES for name, entry in everything(profile).items() if not entry.types
]
QUICK = [pair for pair in WITHOUT_PARAMETERS if "punkt_tab" not in everything(pair[0])[pair[1]].needs]
MAY_RAISE = {"words:alphabet", "format:quote_unquote", "custom:csv_quotes"}
"""Checkers whose reference raises on what holds no letter; as "an error", not as a verdict."""


@pytest.mark.parametrize(("profile", "name"), QUICK)
@settings(deadline=None)
@given(text=TEXT)
def test_a_verdict_on_anything(profile: Profile, name: str, text: str) -> None:
    """A checker gives a truth value for whatever is said; only some of the reference raise."""
    try:
        assert follows(name, profile, text) in (True, False)
    except (IndexError, ValueError):
        assert profile == "reference" and name in MAY_RAISE


@settings(deadline=None)
@given(text=st.text(alphabet=" .,;:!?*-_#\"'()\n", max_size=30))
@pytest.mark.parametrize("name", [name for profile, name in QUICK if profile == "repaired"])
def test_nothing_but_marks_follows_no_repaired_constraint(name: str, text: str) -> None:
    """No vacuous pass: punctuation is no answer (but for those that ask for marks or for no space)."""
    if name not in ("format:no_whitespace", "format:parentheses", "count:punctuation"):
        assert not follows(name, "repaired", text)


@settings(deadline=None)
@given(one=st.text("abc", max_size=8), other=st.text("abc", max_size=8), limit=st.integers(0, 9))
def test_the_band_gives_the_distance(one: str, other: str, limit: int) -> None:
    def distance(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))

    one, other = one[:5], other[:5]
    assert within(one, other, limit) == (distance(one, other) <= limit)


@settings(deadline=None)
@given(text=TEXT)
def test_loose_variants_only_take_away(text: str) -> None:
    variants = loose_variants(text)
    assert len(variants) == 8 and variants[0] == text
    assert all("*" not in variant for variant in variants[4:])
    assert all(variant in text for variant in variants[:4])


@settings(deadline=None)
@given(text=TEXT)
def test_strict_implies_loose(text: str) -> None:
    doc = document(("format:no_whitespace", {}), ("words:prime_lengths", {}), ("count:numbers", {"N": 1}))
    for profile in PROFILES:
        found = verdicts.verdicts(doc, text, profile)
        assert all(one.loose for one in found if one.strict)


@settings(deadline=None)
@given(n=st.integers(0, 12), words=st.lists(st.sampled_from(["rain", "Snow", "sun,", "it's"]), min_size=1, max_size=12))
def test_word_counts_are_monotone(n: int, words: list[str]) -> None:
    text = " ".join(words)
    assert follows("count:word_count_range", "repaired", text, min_words=0, max_words=n) == (len(words) <= n)
    if follows("words:repeats", "repaired", text, small_n=n):
        assert follows("words:repeats", "repaired", text, small_n=n + 1)
    if follows("count:unique_word_count", "repaired", text, N=n + 1):
        assert follows("count:unique_word_count", "repaired", text, N=n)


@settings(deadline=None)
@given(words=st.lists(st.sampled_from(["red", "green", "blue", "black", "white"]), min_size=3, max_size=10))
def test_a_copy_overlaps_wholly(words: list[str]) -> None:
    text = " ".join(words)
    assert follows("ratio:overlap", "repaired", text, reference_text=text, percentage=100)
    assert not follows("ratio:overlap", "repaired", text, reference_text="nothing of the kind", percentage=100)


@settings(deadline=None)
@given(depth=st.integers(1, 8), kinds=st.lists(st.sampled_from(["()", "[]", "{}"]), min_size=8, max_size=8))
def test_brackets_nest_five_deep(depth: int, kinds: list[str]) -> None:
    text = "".join(kind[0] for kind in kinds[:depth]) + "x" + "".join(kind[1] for kind in reversed(kinds[:depth]))
    for profile in PROFILES:
        assert follows("format:parentheses", profile, text) == (depth >= 5)


# What checkers read beside the response -----------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["est", "C'est", "l’eau", "parle-t-il", "aujourd'hui", "Maison", "table", "peut-être"])
def test_french(word: str) -> None:
    assert is_french(word)


@pytest.mark.parametrize("word", ["chipmunk", "good", "the", "for", "lied", "Beyoncé", "naïveness", "straße", "犬"])
def test_not_french(word: str) -> None:
    assert not is_french(word)


def test_countries_of_places() -> None:
    assert countries_named(["Paris", "Lyon", "the United States", "U.S.A.", "São Paulo"]) == {
        "France", "United States", "Brazil",
    }  # fmt: skip
    assert countries_named(["Georgia"]) == {"Georgia"}, "the country before the state"
    assert countries_named(["Springfield", "Mars"]) == set()
    assert len({*listed("africa")}) == 54 == len(countries_named(listed("africa")))


def test_countries_need_a_model_that_the_user_names(monkeypatch: pytest.MonkeyPatch) -> None:
    doc = document(("count:countries", {"percentage": 2}))
    monkeypatch.delenv(language_resources.SPACY_MODEL, raising=False)
    assert verdicts.needs(doc, "reference") == {"spacy_model"}
    with pytest.raises(MissingData, match="OLMES_SPACY_MODEL"):
        verdicts.scored(doc, "France and Japan", "reference")
    monkeypatch.setenv(language_resources.SPACY_MODEL, "no_such_model")
    with pytest.raises(MissingData, match=r"spacy|no_such_model"):
        verdicts.scored(doc, "France and Japan", "repaired")


def test_places_of_a_spacy_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    model = spacy.blank("en")
    model.add_pipe("entity_ruler").add_patterns([{"label": "GPE", "pattern": name} for name in ("France", "Japan")])
    model.to_disk(tmp_path / "model")
    monkeypatch.setenv(language_resources.SPACY_MODEL, str(tmp_path / "model"))
    doc = document(("count:countries", {"percentage": 2}))
    assert verdicts.scored(doc, "From France to Japan.", "repaired").scores["prompt_level_strict_acc"] == 1.0
    assert verdicts.scored(doc, "From France to France.", "repaired").scores["prompt_level_strict_acc"] == 0.0


def test_missing_nltk_data_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    monkeypatch.delenv("OLMES_DATA_DIR", raising=False)
    with pytest.raises(MissingData, match="olmes data pull") as raised:
        language_resources.require(["stopwords", "punkt_tab"])
    assert "\n" not in str(raised.value) and "punkt_tab, stopwords are not" in str(raised.value)


def test_nltk_data_is_copied_into_a_mirror_and_found_there(
    nltk_data: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import nltk

    for name in language_resources.NLTK_DATA:
        assert language_resources.fetch_nltk(name, tmp_path / "nltk") == "pulled"
        assert language_resources.fetch_nltk(name, tmp_path / "nltk") == "kept"
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.delenv("NLTK_DATA", raising=False)
    monkeypatch.setenv("OLMES_DATA_DIR", str(tmp_path))
    language_resources.require(language_resources.NLTK_DATA)
    assert nltk.data.path == []  # asking changes nothing
    for _ in range(2):
        language_resources.extend_nltk_path()
        assert nltk.data.path == [str(tmp_path / "nltk")]


# The tasks ----------------------------------------------------------------------------------------------------------

SAMPLE = DataSource((), sample=True)
TASKS = {name: ROOT / f"tasks/{name.removesuffix('_repaired')}/tulu3_{name}.yaml" for name in (
    "ifbench", "ifbench_repaired", "ifeval_ood", "ifeval_ood_repaired",
)}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_sample_golds(name: str) -> None:
    task = load_task(TASKS[name], SAMPLE)
    docs = [doc for doc in task.task_docs if not any(map(language_resources.missing, task.keys.resources(doc)))]
    assert len(docs) > len(task.task_docs) / 3, "most need nothing beside the response"
    for doc in docs:
        gold, corrupt = (sample(doc) for sample in (task.keys.gold, task.keys.corrupt))
        assert set(task.scorer.one(doc, gold).scores.values()) == {1.0}, doc
        assert task.scorer.one(doc, corrupt).scores["prompt_level_loose_acc"] == 0.0, doc


def test_samples_cover_all_that_needs_no_model_of_the_users() -> None:
    named = {
        name for doc in load_task(TASKS["ifeval_ood_repaired"], SAMPLE).task_docs for name in doc["instruction_id_list"]
    }
    assert named == set(everything("repaired")) - set(ADDED) - {"count:countries", "count:test_only_vowels"}


def test_french_rows_are_left_out_and_counted_in_the_reference() -> None:
    reference, repaired = (load_task(TASKS[name], SAMPLE) for name in ("ifeval_ood", "ifeval_ood_repaired"))
    assert list(reference.left_out.values()) == ["count:words_french"] and repaired.left_out == {}
    assert len(reference.task_docs) + 1 == len(repaired.task_docs)
    (row,) = reference.left_out
    assert row not in reference.task_docs["_row"]
    assert repaired.task_docs[row]["instruction_id_list"] == ["count:words_french"]
    last = repaired.task_docs[len(repaired.task_docs) - 1]
    assert reference.task_docs[len(reference.task_docs) - 1]["key"] == last["key"], "rows keep their numbers"


@pytest.mark.data
def test_scores_equal_the_references(data_dir: Path, protocol_dir: Path, nltk_data: None) -> None:
    task = load_task(TASKS["ifbench"], DataSource((data_dir,)))
    docs, seen = task.task_docs, 0
    with (protocol_dir / "examples/scores.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["task"] == "tulu3_ifbench":
                found = task.scorer.one(docs[row["doc_id"]], row["response"]).scores
                assert {metric: found[metric] for metric in row["expected"]} == row["expected"], row["doc_id"]
                seen += 1
    assert seen == 70


@pytest.mark.data
def test_prompts_equal_the_references(data_dir: Path, protocol_dir: Path) -> None:
    task, seen = load_task(TASKS["ifbench"], DataSource((data_dir,))), 0
    with (protocol_dir / "examples/prompts.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["task"] == "tulu3_ifbench":
                (request,) = task.requests(task.task_docs[row["doc_id"]], row["doc_id"], chat=True)
                assert request.chat == row["messages"] and list(request.stop) == row["stop"]
                assert (request.max_tokens, request.temperature, request.samples) == (2048, 0.0, 1)
                seen += 1
    assert seen == 6


@pytest.mark.data
@pytest.mark.long
def test_one_noun_and_the_two_profiles(data_dir: Path, nltk_data: None) -> None:
    """The measured floors of docs/ifeval_ood.md: one noun passes 120 of IFBench's 300 prompts, and 33 repaired."""
    passed = {}
    for name in ("ifbench", "ifbench_repaired"):
        task = load_task(TASKS[name], DataSource((data_dir,)))
        passed[name] = sum(
            task.scorer.one(doc, "Spring").scores["prompt_level_loose_acc"] or 0 for doc in task.task_docs
        )
    assert passed == {"ifbench": 120, "ifbench_repaired": 33}
