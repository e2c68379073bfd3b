"""The 29 training constraints: right and wrong answers, arguments, and their distance from the unseen suite."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT

from olmes_suite import constraints
from olmes_suite.constraints.registry import PROFILES, everything
from train_plugins.verifiers import Malformed, iftrain
from train_plugins.verifiers.instructions import (
    check_constraints,
    ifeval,
    ifeval_fraction,
    ifeval_strict,
    ifeval_strict_fraction,
)
from train_plugins.verifiers.task_modules import task

ASK = "Name a sea."
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("copy:copy", {"prompt_to_repeat": ASK}, [" name A sea.\n"], ["Name a sea"]),
    ("copy:copying_simple", {"prompt_to_repeat": ASK}, [ASK], [f"{ASK} Kara"]),
    ("copy:copying_multiple", {"prompt_to_repeat": ASK, "N": 2}, [f"{ASK}\n******\n{ASK}"], [ASK, f"{ASK}***{ASK}"]),
    ("new:copy_span_idx", {"prompt_to_repeat": ASK, "n_start": 0, "n_end": 4}, ["name"], ["Name a"]),
    ("copy:repeat_phrase", {"phrase": "the old grey sea", "small_n": 2},
     ["the new grey sea, the old blue sea"], ["the new grey sea", "the new grey sea the old grey sea"]),
    ("keywords:word_once", {"keyword": "sea"}, ["A Sea."], ["lake", "sea and seaside"]),
    ("keywords:word_count_different_numbers", {"keyword": "se.", "frequency": 2, "relation": "at least"},
     ["sea set"], ["sea"]),
    ("keywords:word_count_different_numbers", {"keyword": "sea", "frequency": 1, "relation": "less than"},
     ["lake"], ["sea"]),
    ("keywords:exclude_word_harder", {"keyword": "sea", "instruction": None}, ["the sea.", "sea"], ["a sea is"]),
    ("keywords:no_adjacent_consecutive", {}, ["a cat ate", "sea"], ["a Big cat"]),
    ("keywords:palindrome", {}, ["I saw a level", "it is a sea"], ["Level off"]),
    ("keywords:keyword_specific_position", {"keyword": "sea", "n": 2, "m": 3}, ["Hi. The wide sea is."],
     ["Hi. The sea.", "The wide sea.", "Hi. The wide Sea."]),
    ("keywords:start_end", {}, ["Sea to sea"], ["Sea to sea.", "sea"]),
    ("paragraphs:paragraphs", {}, ["one *** two", "***\none\n***\ntwo"], ["one", "one *** two *** three"]),
    ("paragraphs:paragraphs2", {}, ["one\n\ntwo"], ["one\ntwo", "one\n\n\n\ntwo"]),
    ("first_word:first_word_sent", {"first_word": ["Sea"]}, ["Sea one. sea two."], ["Sea one. The sea."]),
    ("first_word:first_word_answer", {"first_word": "sea"}, ["Sea one. Two."], ["The sea"]),
    ("last_word:last_word_sent", {"last_word": "sea"}, ["A sea. The Sea!"], ["A sea. The lake."]),
    ("last_word:last_word_answer", {"last_word": "sea"}, ["One. A sea!"], ["A sea. One."]),
    ("detectable_format:square_brackets", {}, ["[a] [sea]"], ["[a] sea", "[a sea]"]),
    ("detectable_format:bigram_wrapping", {}, ["<<a sea>> <<is wide>>", "<<a sea>> wide"], ["<<a>> <<sea>> is wide"]),
    ("detectable_format:sentence_hyphens", {}, ["It is.-It was."], ["It is. - It was."]),
    ("punctuation:punctuation_dot", {}, ["a sea!"], ["3.5"]),
    ("punctuation:punctuation_exclamation", {}, ["a sea."], ["a sea!"]),
    ("count:lowercase_counting", {"N": 2}, ["The SEA is wide"], ["it is a sea"]),
    ("count:count_unique", {}, ["A sea is wide."], ["A sea, a lake, a sea"]),
    ("count:count_increment_word", {"keyword1": "sea", "keyword2": "salt"}, ["Salt sea salt"], ["sea salt"]),
    ("count:counting_composition", {"n_sent": 1, "n_words": 3}, ["It is.\n***\nIt was.\n***\nWe are."],
     ["It is.\n***\nIt was.", "It is.\n***\nIt was so.\n***\nWe are."]),
    ("letters:letter_counting", {"N": 4, "relation": "less than"}, ["sea 1234"], ["seas"]),
    ("letters:letter_counting", {"N": 4, "relation": "at least"}, ["seas"], ["sea 1234"]),
    ("letters:letter_counting2", {"letter": "S", "let_frequency": 2, "let_relation": "at least"}, ["Seas"], ["sea"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "right", "wrong"), CASES, ids=[case[0] for case in CASES])
def test_a_training_constraint(name: str, arguments: Any, right: Any, wrong: Any, request: Any) -> None:
    if iftrain.TABLE[name].needs_nltk:
        request.getfixturevalue("punkt_tab")
    others = {"end_phrase": None, "num_words": None}  # a row of a table holds all arguments
    assert [text for text in right if not iftrain.follows(name, {**others, **arguments}, text)] == []
    assert [text for text in (*wrong, "", " \n") if iftrain.follows(name, {**others, **arguments}, text)] == []


def test_all_29_have_cases() -> None:
    assert {case[0] for case in CASES} == set(iftrain.TABLE) and len(iftrain.TABLE) == 29


def test_they_are_apart_from_the_unseen_suites_constraints() -> None:
    """No name, no function and no module is shared: a reward must not teach what the unseen suite measures."""
    for profile in PROFILES:
        theirs = everything(profile)
        assert not set(iftrain.TABLE) & set(theirs)
        assert not {one.holds.__name__ for one in iftrain.TABLE.values()} & {
            entry.check.__name__ for entry in theirs.values()
        }
    assert not set(iftrain.TABLE) & set(task("ifeval").checkers().INSTRUCTION_DICT)
    tree = ast.parse(inspect.getsource(iftrain))
    imported = [getattr(node, "module", None) or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert imported and not [name for name in imported if "constraints" in name]
    for file in Path(constraints.__file__).parent.glob("*.py"):
        assert "iftrain" not in file.read_text(encoding="utf-8"), file


def test_loading_them_loads_no_constraint_of_the_unseen_suite() -> None:
    program = (
        "import sys, importlib.util as u\n"
        f"spec = u.spec_from_file_location('alone', {iftrain.__file__!r})\n"
        "module = u.module_from_spec(spec); sys.modules['alone'] = module; spec.loader.exec_module(module)\n"
        "print([name for name in sys.modules if name.startswith('olmes_suite.constraints.') "
        "and name.rsplit('.')[-1] in ('count', 'format', 'words', 'custom', 'ratio', 'sentence', 'repeat')])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout.strip() == "[]"


def mixed(*names: str, **arguments: Any) -> str:
    """A truth as the public sets hold it: the text of a Python list of one mapping."""
    return repr([{"instruction_id": list(names), "kwargs": [arguments or None for _ in names]}])


def test_they_are_verified_beside_those_of_ifeval() -> None:
    truth = mixed("punctuation:no_comma", "punctuation:punctuation_dot", "detectable_format:title")
    said = "<<Sea>> is wide."
    assert ifeval_strict_fraction(said, truth, {}) == pytest.approx(2 / 3)
    assert ifeval_strict(said, truth, {}) == 0 and ifeval_strict("<<Sea>> is wide", truth, {}) == 1
    assert ifeval("<<Sea>> is wide\nDone.", truth, {}) == 1  # the loose reading drops the last line
    assert ifeval_fraction("", truth, {}) == 0


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("copy:copy", {}, "copy:copy lacks its argument 'prompt_to_repeat'"),
        ("keywords:word_once", {"keyword": "("}, "keyword is no regular expression"),
        ("letters:letter_counting", {"N": 3, "relation": "at most"}, "relation must be one of less than, at least"),
        ("letters:letter_counting2", {"letter": "ab", "let_frequency": 1, "let_relation": "at least"}, "one letter"),
        ("copy:copying_multiple", {"prompt_to_repeat": "a", "N": 0}, "N must be a whole number of at least 1"),
        ("count:lowercase_counting", {"N": 2.5}, "N must be a whole number of at least 0"),
        ("first_word:first_word_answer", {"first_word": 7}, "first_word must be text"),
    ],
)
def test_arguments_that_cannot_be_read(name: str, arguments: Any, why: str) -> None:
    with pytest.raises(Malformed, match=why.replace("(", r"\(")):
        check_constraints(mixed(name, **arguments), {})


def test_an_unknown_constraint_is_named_with_the_nearest() -> None:
    with pytest.raises(Malformed, match="did you mean 'keywords:palindrome'"):
        check_constraints(mixed("keywords:palindrom"), {})
