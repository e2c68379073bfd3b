"""MATH, DROP, PopQA, TruthfulQA, DeepMind Mathematics and IFEval: the reference's examples, and our own documents."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from olmes_suite.errors import MissingData
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task
from olmes_suite.tasks.task import SuiteTask

TASKS = Path(__file__).parents[2] / "tasks"
FOLDERS = ("math", "drop", "popqa", "truthfulqa", "deepmind_math", "ifeval")
FILES = {file.stem: file for name in FOLDERS for file in (TASKS / name).glob("tulu3_*.yaml")}
LEAVES = {name: file for name, file in FILES.items() if "\ngroup:" not in file.read_text(encoding="utf-8")}
SAMPLE = DataSource((), sample=True)
ONE_EACH = (
    "tulu3_math_algebra", "tulu3_drop", "tulu3_popqa", "tulu3_truthfulqa", "tulu3_deepmind_math_algebra__linear_1d",
    "tulu3_deepmind_math_v0_numbers__gcd",
)  # fmt: skip


@functools.lru_cache(maxsize=256)
def task(name: str, source: DataSource = SAMPLE) -> SuiteTask:
    return load_task(LEAVES[name], source)


def scores(name: str, doc: dict[str, Any], response: Any) -> dict[str, float | None]:
    return dict(task(name).scorer.one(doc, response).scores)


def sample_docs(name: str) -> list[dict[str, Any]]:
    return [dict(doc) for doc in task(name).eval_docs]


@pytest.fixture
def splitter() -> None:
    """NLTK's sentence splitter, which IFEval's checkers need."""
    nltk = pytest.importorskip("nltk")
    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        pytest.skip("NLTK's punkt_tab is not on this machine (set NLTK_DATA)")


# The reference's examples -------------------------------------------------------------------------------------------


def examples(protocol_dir: Path, file: str, pattern: str) -> Iterator[dict[str, Any]]:
    with (protocol_dir / "examples" / file).open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if re.fullmatch(pattern, row["task"]):
                yield row


def mirror(data_dir: Path, protocol_dir: Path) -> DataSource:
    return DataSource((Path(data_dir), Path(protocol_dir) / "examples" / "data"))


PATTERNS = {
    "math": (r"tulu3_math_.*", 10, 179),
    "drop": (r"tulu3_drop", 10, 117),
    "popqa": (r"tulu3_popqa", 8, 52),
    "truthfulqa": (r"tulu3_truthfulqa", 63, 28),
    "deepmind_math": (r"tulu3_deepmind_math_.*", 154, 580),
    "ifeval": (r"tulu3_ifeval", 8, 73),
}


@pytest.mark.data
@pytest.mark.parametrize("name", PATTERNS)
def test_prompts_equal_the_reference(name: str, data_dir: Path, protocol_dir: Path) -> None:
    pattern, least, _ = PATTERNS[name]
    source = mirror(data_dir, protocol_dir)
    seen: dict[tuple[str, int], int] = {}
    checked = 0
    for row in examples(protocol_dir, "prompts.jsonl", pattern):
        key = (row["task"], row["doc_id"])
        index = seen[key] = seen.get(key, -1) + 1
        made = task(row["task"], source)
        doc = made.eval_docs[row["doc_id"]]
        request = made.requests(doc, row["doc_id"], chat=True)[index]
        generate = request.kind == "generate"
        ours = {
            "kind": request.kind,
            "prefix": request.prefix,
            "continuation": request.continuation,
            "stop": list(request.stop) if generate else None,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "samples": request.samples if generate else None,
            "reference": made.doc_to_target(doc),
        }
        ours |= {"messages": request.chat} if request.messages is not None else {"text": request.text}
        assert ours == {field: row[field] for field in ours}, key
        checked += 1
    assert checked >= least


@pytest.mark.data
@pytest.mark.parametrize("name", PATTERNS)
def test_scores_equal_the_reference(name: str, data_dir: Path, protocol_dir: Path, request: Any) -> None:
    if name == "ifeval":
        request.getfixturevalue("splitter")
    pattern, _, least = PATTERNS[name]
    source, checked, wrong = mirror(data_dir, protocol_dir), 0, []
    for row in examples(protocol_dir, "scores.jsonl", pattern):
        made = task(row["task"], source)
        response = row.get("loglikelihoods", row.get("response"))
        found = made.scorer.one(made.eval_docs[row["doc_id"]], response)
        got = {metric: found.scores[metric] for metric in row["expected"]}
        if got != pytest.approx(row["expected"], rel=1e-9, abs=0) or found.extracted != row.get(
            "extracted", found.extracted
        ):
            wrong.append((row["task"], row["doc_id"], response, got, row["expected"], found.extracted))
        checked += 1
    assert not wrong, wrong[:3]
    assert checked >= least


@pytest.mark.data
@pytest.mark.long
@pytest.mark.parametrize("name", ["drop", "popqa", "truthfulqa", "deepmind_math", pytest.param("math", id="math")])
def test_golds_that_the_reference_rejects(name: str, data_dir: Path, protocol_dir: Path) -> None:
    """Every gold answer of the full split scores 1 but for the recorded number; no wrong answer scores."""
    recorded = json.loads((TASKS / name / "rejected_golds.json").read_text(encoding="utf-8"))
    counts = {metric: {"count": 0, "of": 0} for metric in recorded}
    for leaf in sorted(LEAVES):
        if LEAVES[leaf].parent.name != name:
            continue
        made = task(leaf, mirror(data_dir, protocol_dir))
        for doc in made.eval_docs:
            accepted = made.scorer.one(doc, made.keys.gold(doc)).scores
            refused = made.scorer.one(doc, made.keys.corrupt(doc)).scores
            assert max(refused.values()) < 1e-6, (leaf, doc)
            for metric in recorded:
                counts[metric]["of"] += 1
                counts[metric]["count"] += accepted[metric] < 1
    assert counts == {metric: {key: value[key] for key in ("count", "of")} for metric, value in recorded.items()}


# Our own documents ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONE_EACH)
def test_sample_golds_score_one_and_wrong_answers_nothing(name: str) -> None:
    keys = task(name).keys
    for doc in sample_docs(name):
        assert set(scores(name, doc, keys.gold(doc)).values()) == {1.0}
        assert max(scores(name, doc, keys.corrupt(doc)).values()) == 0.0


def test_sample_golds_of_ifeval(splitter: None) -> None:
    for doc in sample_docs("tulu3_ifeval"):
        keys = task("tulu3_ifeval").keys
        assert set(scores("tulu3_ifeval", doc, keys.gold(doc)).values()) == {1.0}
        assert scores("tulu3_ifeval", doc, keys.corrupt(doc))["prompt_level_loose_acc"] == 0.0


def test_every_leaf_is_in_its_group_and_loads() -> None:
    import yaml

    for group, size in (("math", 7), ("deepmind_math", 56), ("deepmind_math_v0", 56)):
        members = yaml.safe_load(FILES[f"tulu3_{group}"].read_text(encoding="utf-8"))["task"]
        assert len(members) == size == len(set(members))
        assert set(members) <= set(LEAVES)
    assert len(LEAVES) == 7 + 56 + 56 + 4
    for name in LEAVES:
        made = task(name)
        assert made.config.task == name
        assert made.requests(made.eval_docs[0], 0, chat=True)


MATH_DOC = {"problem": "", "solution": r"so $\boxed{\frac12}$"}


@pytest.mark.parametrize(
    ("response", "strict", "flexible"),
    [
        (r"Final Answer: The final answer is $\frac{1}{2}$. I hope it is correct.", 1.0, 1.0),
        ("Final Answer: The final answer is $0.5$. I hope it is correct.", 1.0, 1.0),
        ("Final Answer: The final answer is $1/2$", 0.0, 1.0),  # no space before the sentence that is added
        ("Final Answer: The final answer is $1/2$. I hope it is correct. $3$", 1.0, 1.0),
        ("Final Answer: The final answer is $3$. I hope it is correct. $1/2$", 0.0, 0.0),
        ("Final Answer: The final answer is\n$1/2$. I hope it is correct.", 0.0, 1.0),  # the dot stays on its line
        (r"First $\boxed{3}$, no: $\boxed{\dfrac{1}{2}}$", 0.0, 1.0),
        (r"$\frac{1}{2}$ is what $x$ is", 0.0, 0.0),  # the last two dollar signs count
        (r"$x$ is $\frac{1}{2}$", 0.0, 1.0),
        ("1/2", 0.0, 1.0),
        ("", 0.0, 0.0),
        (r"\boxed{", 0.0, 0.0),
    ],
)  # fmt: skip
def test_math_reads_the_answer_as_the_reference_does(response: str, strict: float, flexible: float) -> None:
    assert scores("tulu3_math_algebra", MATH_DOC, response) == {"exact_match": strict, "exact_match_flex": flexible}


def test_math_has_no_shortcut_for_equal_strings() -> None:
    doc = {"problem": "", "solution": r"so $\boxed{[2,5)}$"}
    answer = "Final Answer: The final answer is $[2,5)$. I hope it is correct."
    assert scores("tulu3_math_algebra", doc, answer) == {"exact_match": 0.0, "exact_match_flex": 1.0}


def math_process(program: str, *arguments: str) -> str:
    """What a program prints that gets the file of MATH's scorer as its first argument, in a process of its own: the
    alarm needs a main thread that nobody else has used, and a limit that fails must not stop the tests."""
    file = task("tulu3_math_algebra").scorer.function.__code__.co_filename
    command = [sys.executable, "-c", program, file, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_a_swallowed_alarm_rings_again() -> None:
    """SymPy and finalizers swallow exceptions; the limit holds all the same."""
    program = """
import sys
from olmes_suite.evaluation.scoring_worker import scorer_at
limit, swallowed = scorer_at(sys.argv[1], "score").function.__globals__["time_limit"], 0
try:
    with limit(0.1):
        while swallowed < 3:
            try:
                while True:
                    pass
            except TimeoutError:
                swallowed += 1
except TimeoutError:
    pass
print(swallowed)
"""
    assert math_process(program) == "3\n"


@pytest.mark.long
def test_math_gives_up_on_enormous_numbers() -> None:
    huge = "Final Answer: The final answer is $(1+x)^{100000}$. I hope it is correct."
    program = """
import json, sys
from olmes_suite.evaluation.scoring_worker import scorer_at
print(json.dumps(scorer_at(sys.argv[1], "score").one(*json.loads(sys.argv[2])).scores))
"""
    assert json.loads(math_process(program, json.dumps([MATH_DOC, huge])))["exact_match_flex"] == 0.0


def test_math_works_outside_the_main_thread() -> None:
    found: list[dict[str, float | None]] = []
    answer = "Final Answer: The final answer is $2/4$. I hope it is correct."
    thread = threading.Thread(target=lambda: found.append(scores("tulu3_math_algebra", MATH_DOC, answer)))
    thread.start()
    thread.join()
    assert found == [{"exact_match": 1.0, "exact_match_flex": 1.0}]


def drop_doc(*answers: list[str]) -> dict[str, Any]:
    blank = {"day": "", "month": "", "year": ""}
    validated = {"number": [""] * len(answers[1:]), "date": [blank] * len(answers[1:]), "spans": list(answers[1:])}
    answer = {"number": "", "date": blank, "spans": answers[0]}
    return {"passage": "", "question": "", "answer": answer, "validated_answers": validated}


@pytest.mark.parametrize(
    ("golds", "response", "f1"),
    [
        ([["the tall ships"]], " Tall ships!", 1.0),
        ([["12"]], "12.0", 1.0),
        ([["12"]], "12 yards", 0.67),  # rounded to two decimals
        ([["12 yards"]], "13 yards", 0.0),  # a number that differs cancels the overlap
        ([["red", "blue"]], "red, blue", 0.33),  # the response is one span
        ([["red", "blue"], ["red"]], "red", 1.0),
        ([[" "]], " ", 0.0),
    ],
)
def test_drop_scores_as_the_reference_does(golds: list[list[str]], response: str, f1: float) -> None:
    assert scores("tulu3_drop", drop_doc(*golds), response)["f1"] == f1


def test_drop_examples_are_those_of_the_reference_unless_the_data_is_a_sample() -> None:
    import random

    for size in (77_400, 77_409, 96_567):
        assert random.Random(1234).sample(range(size), 3) == [57767, 15315, 981]
    request = task("tulu3_drop").requests(sample_docs("tulu3_drop")[0], 0, chat=True)[0]
    assert request.messages is None
    assert request.text is not None and request.text.count("Passage:") == 4
    assert request.text.endswith("\nAnswer:")


def test_popqa_takes_substrings_in_three_spellings() -> None:
    doc = {"question": "", "possible_answers": '["Painter"]'}
    for response, value in (("repainters", 1.0), ("a Painter", 1.0), ("PAINTER", 0.0), ("", 0.0)):
        assert scores("tulu3_popqa", doc, response) == {"exact_match": value}


def test_truthfulqa_weighs_whole_choices() -> None:
    doc = {
        "question": "",
        "mc1_targets": {"choices": ["a", "b"], "labels": [1, 0]},
        "mc2_targets": {"choices": ["a", "c", "b"], "labels": [1, 1, 0]},
    }
    import math

    logs = [math.log(0.2), math.log(0.5), math.log(0.3)]  # of a, b and c: the choices of mc1 come first
    assert scores("tulu3_truthfulqa", doc, logs) == {"mc1": 0.0, "mc2": pytest.approx(0.5)}
    assert scores("tulu3_truthfulqa", doc, [-3000.0, -3000.0, -4000.0])["mc2"] == pytest.approx(0.5)


def dm(answer: str, response: str, version: str = "algebra__linear_1d") -> tuple[float | None, str | None]:
    found = task(f"tulu3_deepmind_math_{version}").scorer.one({"question": "", "answer": f"b'{answer}\\n'"}, response)
    return found.scores["exact_match"], found.extracted


PHRASE = "Therefore, the final answer is {}. I hope it is correct."


@pytest.mark.parametrize(
    ("gold", "response", "value", "extracted"),
    [
        ("4", PHRASE.format("5") + " No. " + PHRASE.format("4"), 1.0, "4"),
        ("4", "the answer is 5; the final answer is 4.", 1.0, "4"),
        ("4", "answer is 5. The answer is 4.", 0.0, "5. The answer is 4"),  # the first hit, to the end
        ("4", "4", 0.0, ""),
        ("4", PHRASE.format("$4$"), 1.0, "4"),
        ("4", PHRASE.format("**4**"), 1.0, "4"),
        ("4", PHRASE.format("8/2"), 1.0, "8/2"),
        ("4", PHRASE.format("x = 4"), 0.0, "x = 4"),
        ("4", PHRASE.format("04"), 0.0, "04"),
        ("2*y**2 - 5*y - 3", PHRASE.format("(2*y + 1)*(y - 3)"), 1.0, "(2*y + 1)*(y - 3)"),
        ("2*y**2 - 5*y - 3", PHRASE.format("(2*z + 1)*(z - 3)"), 0.0, "(2*z + 1)*(z - 3)"),
        ("1, 2", PHRASE.format("1,4/2"), 1.0, "1,4/2"),
        ("False", PHRASE.format("No"), 1.0, "no"),
        ("True", PHRASE.format("No"), 0.0, "no"),
        ("4", PHRASE.format("No"), 0.0, "No"),
        ("6", PHRASE.format("3!"), 1.0, "3!"),
    ],
)
def test_deepmind_math_reads_the_answer_as_the_reference_does(
    gold: str, response: str, value: float, extracted: str
) -> None:
    assert dm(gold, response) == (value, extracted)


def test_deepmind_math_versions_differ_in_one_full_stop() -> None:
    response = "Therefore, the final answer is -4, I hope it is correct."
    assert dm("-4", response, "v0_numbers__gcd") == (1.0, "-4")
    assert dm("-4", response) == (0.0, "-4,")


HOSTILE: list[Callable[[str], str]] = [
    lambda file: f"open('{file}', 'w')",
    lambda file: f"__import__('pathlib').Path('{file}').touch()",
    lambda file: f"(lambda: open('{file}', 'w'))()",
    lambda file: f"[open(f, 'w') for f in ['{file}']]",
    lambda file: f"().__class__.__base__.__subclasses__() or open('{file}', 'w')",
    lambda file: "exec(" + "+".join(f"chr({ord(c)})" for c in f"open('{file}','w')") + ")",
    lambda file: "sympify(" + "+".join(f"chr({ord(c)})" for c in f"open('{file}','w')") + ")",
    lambda file: f"Symbol('x').func(open('{file}', 'w'))",
    lambda file: f"f\"{{open('{file}', 'w')}}\"",
    lambda file: f'sympify(\'open("{file}", "w")\')',
]


@pytest.mark.parametrize("attack", HOSTILE)
def test_deepmind_math_does_not_execute_an_answer(attack: Callable[[str], str], tmp_path: Path) -> None:
    file = tmp_path / "touched"
    assert dm("4", PHRASE.format(attack(str(file))))[0] == 0.0
    assert not file.exists()


@pytest.mark.parametrize(
    "answer",
    [
        *("9**9**9", "9**9**9**9", "(2*x)**(9**9)", "99999!!!!", "factorial(factorial(30))", "1 << 10**9"),
        *("N(pi, 10**9)", "1e999999999", "Pow(9, Pow(9, 9))", "exp(10**9)", "binomial(10**9, 10**8)"),
        *("-" * 1500 + "4", "(" * 500, "4 + " * 4000 + "4"),
    ],
)
def test_deepmind_math_does_not_compute_enormous_numbers(answer: str) -> None:
    start = time.monotonic()
    assert dm("4", PHRASE.format(answer))[0] == 0.0
    assert time.monotonic() - start < 5


def test_deepmind_math_prompt_names_the_category_s_answers() -> None:
    doc = sample_docs("tulu3_deepmind_math_numbers__is_prime")[0]
    new, old = (task(f"tulu3_deepmind_math_{v}numbers__is_prime").doc_to_text(doc) for v in ("", "v0_"))
    assert all(f"- If the answer is {answer}, conclude" in new for answer in ("True", "False")) and "slash (/)" in new
    assert "if the answer is 6" in old and "slash (/)" not in old


def ifeval_doc(*instructions: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "key": 1,
        "prompt": "Say something.",
        "instruction_id_list": [name for name, _ in instructions],
        "kwargs": [arguments for _, arguments in instructions],
    }


def test_ifeval_loose_forgives_a_first_line_and_asterisks(splitter: None) -> None:
    doc = ifeval_doc(("punctuation:no_comma", {}), ("detectable_format:json_format", {"keywords": None}))
    found = task("tulu3_ifeval").scorer.one(doc, 'Sure, here it is:\n{"a": 1}')
    assert found.weight == 2.0
    assert found.scores == {
        "prompt_level_strict_acc": 0.0,
        "inst_level_strict_acc": 0.0,
        "prompt_level_loose_acc": 1.0,
        "inst_level_loose_acc": 1.0,
    }


def test_ifeval_blank_and_failing_checks_are_not_followed(splitter: None) -> None:
    doc = ifeval_doc(("punctuation:no_comma", {}), ("keywords:existence", {"keywords": ["(unclosed"]}))
    assert set(scores("tulu3_ifeval", doc, " \n").values()) == {0.0}
    assert scores("tulu3_ifeval", doc, "fine")["inst_level_strict_acc"] == 0.5


def test_ifeval_is_repeatable_where_the_checker_draws(splitter: None) -> None:
    import random

    doc = ifeval_doc(("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": "at least"}))
    random.seed(1)
    before = random.getstate()
    found = [scores("tulu3_ifeval", doc, "a sentence with many but not all letters") for _ in range(5)]
    assert all(each == found[0] for each in found)
    assert found[0]["prompt_level_strict_acc"] == found[0]["prompt_level_loose_acc"]
    assert random.getstate() == before


def test_ifeval_without_the_splitter_says_so_and_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk
    from lm_eval.tasks.ifeval import instructions_util

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.delenv("OLMES_DATA_DIR", raising=False)
    monkeypatch.delenv("NLTK_DATA", raising=False)
    instructions_util._get_sentence_tokenizer.cache_clear()
    nltk.data.clear_cache()
    fresh = load_task(LEAVES["tulu3_ifeval"], SAMPLE)
    checkers = fresh.scorer.function.__globals__["checkers"]
    checkers.cache_clear()
    sentences = {
        "key": 1,
        "prompt": "Say little.",
        "instruction_id_list": ["length_constraints:number_sentences"],
        "kwargs": [{"num_sentences": 3, "relation": "less than"}],
    }
    with pytest.raises(MissingData, match="NLTK_DATA"):
        fresh.scorer.one(sentences, "One. Two.")
    no_commas = {**sentences, "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    assert fresh.scorer.one(no_commas, "One. Two.").scores["prompt_level_loose_acc"] == 1.0
