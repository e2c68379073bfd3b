"""Verifiers: the evaluator's verdicts, in processes that a response can neither stop nor fool."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from olmes_suite.errors import MissingData, UsageError
from olmes_suite.tasks import catalog, index
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task
from olmes_suite.tasks.task import SuiteTask
from train_plugins.verifiers import Call, VerifierFailed, Verifiers
from train_plugins.verifiers.programs import program
from train_plugins.verifiers.tulu3_constraints import _TABLE

ALL = ("gsm8k", "gsm8k_benchmark", "math", "math_benchmark", "ifeval", "ifeval_fraction", "ifeval_strict", "string")
pytestmark = pytest.mark.xdist_group("verifiers")  # their processes take seconds to start

LEFT_OUT = ("sleeps", "loop", "equal to everything")
"""Kinds of recorded programs: out of time, and the one where the reference's grader is fooled."""


@pytest.fixture(scope="module")
def verifiers() -> Iterator[Verifiers]:
    with Verifiers(ALL, workers=1, timeout=10) as made:
        yield made


@pytest.fixture(scope="module")
def sandboxed() -> Iterator[Verifiers]:
    try:
        with Verifiers(["code", "code_fraction"], workers=1, timeout=10) as made:
            yield made
    except MissingData as error:
        pytest.skip(str(error))


def one(verifiers: Verifiers, name: str, response: str, truth: object, **row: object) -> float | None:
    return verifiers.verify([Call(name, response, truth, row)])[0]


def failure(verifiers: Verifiers, name: str, truth: object, response: str = "3", **row: object) -> str:
    with pytest.raises(VerifierFailed) as raised:
        one(verifiers, name, response, truth, **row)
    message = str(raised.value)
    assert "\n" not in message and len(message) < 400
    return message


# The evaluator's verdicts -------------------------------------------------------------------------------------------


def loaded(name: str, source: DataSource | None = None) -> SuiteTask:
    return load_task(index.task_file(catalog.find(name)), source or DataSource(sample=True))


def call_of(task: str, doc: dict, response: str) -> tuple[str, Call]:
    """The evaluator's metric, and the call that must have its value."""
    if task == "gsm8k":
        return "exact_match", Call("gsm8k_benchmark", response, doc["answer"], {})
    if task == "ifeval":
        return "prompt_level_loose_acc", Call("ifeval", response, None, doc)
    if task == "humaneval":
        return "pass_at_1", Call("code", response, None, doc)
    return "exact_match_flex", Call("math_benchmark", response, doc["solution"], {})


@pytest.mark.long
@pytest.mark.parametrize("task", ["gsm8k", "math_prealgebra", "ifeval"])
def test_golds_and_their_corruptions_have_the_evaluators_verdicts(verifiers, task):
    made = loaded(task)
    expected, calls = [], []
    for doc in made.task_docs:
        for response in (made.keys.gold(doc), made.keys.corrupt(doc), "", "7", "\\boxed{43}"):
            if response is not None:
                metric, call = call_of(task, dict(doc), response)
                calls.append(call)
                expected.append(made.scorer.one(doc, response).scores[metric])
    assert verifiers.verify(calls) == expected
    assert {0.0, 1.0} <= set(expected)


@pytest.mark.long
@pytest.mark.parametrize(
    ("task", "least"),
    [("gsm8k", 20), ("math", 170), ("ifeval", 60), pytest.param("humaneval", 20, marks=pytest.mark.long)],
)
def test_recorded_responses_have_the_references_scores(verifiers, protocol_dir, data_dir, request, task, least):
    used = request.getfixturevalue("sandboxed") if task == "humaneval" else verifiers
    calls, expected, tasks = [], [], {}
    for line in (protocol_dir / "examples/scores.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        name = row["task"].removeprefix("tulu3_")
        wanted = name == task or (task == "math" and name.startswith("math_"))
        if not wanted or "response" not in row or any(word in row["source"] for word in LEFT_OUT):
            continue
        made = tasks.setdefault(name, loaded(name, DataSource((data_dir,))))
        metric, call = call_of(task, dict(made.task_docs[row["doc_id"]]), row["response"])
        calls.append(call)
        expected.append(row["expected"][metric])
    assert used.verify(calls) == expected
    assert len(expected) >= least and {0.0, 1.0} <= set(expected)


def test_forms_of_a_truth(verifiers):
    assert one(verifiers, "gsm8k", "so 1,234 in all", 1234) == 1
    assert one(verifiers, "gsm8k", "so 1,234 in all", "12 + 1222 = 1234\n#### 1,234") == 1
    assert one(verifiers, "GSM8K", "It is 3.", "3") == 1
    assert one(verifiers, "math", r"\boxed{\frac{1}{2}}", r"\frac12") == 1
    assert one(verifiers, "MATH", "so $0.5$", r"We get $\boxed{\frac{1}{2}}$.") == 1
    assert one(verifiers, "math", r"\boxed{x+1}", "1+x") == 1
    assert one(verifiers, "string", " The  ANSWER, is 'yes'\n", "the answer is yes") == 1
    assert one(verifiers, "string", "Oslo", ["Bergen", "oslo."]) == 1
    assert one(verifiers, "gsm8k", "It is 72.", 72.0) == 1 and one(verifiers, "string", "72", 72.0) == 1
    assert one(verifiers, "gsm8k", "It is 7.", 72.0) == 0 and one(verifiers, "string", "2.5", 2.5) == 1
    assert one(verifiers, "math", r"\boxed{72}", 72.0) == 1
    assert one(verifiers, "string", "-", "+") == 0 and one(verifiers, "string", " + ", "+") == 1


# Instructions -------------------------------------------------------------------------------------------------------

NO_COMMA = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
TWO = {"instruction_id_list": ["punctuation:no_comma", "detectable_format:title"], "kwargs": [{}, None]}


def test_all_or_a_fraction_of_the_instructions(verifiers):
    for truth in (
        TWO,
        json.dumps(TWO),
        repr([{"instruction_id": TWO["instruction_id_list"], "kwargs": TWO["kwargs"]}]),
    ):
        assert one(verifiers, "ifeval", "<<sea>> wide", truth) == 1
        assert one(verifiers, "ifeval", "wide", truth) == 0
        assert one(verifiers, "ifeval_fraction", "wide", truth) == 0.5
    assert one(verifiers, "ifeval", "Well, sure.\nwide", NO_COMMA) == 1  # the loose reading forgives the first line
    assert one(verifiers, "ifeval_strict", "Well, sure.\nwide", NO_COMMA) == 0
    assert one(verifiers, "ifeval", "", NO_COMMA) == 0


def test_the_rows_own_columns_are_read(verifiers):
    assert one(verifiers, "ifeval", "wide", None, key=5, prompt="Hi", **NO_COMMA) == 1
    row = {"messages": [{"role": "user", "content": "Say hi."}]}
    repeat = {"instruction_id_list": ["combination:repeat_prompt"], "kwargs": [{"prompt_to_repeat": "Say hi."}]}
    assert one(verifiers, "ifeval", "Say hi. Hi!", repeat, **row) == 1


FUNC_NAMES = [
    ("verify_keywords", {"keyword_list": ["sea", "salt"]}, "Salt of the sea", "Salt"),
    ("verify_keyword_frequency", {"word": "sea", "N": 2}, "sea and sea", "sea sea sea"),
    ("validate_forbidden_words", {"forbidden_words": ["sea"]}, "a lake", "the sea"),
    ("verify_letter_frequency", {"letter": "z", "N": 1}, "zoo", "zz"),
    ("validate_response_language", {"language": "de"}, "Das Meer ist sehr blau und weit.", "The sea is blue and wide."),
    ("verify_paragraph_count", {"N": 2}, "one\n***\ntwo", "one"),
    ("validate_word_constraint", {"N": 20, "quantifier": "around"}, "w " * 22, "w " * 23),
    ("validate_word_constraint", {"N": 3, "quantifier": "at most"}, "a b c", "a b c d"),
    ("verify_sentence_constraint", {"N": 2, "quantifier": "at least"}, "It is. It was.", "It is."),
    ("validate_paragraphs", {"N": 2, "first_word": "then", "i": 2}, "One.\n\nThen two.", "One.\n\nTwo."),
    ("verify_postscript", {"postscript_marker": "P.S."}, "Hi.\nP.S. Bye", "Hi."),
    ("validate_placeholders", {"N": 2}, "[name] of [town]", "[name]"),
    ("verify_bullet_points", {"N": 2}, "* a\n* b", "* a\n* b\n* c"),
    ("validate_title", {}, "<<Sea>> is", "Sea"),
    ("validate_choice", {"options": ["yes", "no"]}, "no.", "I know nothing"),
    ("validate_highlighted_sections", {"N": 1}, "a *b* c", "a b c"),
    ("validate_sections", {"N": 2, "section_splitter": "Part"}, "Part 1\na\nPart 2\nb", "Part 1\na"),
    ("validate_json_format", {}, '{"a": 1}', "{a"),
    ("validate_repeat_prompt", {"original_prompt": "Say hi."}, "Say hi. Hi", "Hi"),
    ("validate_two_responses", {}, "a******b", "a"),
    ("validate_uppercase", {}, "THE SEA IS BLUE AND WIDE", "The sea is blue and wide"),
    ("validate_lowercase", {}, "the sea is blue and wide", "The sea is blue and wide"),
    ("validate_frequency_capital_words", {"N": 2, "quantifier": "at least"}, "SEA and LAKE", "SEA"),
    ("validate_end", {"end_phrase": "That is all."}, "Hi. That is all.", "Hi."),
    ("validate_quotation", {}, '"Hi"', "Hi"),
    ("validate_no_commas", {}, "a b", "a, b"),
]
SPLIT_BY_NLTK = ("verify_sentence_constraint", "validate_frequency_capital_words")


@pytest.mark.parametrize("splits", [False, True], ids=["the text itself", "its sentences or words"])
def test_the_constraints_of_the_rlvr_data(verifiers, request, splits):
    if splits:
        request.getfixturevalue("punkt_tab")
    calls = []
    nothing = dict.fromkeys(("N", "quantifier", "end_phrase", "keyword_list", "options", "language"))
    asked = [entry for entry in FUNC_NAMES if (entry[0] in SPLIT_BY_NLTK) is splits]
    for name, given, good, bad in asked:
        truth = json.dumps({"func_name": name, **nothing, **given})
        calls += [Call("ifeval_strict", text, truth, {"row": name}) for text in (good, bad)]
    found = verifiers.verify(calls)
    wrong = [
        call.row["row"] for call, value, good in zip(calls, found, [1, 0] * len(asked), strict=True) if value != good
    ]
    assert not wrong


def test_every_constraint_of_the_rlvr_data_has_an_example():
    assert {name for name, *_ in FUNC_NAMES} == set(_TABLE) and len(_TABLE) == 25


def test_an_exact_number_holds_in_one_and_the_same_reading(verifiers):
    """Two lines with the word once each: the whole text is too much, either line alone is right."""
    truth = {"func_name": "verify_keyword_frequency", "word": "sea", "N": 1}
    assert one(verifiers, "ifeval", "sea\nsea", truth) == 1
    assert one(verifiers, "ifeval", "sea sea\nlake", truth) == 0  # 2 or 0 times, never once
    assert one(verifiers, "ifeval_strict", "sea\nsea", truth) == 0


# Programs -----------------------------------------------------------------------------------------------------------

DOUBLE = "Here it is:\n```python\ndef double(x):\n    return 2 * x\n```\nDone."


def test_the_program_in_a_response():
    assert program(DOUBLE) == "def double(x):\n    return 2 * x\n"
    assert program("x = 1") == "x = 1" and program("") == ""
    assert program("```\na\n```\nor\n```py\nb\n```") == "b\n"
    assert program("```\na\n```\nor\n```py\nb\n") == "b\n"
    assert program("```") == ""
    assert program("```python\ndef f(): pass\n```\nOutput:\n```\n4\n```") == "def f(): pass\n"
    assert program("```python\ndef f(): pass\n```\nUse:\n```python\nprint(f())\n```") == "def f(): pass\n"
    assert program("```\ndef f(): pass\n```\n```\n4\n```") == "def f(): pass\n"


def test_programs_run_in_the_sandbox(sandboxed, tmp_path, monkeypatch):
    tests = ["assert double(2) == 4", "assert double(-1) == -2"]
    for truth in (tests, json.dumps(tests), "\n".join(tests)):
        assert one(sandboxed, "code", DOUBLE, truth) == 1
    for spelt in (
        "double = lambda x: 2 * x",
        "from math import pi\nimport operator\ndouble = lambda x: operator.mul(2, x)",
    ):
        assert one(sandboxed, "code", spelt, tests) == 1
    square = "def double(x):\n    return x * x\n"
    assert one(sandboxed, "code", square, tests) == 0 and one(sandboxed, "code_fraction", square, tests) == 0.5
    mark = tmp_path / "mark"
    attack = f"import os\nos.system('touch {mark}')\nopen({str(mark)!r}, 'w')\ndef double(x):\n    return 2 * x\n"
    one(sandboxed, "code", attack, tests)
    assert not mark.exists()
    monkeypatch.setattr("train_plugins.verifiers.programs.SECONDS", 0.5)  # the last but one never ends
    for cheat in ("raise SystemExit(0)", "import os; os._exit(0)", "class A:\n    __eq__ = lambda s, o: True\n"
                  "double = lambda x: A()", "x\x00", "def double(x): return 9**9**9**9", "é\ud800"):  # fmt: skip
        assert one(sandboxed, "code", cheat, tests) == 0, cheat


@pytest.mark.long
def test_a_program_out_of_time_is_counted(sandboxed, monkeypatch):
    monkeypatch.setattr("train_plugins.verifiers.programs.SECONDS", 0.3)
    before = sandboxed.timeouts
    assert one(sandboxed, "code", "def f():\n    while True: pass", ["assert f() == 1"]) == 0
    assert sandboxed.timeouts == before + 1


def test_humaneval_rows_have_the_evaluators_verdict(sandboxed):
    for doc in loaded("humaneval").task_docs:
        truth = json.dumps({name: doc[name] for name in ("prompt", "test", "entry_point")})
        assert one(sandboxed, "code", doc["canonical_solution"], truth) == 1
        assert one(sandboxed, "code", "    return None\n", truth) == 0


# Names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["gpqa", "tulu3_mmlu_pro", "IFEval_OOD", "agieval_sat-math", "deepmind_math", "bigcodebench",
             "bigcodebench_hard", "href", "ifbench", "mmlu_pro_llama31"],
)  # fmt: skip
def test_the_unseen_suites_checkers_are_no_rewards(name):
    with pytest.raises(UsageError, match="is a task of the unseen suite, which is for the end"):
        Verifiers([name], 1, 1)


def test_a_constraint_of_the_unseen_suite_is_refused(verifiers):
    truth = {"instruction_id_list": ["count:conjunctions"], "kwargs": [{"small_n": 1}]}
    assert "'count:conjunctions' is a constraint of the unseen suite" in failure(verifiers, "ifeval", truth, row=4)


def test_unknown_names_and_numbers():
    with pytest.raises(UsageError, match="unknown verifier 'gsm8', did you mean 'gsm8k'"):
        Verifiers(["gsm8"], 1, 1)
    for workers, timeout in ((0, 1), (1, 0)):
        with pytest.raises(UsageError, match="at least one worker"):
            Verifiers(["gsm8k"], workers, timeout)


def test_only_what_was_named_may_be_called(verifiers):
    with pytest.raises(UsageError, match="the recipe names gsm8k, gsm8k_benchmark, math"):
        one(verifiers, "code", "x", ["assert x"])


# Responses that are made to harm ------------------------------------------------------------------------------------

MEGA = 1_000_000
HARMFUL = {
    "gsm8k": ["9" * MEGA, "a" * MEGA, "1," * MEGA, "4\x00", "", "\ud800"],
    "math": [
        "a" * MEGA, "\\boxed{" * 50_000, "\\boxed{" + "{" * 5000 + "1" + "}" * 5000 + "}", "$9^{9^{9^{9}}}$",
        "9**9**9**9", "\\boxed{(10^{10})!}", "\x00 \\boxed{\x00}", "答え \\boxed{三}\u202e\ud800",
        "__import__('os').abort()", "",
    ],
    "ifeval": ["*" * MEGA, "<<" * (MEGA // 2), "\n" * MEGA, "{" * 5000, "\x00\ud800"],
    "string": [" " * MEGA, "thre\x00e", "ｔｈｒｅｅ"],
}  # fmt: skip


@pytest.mark.long
def test_no_response_stops_the_verifiers():
    truths = {"gsm8k": "#### 3", "math": "\\frac{3}{4}", "string": "three", "ifeval": {"func_name": "validate_title"}}
    calls = [Call(name, text, truths[name], {}) for name, texts in HARMFUL.items() for text in texts]
    with Verifiers(list(truths), workers=2, timeout=0.5) as made:
        found = made.verify(calls)
        assert one(made, "math", "\\boxed{0.75}", "\\frac{3}{4}") == 1
    assert found == [0.0] * len(calls)
    assert 0 < made.timeouts < len(calls)


@pytest.mark.parametrize(
    ("name", "truth", "why"),
    [
        ("gsm8k", "no digits", "it contains no number"),
        ("gsm8k", None, "expected text or a number, not None"),
        ("gsm8k", {"a": 1}, "expected text or a number"),
        ("math", "", "expected text or a number"),
        ("math", "\\boxed{1", "its braces do not match"),
        ("string", [], "the list of accepted answers is empty"),
        ("ifeval", "{not json", "it is not JSON"),
        ("ifeval", "[" * 100_000, "it is not JSON"),
        ("ifeval", 7, "expected a mapping, or its JSON"),
        ("ifeval", None, "expected `func_name`, or a list `instruction_id_list`"),
        (
            "ifeval",
            {"func_name": "validate_titel"},
            "unknown func_name 'validate_titel', did you mean 'validate_title'?",
        ),
        ("ifeval", {"func_name": ["a"]}, "unknown func_name"),
        ("ifeval", {"func_name": "verify_paragraph_count", "N": "many"}, "N must be a whole number of at least 1"),
        ("ifeval", {"func_name": "verify_letter_frequency", "N": 1, "letter": "ß"}, "one letter from a to z"),
        (
            "ifeval",
            {"func_name": "validate_word_constraint", "N": 1, "quantifier": "about"},
            "quantifier must be one of",
        ),
        ("ifeval", {"func_name": "verify_keywords", "keyword_list": [""]}, "must be a list of texts"),
        (
            "ifeval",
            {"instruction_id_list": ["punctuation:no_coma"], "kwargs": [{}]},
            "did you mean 'punctuation:no_comma'",
        ),
        ("ifeval", {"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "one entry for each of the 1"),
        ("ifeval", {"instruction_id_list": ["punctuation:no_comma"], "kwargs": ["x"]}, "are not a mapping"),
        (
            "ifeval",
            {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": None}]},
            "keywords:existence lacks its argument 'keywords'",
        ),
    ],
)
def test_a_malformed_truth_is_one_line_with_its_row(verifiers, name, truth, why):
    message = failure(verifiers, name, truth, row=12)
    assert message.startswith(f"verifier {name}, row 12 (ground truth ") and why in message


@pytest.mark.parametrize(
    ("truth", "why"),
    [("[1, 2", "it is not JSON"), (["assert ("], "a test does not parse"), (["x = 1"], "assert nothing"),
     ([], "expected assertions"), (7, "expected"),
     ({"prompt": "", "test": "def check(c): pass"}, "HumanEval's entry_point must be text")],
)  # fmt: skip
def test_malformed_tests_are_one_line(sandboxed, truth, why):
    assert why in failure(sandboxed, "code", truth, response="x = 1", row=3)


def test_truths_are_read_before_a_training(verifiers):
    calls = [Call("gsm8k", "anything", str(n), {"row": n}) for n in range(20)]
    verifiers.check_truths(calls)
    calls[7], calls[15] = Call("math", "x", "{", {"row": 7}), Call("gsm8k", "x", "none", {"row": 15})
    with pytest.raises(VerifierFailed, match="verifier math, row 7"):
        verifiers.check_truths(calls)
