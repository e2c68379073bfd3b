"""The tasks of the OLMo 3 suites: equal to the reference, repaired where that is wrong, and linear where it is not."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from task_parity import (
    LATER_FILES,
    LATER_LEAVES,
    TASKS,
    assert_later_scores_equal,
    assert_prompts_equal,
    mirror,
    sample_docs,
    task,
)

from olmes_suite.scoring import cascade, module_beside
from olmes_suite.scoring.scorers import SandboxedScorer
from olmes_suite.tasks import index, suites

TEXT = {
    "mmlu": (29, 72), "popqa": (9, 64), "bbh": (16, 115), "agieval": (8, 67), "gsm8k": (7, 64), "omega500": (14, 88),
    "zebralogic": (5, 44), "gpqa": (1, 35), "aime": (10, 76), "math": (15, 128),
}  # fmt: skip
"""Family to the numbers of prompts and scores of the reference."""
CODE = {"humaneval_plus": (3, 42), "mbpp_plus": (4, 43), "livecodebench": (4, 72), "cruxeval": (21, 81)}


@pytest.mark.data
@pytest.mark.parametrize("family", [*TEXT, *CODE])
def test_prompts_equal_the_reference(family: str, data_dir: Path, protocol_dir: Path) -> None:
    assert_prompts_equal(f"olmo3_{family}.*", (TEXT | CODE)[family][0], data_dir, protocol_dir)


@pytest.mark.data
@pytest.mark.parametrize("family", TEXT)
def test_scores_equal_the_reference(family: str, data_dir: Path, protocol_dir: Path) -> None:
    assert_later_scores_equal(f"olmo3_{family}.*", TEXT[family][1], data_dir, protocol_dir)


@pytest.mark.data
@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=pytest.mark.long) if name.endswith("_plus") else name for name in CODE]
)
def test_verdicts_on_programs_equal_the_reference(family: str, data_dir: Path, protocol_dir: Path) -> None:
    assert_later_scores_equal(f"olmo3_{family}.*", CODE[family][1], data_dir, protocol_dir)


@pytest.mark.data
def test_constraints_equal_the_reference(data_dir: Path, protocol_dir: Path, nltk_data: None) -> None:
    assert_prompts_equal("olmo3_(ifeval|ifbench).*", 22, data_dir, protocol_dir)
    assert_later_scores_equal("olmo3_(ifeval|ifbench).*", 126, data_dir, protocol_dir)


@pytest.mark.data
def test_alpaca_eval_asks_what_the_reference_asks(data_dir: Path, protocol_dir: Path) -> None:
    assert_prompts_equal("olmo3_alpaca_eval", 8, data_dir, protocol_dir)


NEEDS_LANGUAGE_DATA = ("olmo3_ifeval", "olmo3_ifbench", "olmo3_ifbench_tulu")
ONE_OF_A_GROUP = re.compile(
    r"olmo3_(?:mmlu|bbh|omega)(?:_pro)?(?:_cot)?(?:_repaired)?"
    r"_(?!anatomy|law|dyck|snarks|word|web|navigate|comp_n_gon|arithmetic_gcd|trans_circles)"
)


def scored_names() -> list[str]:
    """The leaf tasks whose scorer needs nothing but this package, a few of each large group."""
    return [
        name
        for name in LATER_LEAVES
        if name not in NEEDS_LANGUAGE_DATA
        and not index.index()[name].judge
        and not name.startswith("olmo3_safety_")  # a classifier judges
        and not ONE_OF_A_GROUP.match(name)
    ]


@pytest.mark.parametrize("name", scored_names())
def test_sample_golds_score_one_and_wrong_answers_nothing(name: str) -> None:
    made = task(name)
    docs = sample_docs(name)
    assert docs
    for doc in docs:
        right = made.scorer.document(doc, [made.keys.gold(doc)])[0].scores
        wrong = made.scorer.document(doc, [made.keys.corrupt(doc)])[0].scores
        primary = made.config.metadata["primary"]
        primary = "pass_at_1" if primary == "pass_at_5" else primary
        assert right[primary] == 1.0 and wrong[primary] == 0.0


def test_every_leaf_is_indexed_and_in_its_group() -> None:
    entries = index.index()
    assert set(LATER_FILES) == {name for name in entries if name.startswith(index.LATER)}
    sizes = {name: len(entries[name].members) for name in LATER_FILES if entries[name].members}
    expected = {
        "olmo3_mmlu": 57, "olmo3_bbh": 27, "olmo3_agieval": 8, "olmo3_math": 7, "olmo3_mmlu_pro": 14,
        "olmo3_mmlu_pro_cot": 14, "olmo3_safety": 6, "olmo3_omega": 96,
    }  # fmt: skip
    repaired = {f"{name}_repaired": n for name, n in expected.items() if name not in ("olmo3_mmlu_pro", "olmo3_safety")}
    kinds = {"compositional": 7, "explorative": 82, "transformative": 7}
    repaired |= {f"olmo3_omega_{read}{kind}": n for read in ("", "repaired_") for kind, n in kinds.items()}
    tools = {f"olmo3_bfcl_{think}{part}": n for think in ("", "think_") for part, n in (("non_live", 5), ("live", 6))}
    long = {f"olmo3_ruler_{length}": 13 for length in ("4k", "8k", "16k", "32k", "64k", "128k")}
    assert sizes == expected | repaired | tools | long


def test_repaired_variants_say_what_differs() -> None:
    names = (entry for entry in index.top_level() if entry.name.startswith(index.LATER))
    repaired = [entry for entry in names if entry.name.endswith("_repaired")]
    assert len(repaired) == 19
    assert all(" of the reference" in entry.differs or "gives no examples" in entry.differs for entry in repaired)
    assert index.index()["olmo3_gsm8k_repaired"].differs.endswith("it accepts 11 more and refuses 4")
    for entry in repaired:  # metadata of an included file is replaced, not extended
        original = index.index()[entry.name.removesuffix("_repaired")]
        assert (entry.primary, entry.shots, original.differs) == (original.primary, original.shots, "")


def test_omega_averages_its_three_data_sets_alike() -> None:
    leaves = index.index()["olmo3_omega"].members
    shares = dict(zip(leaves, index.nested_shares(leaves), strict=True))
    assert shares["olmo3_omega_comp_n_gon"] == shares["olmo3_omega_trans_circles"] == pytest.approx(1 / 21)
    assert shares["olmo3_omega_arithmetic_gcd_in"] == pytest.approx(1 / 246)
    assert sum(shares.values()) == pytest.approx(1)
    some = ("olmo3_omega_comp_n_gon", "olmo3_omega_comp_matrix_rank", "olmo3_omega_geometry_basic_out")
    assert index.nested_shares(some) == [0.25, 0.25, 0.5]


def test_a_nested_average_weighs_data_sets_in_scores_and_in_comparisons() -> None:
    from olmes_suite import stats
    from olmes_suite.comparison.alignment import align, weighting
    from olmes_suite.evaluation.record import combine, leaf_weights
    from olmes_suite.runs.scores import LeafScores, TaskScores

    some = ("olmo3_omega_comp_n_gon", "olmo3_omega_comp_matrix_rank", "olmo3_omega_geometry_basic_out")
    leaves = [SimpleNamespace(name=name, weight=lambda number, planned: number) for name in some]
    values = (1.0, 0.0, 1.0)
    parts = [({"m": stats.Estimate(value)}, weight) for value, weight in
             zip(values, leaf_weights("nested", leaves, [10, 20, 30]), strict=True)]  # fmt: skip
    assert combine("nested", parts)["m"].value == 0.75
    assert leaf_weights("micro", leaves, [10, 20, 30]) == [10, 20, 30]

    def run(values: tuple[float, ...]) -> TaskScores:
        ids, zeros = np.arange(4), np.zeros(4, dtype=np.int64)
        found = {name: LeafScores(ids, np.full(4, value), ids, zeros) for name, value in zip(some, values, strict=True)}
        return TaskScores("olmo3_omega", found, "m", "nested")

    assert weighting(run(values)) == "nested"
    aligned = align(run((0.0, 0.0, 0.0)), run(values))
    assert aligned is not None
    assert float((aligned.pairs.difference * aligned.pairs.weight).sum()) == pytest.approx(0.75)


def test_a_prefix_of_olmo3_is_not_optional() -> None:
    assert index.full_name("zebralogic") == "zebralogic" and index.full_name("gsm8k") == "tulu3_gsm8k"


@pytest.mark.parametrize("suite", ["olmo3_dev", "olmo3_unseen", "olmo3_safety", "tools", "long"])
def test_suites_name_tasks_that_exist(suite: str) -> None:
    for entry in suites.load(suite).tasks:
        assert entry.task in index.index()
        assert entry.primary in (None, index.index()[entry.task].primary)


def test_a_task_named_alone_has_the_skill_of_its_suite() -> None:
    from olmes_suite.evaluation.plan import skill_of

    assert skill_of("olmo3_mmlu") == skill_of("olmo3_mmlu_anatomy") == skill_of("tulu3_mmlu") == "knowledge"
    assert skill_of("olmo3_zebralogic") == "reasoning" and skill_of("olmo3_cruxeval_input") == "other"


def test_the_unseen_suite_is_kept_from_training_and_the_development_suite_is_not() -> None:
    assert all(suites.asks_unseen(entry.task) for entry in suites.load("olmo3_unseen").tasks)
    assert not any(suites.asks_unseen(entry.task) for entry in suites.load("olmo3_dev").tasks)
    assert suites.asks_unseen("olmo3_ifbench") and suites.asks_unseen("olmo3_mmlu_pro_cot_law")
    assert suites.asks_unseen("tulu3_gpqa") and suites.asks_unseen("gpqa")


# reading of answers ------------------------------------------------------------------------------------------------


def read(name: str, response: str, **doc: Any) -> tuple[float | None, str | None]:
    """The primary score and the extracted answer."""
    made = task(name)
    scored = made.scorer.document(doc or sample_docs(name)[0], [response])[0]
    return scored.scores[made.config.metadata["primary"]], scored.extracted


ANATOMY = {"subject": "anatomy", "question": "?", "choices": ["w", "x", "y", "z"], "answer": 2}


@pytest.mark.parametrize(
    ("response", "reference", "repaired"),
    [
        ("Therefore, the answer is: C", "C", "C"),
        ("It is C. That was a hard one.", "a", "C"),
        ("The final answer is \\boxed{C}. This is a fact.", "a", "C"),
        ("**C**\n\nI hope that was a help.", "a", "C"),
        ("A patient has a fever.", "a", ""),
        ("(B) is wrong, (C) is correct.", "C", "C"),
        ("C) is correct", "C", "C"),
        ("", "", ""),
    ],
)
def test_letters(response: str, reference: str, repaired: str) -> None:
    assert read("olmo3_mmlu_anatomy", response, **ANATOMY)[1] == reference
    assert read("olmo3_mmlu_repaired_anatomy", response, **ANATOMY)[1] == repaired


@pytest.mark.parametrize(
    ("response", "reference", "repaired"),
    [
        ("Therefore, the final answer is \\boxed{\\frac{3}{28}}.", 1.0, 1.0),
        ("The answer is: \\frac{3}{28}", 0.0, 1.0),
        ("so $\\boxed{\\frac{3}{28}}$", 0.0, 1.0),
        ("Therefore, the final answer is \\boxed{\\frac{3}{28}} (of {all}).", 0.0, 1.0),
        ("\\boxed{\\dfrac{3}{28}}", 0.0, 1.0),
        ("\\boxed{\\frac{4}{28}}", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_omega(response: str, reference: float, repaired: float) -> None:
    assert read("olmo3_omega500", response)[0] == reference
    assert read("olmo3_omega500_repaired", response)[0] == repaired


def test_one_brace_in_the_reasoning_makes_a_grid_unreadable_unless_it_is_repaired() -> None:
    doc = sample_docs("olmo3_zebralogic")[0]
    answer = f"Consider the set {{1, 2, and so on.\n{task('olmo3_zebralogic').keys.gold(doc)}"
    assert read("olmo3_zebralogic", answer, **doc)[0] == 0.0
    assert read("olmo3_zebralogic_repaired", answer, **doc)[0] == 1.0


@pytest.mark.parametrize(
    "text", ["{" * 10_000, "[" * 100_000, '{"a":' * 20_000, "{}" * 50_000, '{"solution": ' + "1" * 10**6]
)
def test_a_grid_of_nested_braces_or_a_megabyte_takes_bounded_time(text: str) -> None:
    began = time.process_time()
    assert read("olmo3_zebralogic", text)[0] == read("olmo3_zebralogic_repaired", text)[0] == 0.0
    assert time.process_time() - began < 5


def bbh() -> Any:
    """`tasks/bbh/olmo3.py`."""
    return module_beside(str(TASKS / "bbh" / "olmo3.py"), "olmo3.py")


PIECES = (
    "therefore the answer is", "Therefore, the\nanswer is:", " ", "  ", "\n", "\t", "(", ")", "a", "word", "foo bar",
    "9", "_", "is correct", " is  correct", "is\ncorrect", ".", "]", "}", ") )", " > ", "é", "A is correct", "\u00a0",
)  # fmt: skip


@pytest.mark.long
def test_linear_templates_of_bbh_find_what_the_plain_ones_find() -> None:
    draw = random.Random(3)
    templates = ((cascade.TEMPLATES[0], bbh().last_therefore), (cascade.TEMPLATES[6], bbh().last_correct))
    for _ in range(20_000):
        text = "".join(draw.choices(PIECES, k=draw.randint(1, 14)))
        for pattern in (bbh().WORDS, bbh().BRACKETS):
            for template, function in templates:
                matches = re.findall(template.replace(cascade.ANSWER, pattern), text)
                assert function(text, pattern) == (matches[-1] if matches else None), (text, pattern, template)


def test_the_last_two_templates_of_the_reference_find_nothing_more() -> None:
    draw = random.Random(4)
    ninth, last = (re.compile(pattern) for pattern in (r"(?i)\b(\(?([A-D])\)?)\b", r"(?i).*\b(\(?([A-D])\)?)\b"))
    for _ in range(20_000):
        text = "".join(draw.choices(("a", "B ", "(c)", "x", "\n", ".", " "), k=8))
        assert bool(ninth.search(text)) == bool(last.search(text))


# programs ----------------------------------------------------------------------------------------------------------


def test_private_tests_that_do_not_decode_are_counted_and_never_unpickled_freely() -> None:
    import base64
    import os
    import pickle
    import zlib

    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, ("olmo3-trap",)

    cases = module_beside(str(TASKS / "livecodebench" / "cases.py"), "cases.py")
    packed = [base64.b64encode(zlib.compress(pickle.dumps(value))).decode() for value in (Trap(), 7, "no JSON")]
    for private in [*packed, "not base64!", "", "[1]", "[" * 100_000, '{"input": "1"}', None]:
        assert cases.decoded(private) is None
    assert not Path("olmo3-trap").exists()
    doc = {**sample_docs("olmo3_livecodebench")[0], "private_test_cases": packed[0]}
    made = task("olmo3_livecodebench")
    found = made.scorer.document(
        doc, ["```python\nn = int(input())\nprint(sum(int(x)**2 for x in input().split()))\n```"]
    )
    assert found[0].flags == ("tests_dropped",) and found[0].scores["pass_at_1"] == 1.0


@pytest.mark.parametrize("part", ["public_test_cases", "metadata"])
@pytest.mark.parametrize("damaged", ["[{", "[1]", "[" * 100_000, "7"])
def test_a_damaged_document_is_counted_and_does_not_end_the_scoring(part: str, damaged: str) -> None:
    cases = module_beside(str(TASKS / "livecodebench" / "cases.py"), "cases.py")
    programs = module_beside(str(TASKS / "livecodebench" / "programs.py"), "programs.py")
    doc = sample_docs("olmo3_livecodebench")[0]
    tests = cases.of({**doc, part: damaged})
    assert tests.dropped
    assert 0 < len(tests.cases) < len(cases.of(doc).cases) if part == "public_test_cases" else tests.cases == ()
    if not tests.cases:
        assert programs.verdict("print(5)", tests, sandbox=None).outcome == "error"


@pytest.mark.parametrize(
    ("got", "wanted", "same"),
    [
        ("1.0 2\n", "1 2.00", True), ("a b", "a  b", False), ("1\n2", "1\n2\n", True), ("1\n\n2", "1\n2", False),
        ("1e3", "1000", True), ("yes", "YES", False), ("", "", True),
    ],
)  # fmt: skip
def test_livecodebench_compares_lines_as_text_then_as_decimals(got: str, wanted: str, same: bool) -> None:
    programs = module_beside(str(TASKS / "livecodebench" / "programs.py"), "programs.py")
    assert programs.same_output(got, wanted) is same


def test_an_early_exit_does_not_pass_an_assertion() -> None:
    doc = sample_docs("olmo3_cruxeval_input")[0]
    assert read("olmo3_cruxeval_input", "\nexit(0)\n", **doc)[1] is None
    made = task("olmo3_cruxeval_input")
    assert made.scorer.document(doc, ["\n__import__('os')._exit(0)\n"])[0].scores["pass_at_1"] == 0.0
    assert made.scorer.document(doc, ["\nlambda: f(1)\n"])[0].scores["pass_at_1"] == 1.0  # as in the reference
    repaired = task("olmo3_cruxeval_input_repaired")
    assert repaired.scorer.document(doc, ["\nlambda: f(1)\n"])[0].scores["pass_at_1"] == 0.0
    assert repaired.scorer.document(doc, ["\nf([3, 4])\n"])[0].scores["pass_at_1"] == 1.0


def test_repaired_programs_do_not_depend_on_the_name_of_the_language() -> None:
    doc = sample_docs("olmo3_mbpp_plus")[0]
    answer = f"```py\n{doc['code'].strip()}\n```"
    assert task("olmo3_mbpp_plus").scorer.document(doc, [answer])[0].scores["pass_at_1"] == 0.0
    assert task("olmo3_mbpp_plus_repaired").scorer.document(doc, [answer])[0].scores["pass_at_1"] == 1.0


def test_inputs_of_mbpp_plus_are_announced_and_its_head_is_cut_as_in_the_reference() -> None:
    made = module_beside(str(TASKS / "mbpp" / "task.py"), "task.py")
    doc = {"code": "\nimport re\ndef f(a: int, b):\n    return a\n", "prompt": "",
           "test": "import math\n\ninputs = [[1, 2]]\nresults = [1]\n"
                   "for i, (inp, exp) in enumerate(zip(inputs, results)):\n"
                   "    assert f(*inp) == exp\n"}  # fmt: skip
    assert "\nf.prefetch(inputs)\nfor i, " in made.tests(doc, "f")
    assert made.tests({"test": "assert f(1) == 1\n"}, "f") == "assert f(1) == 1\n"
    names = ("olmo3_mbpp_plus", "olmo3_mbpp_plus_repaired")
    scores = [task(name).scorer.document(doc, [made.gold(doc)])[0].scores["pass_at_1"] for name in names]
    assert scores == [0.0, 1.0]


def test_several_samples_are_one_document() -> None:
    made = task("olmo3_aime_2024")
    doc = sample_docs("olmo3_aime_2024")[0]
    scores = made.scorer.document(doc, [made.keys.gold(doc)] * 8 + [made.keys.corrupt(doc)] * 24)[0].scores
    assert scores["pass_at_1"] == 0.25 and scores["pass_at_32"] == 1.0 and 0.25 < (scores["pass_at_4"] or 0) < 1


@pytest.mark.data
@pytest.mark.long
def test_canonical_programs_pass(data_dir: Path, protocol_dir: Path) -> None:
    source = mirror(data_dir, protocol_dir)
    for name, step in (("olmo3_mbpp_plus", 8), ("olmo3_cruxeval_output", 20), ("olmo3_cruxeval_input", 20)):
        made = task(name, source)
        assert isinstance(made.scorer, SandboxedScorer)
        for position in range(0, len(made.eval_docs), step):
            doc = dict(made.eval_docs[position])
            assert made.scorer.document(doc, [made.keys.gold(doc)])[0].scores["pass_at_1"] == 1.0, (name, position)


# offered to others -------------------------------------------------------------------------------------------------


def test_published_rows_have_a_column_of_each_score() -> None:
    from leaderboard.published import rows

    later = {row.name: row for row in rows() if "OLMo 3" in row.source}
    assert len(later) == 15
    assert all(set(row.cells) <= set(index.index()) for row in later.values())
    assert later["Olmo 3 7B Think"].cells["olmo3_gpqa_boxed"].value == 0.462


def test_published_noise_is_of_tasks_that_exist_and_bounds_margins() -> None:
    from olmes_suite.comparison.gate_rules import PUBLISHED_NOISE, parse_rules

    assert set(PUBLISHED_NOISE) <= set(index.index())
    assert parse_rules({"noise": "published"}, "gate.yaml").noise == "published"
