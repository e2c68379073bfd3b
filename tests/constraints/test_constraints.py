"""Constraints of IFEval-OOD and IFBench: passing and failing answers of our own, and what checkers need."""

from __future__ import annotations

import functools
import json
import random
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from constraint_cases import ADDED, PROFILES, document
from helpers import as_json, olmes_here

from olmes_suite.constraints import count, registry, verdicts
from olmes_suite.constraints.french import is_french
from olmes_suite.constraints.places import countries_named
from olmes_suite.constraints.registry import Profile, constraint, everything, find
from olmes_suite.constraints.text import listed
from olmes_suite.errors import MissingData, UsageError
from olmes_suite.scoring import language_resources

ROOT = Path(__file__).parents[2]
CASES = [
    json.loads(line)
    for line in (Path(__file__).with_name("constraints.jsonl")).read_text(encoding="utf-8").splitlines()
]


def skip_without(names: Iterable[str]) -> None:
    """Skip where this machine lacks what a checker reads."""
    try:
        language_resources.require(names)
    except MissingData as error:
        pytest.skip(str(error))


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
    everything("reference")  # imports the families: what they register must outlive this test
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
def test_a_users_own_constraint_in_a_task_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything("reference")
    monkeypatch.setattr(registry, "_REGISTER", dict(registry._REGISTER))  # the command runs in this process
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
    done = as_json(olmes_here("eval", "--backend", "floor", *asked, tmp=tmp_path, HF_HOME=str(tmp_path)))
    assert done["tasks"]["loud"]["floor"]["scores"] == {"empty": 0.0, "word": 0.0, "echo": 1.0, "filler": 0.0}
    assert not done["tasks"]["loud"]["flags"]["checker_error"], "the constraint was found"


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


def test_nltk_data_that_two_commands_copy_at_the_same_time_is_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The second one begins while the first has copied a part."""
    folder = tmp_path / "here/taggers/averaged_perceptron_tagger_eng"
    folder.mkdir(parents=True)
    for name in "ab":
        (folder / name).write_text(name)
    monkeypatch.setattr(language_resources, "nltk_folder", lambda name: folder)
    fetch = functools.partial(language_resources.fetch_nltk, folder.name, tmp_path / "nltk")
    copied, second = [], []

    def copy(source: Path, target: Path) -> None:
        target.mkdir(parents=True)
        for name in "ab":
            (target / name).write_text(name)
            copied.append(name)
            if len(copied) == 1:
                second.append(fetch())

    monkeypatch.setattr(shutil, "copytree", copy)
    assert (fetch(), second) == ("kept", ["pulled"]) and len(copied) == 4
    place = tmp_path / "nltk/taggers"
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()) == [
        f"{folder.name}/{name}" for name in "ab"
    ]


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
