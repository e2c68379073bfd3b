"""MMLU, MMLU-Pro, GPQA, AGIEval and BIG-Bench Hard: the reference's examples, and our own documents."""

from __future__ import annotations

import functools
import json
import random
import re
import string
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from olmes_suite.scoring import multiple_choice
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task
from olmes_suite.tasks.task import ROW, SuiteTask

TASKS = Path(__file__).parents[2] / "tasks"
FOLDERS = ("mmlu", "mmlu_pro", "gpqa", "agieval", "bbh")
FILES = {file.stem: file for name in FOLDERS for file in (TASKS / name).glob("tulu3_*.yaml")}
LEAVES = {name: file for name, file in FILES.items() if "\ngroup:" not in file.read_text(encoding="utf-8")}
GROUPS = {
    "tulu3_mmlu": (57, "macro"), "tulu3_mmlu_mc": (57, "macro"), "tulu3_mmlu_0shot_cot": (57, "macro"),
    "tulu3_mmlu_pro": (14, "macro"), "tulu3_mmlu_pro_llama31": (14, "micro"), "tulu3_agieval": (8, "macro"),
    "tulu3_bbh": (27, "micro"), "tulu3_bbh_v0": (27, "micro"),
}  # fmt: skip
SAMPLE = DataSource((), sample=True)
PATTERNS = {
    "mmlu": (r"tulu3_mmlu_(?!mc_|0shot_cot_|pro_).*", 89, 121),
    "mmlu_mc": (r"tulu3_mmlu_mc_.*", 60, 80),
    "mmlu_0shot_cot": (r"tulu3_mmlu_0shot_cot_.*", 76, 120),
    "mmlu_pro": (r"tulu3_mmlu_pro_(?!llama31_).*", 25, 152),
    "mmlu_pro_llama31": (r"tulu3_mmlu_pro_llama31_.*", 22, 165),
    "gpqa": (r"tulu3_gpqa", 1, 40),
    "gpqa_llama31": (r"tulu3_gpqa_llama31", 1, 43),
    "agieval": (r"tulu3_agieval_.*", 8, 160),
    "bbh": (r"tulu3_bbh_(?!v0_).*", 41, 256),
    "bbh_v0": (r"tulu3_bbh_v0_.*", 11, 241),
}


@functools.lru_cache(maxsize=512)
def task(name: str, source: DataSource = SAMPLE) -> SuiteTask:
    return load_task(LEAVES[name], source)


@functools.lru_cache(maxsize=512)
def positions(name: str, source: DataSource) -> dict[int, int]:
    docs = task(name, source).eval_docs
    rows = docs[ROW] if ROW in docs.column_names else range(len(docs))
    return {row: position for position, row in enumerate(rows)}


def document(name: str, row: int, source: DataSource) -> dict[str, Any]:
    return dict(task(name, source).eval_docs[positions(name, source)[row]])


def read(name: str, response: str, **doc: Any) -> tuple[float | None, str | None]:
    """Score and extracted answer of a response to a document of the task."""
    scored = task(name).scorer.one(doc, response)
    return scored.scores["exact_match"], scored.extracted


# The reference's examples -------------------------------------------------------------------------------------------


def examples(protocol_dir: Path, file: str, pattern: str) -> Iterator[dict[str, Any]]:
    with (protocol_dir / "examples" / file).open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if re.fullmatch(pattern, row["task"]):
                yield row


def mirror(data_dir: Path, protocol_dir: Path) -> DataSource:
    return DataSource((Path(data_dir), Path(protocol_dir) / "examples" / "data"))


@pytest.mark.data
@pytest.mark.parametrize("name", PATTERNS)
def test_prompts_equal_the_reference(name: str, data_dir: Path, protocol_dir: Path) -> None:
    pattern, least, _ = PATTERNS[name]
    source, checked = mirror(data_dir, protocol_dir), 0
    seen: dict[tuple[str, int], int] = {}
    for row in examples(protocol_dir, "prompts.jsonl", pattern):
        key = (row["task"], row["doc_id"])
        index = seen[key] = seen.get(key, -1) + 1
        doc = document(*key, source)
        request = task(row["task"], source).requests(doc, row["doc_id"], chat=True)[index]
        generate = request.kind == "generate"
        ours = {
            "kind": request.kind,
            "messages": request.chat,
            "text": request.text,
            "prefix": request.prefix,
            "continuation": request.continuation,
            "stop": list(request.stop) if generate else None,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "samples": request.samples if generate else None,
            "reference": task(row["task"], source).doc_to_target(doc),
        }
        assert ours == {field: row.get(field) for field in ours}, key
        checked += 1
    assert checked >= least


@pytest.mark.data
@pytest.mark.parametrize("name", PATTERNS)
def test_scores_equal_the_reference(name: str, data_dir: Path, protocol_dir: Path) -> None:
    pattern, _, least = PATTERNS[name]
    source, checked, wrong = mirror(data_dir, protocol_dir), 0, []
    for row in examples(protocol_dir, "scores.jsonl", pattern):
        response = row.get("loglikelihoods", row.get("response"))
        doc = document(row["task"], row["doc_id"], source)
        found = task(row["task"], source).scorer.one(doc, response)
        same = {metric: found.scores.get(metric) for metric in row["expected"]} == row["expected"]
        if not same or row.get("extracted") not in (None, found.extracted):
            wrong.append((row["task"], row["doc_id"], row["source"], found, row["expected"], row.get("extracted")))
        checked += 1
    assert not wrong
    assert checked >= least


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in FOLDERS if name != "gpqa"])  # the mirror lacks GPQA
def test_golds_over_all_documents(name: str, data_dir: Path, protocol_dir: Path) -> None:
    source = mirror(data_dir, protocol_dir)
    rejected: dict[str, dict[str, int]] = {}
    documents: dict[str, int] = {}
    for leaf in (leaf for leaf, file in LEAVES.items() if file.parent.name == name):
        made = task(leaf, source)
        metric = made.config.metadata["primary"]
        for doc in made.eval_docs:
            documents[metric] = documents.get(metric, 0) + 1
            assert made.scorer.one(doc, made.keys.corrupt(doc)).scores[metric] == 0, leaf
            if made.scorer.one(doc, made.keys.gold(doc)).scores[metric] != 1:
                counts = rejected.setdefault(metric, {})
                counts[leaf] = counts.get(leaf, 0) + 1
    recorded = json.loads((TASKS / name / "rejected_golds.json").read_text(encoding="utf-8"))
    assert {metric: entry["of"] for metric, entry in recorded.items()} == documents
    assert {metric: entry["count"] for metric, entry in recorded.items()} == {
        metric: sum(rejected.get(metric, {}).values()) for metric in documents
    }
    assert all(entry.get("tasks", {}) == rejected.get(metric, {}) for metric, entry in recorded.items())


# The task files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GROUPS)
def test_group_files(name: str) -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    group = load_yaml(FILES[name])
    members, aggregate = GROUPS[name]
    own = {leaf for leaf in LEAVES if re.fullmatch(PATTERNS[name.removeprefix("tulu3_")][0], leaf)}
    assert set(group["task"]) == own and len(group["task"]) == members
    assert group["metadata"]["aggregate"] == aggregate
    (metric,) = group["aggregate_metric_list"]
    assert metric["metric"] == group["metadata"]["primary"]
    assert metric["weight_by_size"] is (aggregate == "micro")


def test_every_leaf_has_its_name_and_nothing_left_over() -> None:
    assert len(LEAVES) == 57 * 3 + 14 * 2 + 2 + 8 + 27 * 2
    assert set(FILES) == set(LEAVES) | set(GROUPS)
    assert "tulu3_mmlu_pro_computer science" in LEAVES


@pytest.mark.parametrize("folder", FOLDERS)
def test_sample_golds_score_1_and_corrupted_ones_0(folder: str) -> None:
    for name in (leaf for leaf, file in LEAVES.items() if file.parent.name == folder):
        made = task(name)
        metric = made.config.metadata["primary"]
        assert len(made.eval_docs) > 0
        for doc in made.eval_docs:
            assert made.scorer.one(doc, made.keys.gold(doc)).scores[metric] == 1, name
            assert made.scorer.one(doc, made.keys.corrupt(doc)).scores[metric] == 0, name
            assert all(text in doc for text in made.config.metadata["texts"]), name


@pytest.mark.parametrize(
    "name", ["tulu3_mmlu_mc_anatomy", "tulu3_mmlu_pro_llama31_computer science", "tulu3_bbh_navigate"]
)
def test_few_shot_turns_alternate_and_hold_the_shots(name: str) -> None:
    made = task(name)
    request = made.requests(made.eval_docs[0], 0, chat=True)[0]
    assert request.messages is not None
    roles = [role for role, _ in request.messages]
    assert roles == ["user", "assistant"] * made.config.num_fewshot + ["user"]


def test_descriptions_stand_in_the_first_turn_only() -> None:
    for name, start in (
        ("tulu3_mmlu_mc_us_foreign_policy", "The following are multiple choice questions (with answers) about us f"),
        ("tulu3_bbh_object_counting", "Questions that involve enumerating objects"),
    ):
        made = task(name)
        messages = made.requests(made.eval_docs[0], 0, chat=True)[0].messages
        assert messages is not None
        assert [content.startswith(start) for _, content in messages] == [True] + [False] * (len(messages) - 1)


# MMLU ---------------------------------------------------------------------------------------------------------------


def test_mmlu_takes_the_first_statement_and_0shot_cot_the_last() -> None:
    text = "Therefore, the answer is (B). Wait. Therefore, the answer is (C)."
    assert read("tulu3_mmlu_anatomy", text, answer=2) == (0.0, "B")
    assert read("tulu3_mmlu_0shot_cot_anatomy", text, answer=2) == (1.0, "C")


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("therefore the answer is: d", "D"),
        ("I say b is correct. (C) is not.", "B"),
        ("Not (A). (B) then.", "A"),
        ("The answer is: **C**", "C"),  # only the last pattern sees through the asterisks
        ("Take A or B.\nC is the one, D is not.", "B"),  # the last letter of the first line that has one
        ("A good answer", "A"),  # the article counts
        ("none", ""),
    ],
)
def test_mmlu_looser_forms(response: str, answer: str) -> None:
    assert read("tulu3_mmlu_anatomy", response, answer=0)[1] == answer


def test_mmlu_mc_counts_the_first_of_equal_choices() -> None:
    scorer = task("tulu3_mmlu_mc_anatomy").scorer
    assert scorer.one({"answer": 1}, [-2.0, -1.0, -1.0, -3.0]).scores == {"acc_raw": 1.0}
    assert scorer.one({"answer": 2}, [-2.0, -1.0, -1.0, -3.0]).scores == {"acc_raw": 0.0}


# MMLU-Pro -----------------------------------------------------------------------------------------------------------


def test_mmlu_pro_reads_the_article_of_the_answer_is_a_function() -> None:
    assert read("tulu3_mmlu_pro_math", "The answer is a function; option C", answer="C") == (0.0, "a")
    assert read("tulu3_mmlu_pro_math", "The answer is a map. Therefore, the answer is (C)", answer="C") == (1.0, "C")
    assert read("tulu3_mmlu_pro_math", "so the answer is (h).", answer="H") == (1.0, "h")


def test_mmlu_pro_looser_forms() -> None:
    assert read("tulu3_mmlu_pro_math", "Answer: C. Answer: D\nAnswer: E", answer="D") == (1.0, "D")
    assert read("tulu3_mmlu_pro_math", "answer: Answer:\nB", answer="B") == (1.0, "B")
    assert read("tulu3_mmlu_pro_math", "C, or D\nrather E", answer="E") == (1.0, "E")
    assert read("tulu3_mmlu_pro_llama31_math", "The answer is B. No, the answer is C.", answer="B") == (1.0, "B")
    assert read("tulu3_mmlu_pro_llama31_math", "The answer is BAD", answer="A") == (0.0, "B")
    assert read("tulu3_mmlu_pro_llama31_math", "The answer is B. The answer is (C).", answer="C") == (1.0, "C")


def test_mmlu_pro_rows_are_those_of_the_whole_split() -> None:
    rows = {name: list(task(name).eval_docs[ROW]) for name in LEAVES if name.startswith("tulu3_mmlu_pro_llama31_")}
    assert sorted(row for found in rows.values() for row in found) == list(range(14))
    assert all(row["category"] == "computer science" for row in task("tulu3_mmlu_pro_computer science").eval_docs)


# GPQA ---------------------------------------------------------------------------------------------------------------


def test_gpqa_shuffles_by_row() -> None:
    docs = task("tulu3_gpqa").eval_docs
    assert [doc["letter"] for doc in docs][:5] == ["C", "D", "A", "A", "B"]
    for doc in docs:
        assert len(set(doc["choices"])) == 4
        assert doc["choices"]["ABCD".index(doc["letter"])] == doc["Correct Answer"].strip().split(" [")[0] + (
            " " if "[" in doc["Correct Answer"] else ""
        )


def test_gpqa_cleans_choices_and_leaves_the_question() -> None:
    row = {"Correct Answer": " a [b] c  d", "Incorrect Answer 1": "x [title]y", "Incorrect Answer 2": None}
    made = task("tulu3_gpqa")
    clean = made.config.process_docs.__globals__["clean"]
    assert [clean(value) for value in row.values()] == ["a c d", "x. y", " "]


@pytest.mark.parametrize(
    ("response", "zero_shot", "llama31"),
    [
        ("The best answer is B. Therefore, the answer is (C).", "C", "B"),
        ("The best answer is (D", "D", "D"),
        ("(A) or (B), and C", "B", "B"),
        ("The correct answer is: B, though D", "B", "B"),
        ("B, though D\nand C", "C", "C"),
        ("nothing", "", ""),
    ],
)
def test_gpqa_answers(response: str, zero_shot: str, llama31: str) -> None:
    assert read("tulu3_gpqa", response, letter="A")[1] == zero_shot
    assert read("tulu3_gpqa_llama31", response, letter="A")[1] == llama31


# AGIEval ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Therefore, the answer is (B). No. Therefore, the answer is (F).", "F"),
        ("I think the answer is (B) or (C). Now E", "C"),
        ("BAD", "D"),
        ("so the answer is (d).", ""),
        ("the answer is 5.\nthe answer is (B)\nE", "E"),  # the last statement has no full stop on its line
    ],
)
def test_agieval_answers(response: str, answer: str) -> None:
    assert read("tulu3_agieval_sat-en", response, label="A")[1] == answer


def test_agieval_prompt_strips_labels_and_blank_lines() -> None:
    text = task("tulu3_agieval_sat-en").doc_to_text(
        {"passage": "One.\n\n\nTwo (B)x.", "question": "Q?", "options": ["(A)one", "   B. two", "C ? iii", "(D) iv"]}
    )
    assert "Passage: One.\nTwo (B) x.\nQuestion: Q?\n (A) one\n (B) two\n (C) ? iii\n (D) iv\n\nAnswer the" in text
    alone = task("tulu3_agieval_sat-math").doc_to_text({"passage": None, "question": "Q?", "options": []})
    assert "Passage" not in alone


def test_agieval_documents_of_a_passage_are_one_cluster() -> None:
    cluster = task("tulu3_agieval_lsat-ar").keys.cluster
    shared, other, alone = (cluster(doc) for doc in task("tulu3_agieval_lsat-ar").eval_docs)
    assert shared == other and shared is not None and alone is None


def test_agieval_is_read_from_a_local_mirror_only() -> None:
    assert task("tulu3_agieval_lsat-ar").spec.hub is False


# BIG-Bench Hard -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "target", "response", "score", "answer"),
    [
        ("snarks", "(B)", "So the answer is B.", 0.0, ""),  # a bare letter is never found
        ("snarks", "(B)", "So the answer is (A). No, the answer is (b).", 0.0, "(A)"),
        ("snarks", "(B)", "The answer is (A), no, the answer is (b).", 1.0, "(b)"),
        ("snarks", "(B)", "Only \x08B\x08 fits", 1.0, "(B)"),  # "\b" in a string that is not raw is a backspace
        ("navigate", "No", "So the answer is not Yes.", 1.0, "no"),
        ("object_counting", "8", "8.0", 0.0, "0"),
        ("multistep_arithmetic_two", "-14", "So the answer is -14.", 1.0, "-14"),
        ("formal_fallacies", "valid", "The argument is invalid, the answer: valid", 1.0, "valid"),
        ("word_sorting", "apple banana", "So the answer is apple banana.", 1.0, "apple banana"),
        ("word_sorting", "apple banana", "The answer is: apple banana", 0.0, "is"),
        ("word_sorting", "apple banana", "**apple banana**\nThat was it", 0.0, "hat was it"),
        ("dyck_languages", "> ]", "So the answer is > ].", 1.0, "> ]"),
        ("dyck_languages", "> ]", "So the answer is >].", 0.0, ">]"),
    ],
)
def test_bbh_answers(name: str, target: str, response: str, score: float, answer: str) -> None:
    assert read(f"tulu3_bbh_{name}", response, target=target) == (score, answer)


@pytest.mark.parametrize(
    ("response", "score", "answer"),
    [
        ("So the answer is Yes.", 1.0, "Yes"),
        ("So the answer is Yes", 0.0, "Ye"),  # one character must follow
        ("The answer is Yes.", 0.0, ""),  # case counts in front of the answer,
        ("the answer is YES.", 1.0, "YES"),  # not in it
        ("the answer is (Yes).", 0.0, "(Yes)"),  # punctuation counts
        ("the answer is No. Wait, the answer is Yes.", 0.0, "No. Wait, the answer is Yes"),
    ],
)
def test_bbh_v0_answers(response: str, score: float, answer: str) -> None:
    assert read("tulu3_bbh_v0_navigate", response, target="Yes") == (score, answer)


# Rewritten patterns equal the reference's, in linear time -----------------------------------------------------------


LONG = ("x", "answer ", "answer is ", "Therefore, the answer is ", "the answer is ", "answer:", " ", "x\n", "(")


def noise(seed: int, pieces: list[str]) -> str:
    generator = random.Random(seed)
    return "".join(generator.choice(pieces) for _ in range(generator.randrange(30)))


@pytest.mark.parametrize("seed", range(3))
def test_linear_forms_equal_the_patterns(seed: int) -> None:
    pieces = ["A", "B", "answer:", "Answer", " ", "\n", "x", ".", "(C)", "the answer is ", "no", "]"]
    pro = task("tulu3_mmlu_pro_math").keys.gold.__globals__["_after_colon"]
    statement = task("tulu3_agieval_sat-en").keys.gold.__globals__["_last_statement"]
    after = task("tulu3_bbh_navigate").keys.gold.__globals__["_next_after"]
    for text in (noise(1000 * seed + i, pieces) for i in range(1000)):
        lines = re.findall(r".*\b([A-J])\b", text)
        assert multiple_choice.last_alone("A-J", text) == (lines[-1] if lines else "")
        first = re.search(r".*\b([A-D])\b", text)
        assert multiple_choice.first_line_last_alone("A-D", text) == (first.group(1) if first else "")
        colon = re.search(r".*[aA]nswer:\s*([A-J])", text)
        assert pro(text) == (colon.group(1) if colon else "")
        stated = re.findall(r"(?<=the answer is )(.*?)(?=\.)", text)
        assert statement(text) == (stated[-1] if stated else "")
        for head in ("answer:", r"answer\b"):
            for pattern in (r"\([A-Z]\)", "[yY]es|[nN]o", "[a-z ]+", r"[\]\)\}\> ]+"):
                assert after(head, pattern, text) == re.findall(rf"(?i){head}.*?({pattern})", text)


@pytest.mark.parametrize(
    "name", ["mmlu_anatomy", "mmlu_0shot_cot_anatomy", "mmlu_pro_math", "mmlu_pro_llama31_math", "gpqa", "gpqa_llama31",
             "agieval_sat-en", "bbh_navigate", "bbh_word_sorting", "bbh_snarks", "bbh_v0_navigate"]
)  # fmt: skip
def test_long_responses_are_scored_quickly(name: str) -> None:
    doc = {"answer": 0 if name.startswith(("mmlu_a", "mmlu_0")) else "A", "letter": "A", "label": "A", "target": "(A)"}
    for piece in LONG:
        begun = time.perf_counter()
        task(f"tulu3_{name}").scorer.one(doc, piece * (200_000 // len(piece)))
        assert time.perf_counter() - begun < 2, piece


def test_shared_wrapper_has_the_letters_twice() -> None:
    text = multiple_choice.wrapped("Question: {braces}?\n\n", "(A), (B).")
    assert text.count("is one of (A), (B).") == 2 and "{braces}" in text
    assert multiple_choice.another("D", 4) == "A" and multiple_choice.another("A", 4) == "B"
    assert multiple_choice.parenthesised(list(string.ascii_lowercase[:2])) == " (A) a\n (B) b\n"
