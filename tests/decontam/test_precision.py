"""What a row must share with an item to count: its own text, not its task's; planted copies are found all the same."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from decontam_cases import brute_force, cases
from decontam_fixture import Decontam, lines
from hypothesis import given, settings

from decontam.items.items import Item
from decontam.matching import own_text
from decontam.matching.rule import Rule
from decontam.text import hashing, tokens

ORDER = "Complete the rest of the sequence, making sure that the parentheses are closed properly. Input: "
SORT = "Sort the following words alphabetically, from the first to the last of them: "
_NOUNS = "walnut harbour violin meadow lantern copper saddle orchid anvil thimble glacier parsnip"
NOUNS = _NOUNS.split()


def brackets(seed: int, size: int) -> str:
    """A sequence of opened and closed brackets, as long as no other of its seed and size."""
    random = np.random.default_rng(seed)
    kinds, stack, out = ["[]", "()", "{}", "<>"], list[str](), list[str]()
    for _ in range(size):
        if stack and random.random() < 0.45:
            out.append(stack.pop())
        else:
            pair = kinds[random.integers(4)]
            out.append(pair[0])
            stack.append(pair[1])
    return " ".join(out)


def story(seed: int, size: int = 24) -> str:
    """Words of no meaning, different for every seed."""
    random = np.random.default_rng(seed)
    return " ".join(f"{random.choice(NOUNS)}{random.integers(1000)}" for _ in range(size))


def found(decontam: Decontam, texts: list[str], rows: list[str], *options: Any) -> tuple[int, dict[str, Any]]:
    """The exit status, and what report.json says of one evaluation and one set."""
    file, train = decontam.folder / "mine.jsonl", decontam.folder / "train.jsonl"
    file.write_bytes(lines(*({"task": "mine", "doc_id": i, "text": text} for i, text in enumerate(texts))))
    train.write_bytes(lines(*({"prompt": row} for row in rows)))
    code, _, _ = decontam("scan", train, options=["--eval", file, *options])
    (entry,) = decontam.report()["sets"]
    return code, entry


def pairs(decontam: Decontam, *kinds: str) -> list[tuple[int, int]]:
    """(row, document) of the last scan's pairs of these kinds."""
    table = pq.read_table(decontam.out / "pairs.parquet").to_pylist()
    return sorted((pair["train_row"], pair["doc_id"]) for pair in table if pair["kind"] in kinds)


BRACKETS = [ORDER + brackets(i, 24) for i in range(60)]
DIFFERENT = [
    pytest.param(BRACKETS, ORDER + brackets(999, 40), id="brackets"),
    pytest.param(
        [SORT + story(i, 9) for i in range(40)],
        SORT + story(999, 9),
        id="one instruction of a user's task",
    ),
    pytest.param(
        [f"A train of the northern line travels {i + 50} miles in {i + 3} hours. At the same speed, how many hours "
         f"does it take to travel {7 * i + 400} miles?" for i in range(30)],
        "A train of the northern line travels 20 miles in 2 hours. At the same speed, how many hours does it take to "
        "travel 33 miles?",
        id="one template",
    ),
    pytest.param(
        [f"{story(7, 60)} What does the passage say about {story(100 + i, 3)}?" for i in range(6)],
        story(7, 60),
        id="one passage",
    ),
    pytest.param(
        [f"not ( True ) and ( {'False or ' * (i % 7)}not {'not ' * (i % 5)}False ) or ( True and {'not ' * (i % 3)}"
         "False ) is" for i in range(40)],
        "not True and False or not not not not not False or True and not not not False is",
        id="operators",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "row"), DIFFERENT)
def test_what_many_items_share_decides_nothing(texts: list[str], row: str, decontam: Decontam) -> None:
    code, entry = found(decontam, texts, [row, "something else"])
    assert (code, entry["hit"], entry["short_hit"]) == (0, 0, 0)
    assert json.loads((decontam.out / "flags.json").read_text()) == {}
    assert pairs(decontam, "ngram", "short") == []


@pytest.mark.parametrize(("texts", "row"), DIFFERENT)
def test_a_copy_of_such_an_item_is_found(texts: list[str], row: str, decontam: Decontam) -> None:
    _, entry = found(decontam, texts, [row, f"Please help me. {texts[3]}"])
    assert (1, 3) in pairs(decontam, "ngram") and not [pair for pair in pairs(decontam, "ngram") if pair[0] == 0]
    assert entry["hit"] >= 1


def test_matches_that_decide_nothing_are_reported_apart(decontam: Decontam) -> None:
    code, entry = found(decontam, BRACKETS, [ORDER + brackets(999, 40)])
    assert code == 0 and entry["verdict"] == "shared text only"
    assert (entry["shared_hit"], entry["paper_hit"]) == (60, 60)
    assert decontam.report()["trains"][0]["matches"]["own_share"] == 0
    assert len(pairs(decontam, "shared")) == 60
    _, said, _ = decontam("clean", decontam.folder / "train.jsonl", options=["--eval", decontam.folder / "mine.jsonl"])
    assert "1 row, 0 removed" in said


def test_the_papers_rule_counts_everything(decontam: Decontam) -> None:
    code, entry = found(decontam, BRACKETS, [ORDER + brackets(999, 40)], "--rule", "paper")
    assert (code, entry["hit"], entry["shared_hit"], decontam.report()["rule"]) == (1, 60, 0, "paper")
    assert {pair["coverage"] for pair in pq.read_table(decontam.out / "pairs.parquet").to_pylist()} == {1.0}
    code, _, errors = decontam("scan", decontam.folder / "train.jsonl", options=["--rule", "papre"])
    assert code == 2 and "--rule papre: known are own, strict, paper" in errors


def test_symbols_alone_are_found_where_they_are_the_question(decontam: Decontam) -> None:
    found(decontam, BRACKETS, [brackets(5, 24), brackets(500, 24), "{ } < > ( ) [ ] " * 20, "===" * 40])
    assert pairs(decontam, "ngram") == [(0, 5)]


def test_the_question_alone_is_found_without_its_instruction(decontam: Decontam) -> None:
    texts = [f"{story(1, 40)} {story(10 + i, 16)}" for i in range(20)]
    assert found(decontam, texts, [story(14, 16)])[1]["hit"] == 1
    assert pairs(decontam, "ngram") == [(0, 4)]
    assert found(decontam, texts, [story(14, 16)], "--rule", "paper")[1]["hit"] == 0


def test_a_copy_with_a_word_changed_is_found(decontam: Decontam) -> None:
    texts = [f"{story(1, 20)} {story(10 + i, 30)}" for i in range(20)]
    words = texts[4].split()
    words[31] = "other"
    found(decontam, texts, [f"Hello! {' '.join(words)} Thank you."])
    assert pairs(decontam, "ngram") == [(0, 4)]


@pytest.mark.parametrize(
    ("row", "hit"),
    [
        ("Max bought 16 red stamps, 3 more blue stamps than red ones and a green album. How many did he buy?", True),
        ("Hi! Max bought 16 red stamps, three more blue stamps than red ones and a green album. How many did he buy?",
         True),
        ("Max bought 11 red stamps, 9 more blue stamps than red ones and a green album. How many did he buy?", False),
        ("Max bought 16 red stamps, 3 more blue stamps than red ones and a green album. Where does Anna live with them "
         "and who paid?", False),
    ],
)  # fmt: skip
def test_strictly_the_same_words_with_other_numbers_are_another_question(
    row: str, hit: bool, decontam: Decontam
) -> None:
    item = "Max bought 16 red stamps, 3 more blue stamps than red ones and a green album. How many did he buy?"
    code, entry = found(decontam, [item, story(1), story(2)], [row], "--rule", "strict")
    assert (entry["hit"], code) == ((1, 1) if hit else (0, 0))
    assert bool(entry["near_hit"]) is not hit
    for rule in ("own", "paper"):
        assert found(decontam, [item, story(1), story(2)], [row], "--rule", rule)[1]["hit"] == 1


@pytest.mark.parametrize(
    ("row", "flagged"),
    [
        ("What is the capital of Peru?", True),
        ("Answer this: “what is the capital of Peru”!", True),
        ("so, what is the capital of Peru", True),
        ("What is the capital of Peru known for?", False),
        ("Who knows what is the capital of Peru?", False),
        ("Who knows what is the capital of Peru?\nWhat is the capital of Peru?", True),
        ('What is the capital of Peru "then"?', False),
    ],
)
def test_strictly_a_short_item_is_a_whole_sentence(row: str, flagged: bool, decontam: Decontam) -> None:
    _, entry = found(decontam, ["What is the capital of Peru?"], [row], "--rule", "strict")
    assert entry["short_hit"] == flagged
    assert found(decontam, ["What is the capital of Peru?"], [row])[1]["short_hit"] == 1


def test_a_field_that_items_share_is_context(decontam: Decontam) -> None:
    """The passage of several questions: the question must match too, however short it is."""
    passage = story(1, 50)
    asked = ["Who scored first in it?", "How long was the last kick?", "Which harbour saw the copper anvil?"]
    items = [Item("t", i, (("passage", passage), ("question", text))) for i, text in enumerate(asked)]
    rows = [[passage], [f"{passage}\n{asked[1]}"], [f"{passage}\nWhy did they leave the field so early that day?"]]
    hits = [(row, item) for row, item, kind, _ in decided(items, rows, Rule()) if kind == "ngram"]
    assert hits == [(1, 1)]


QUESTIONS = [f"{story(i, 12)} has {i + 3} apples and {story(i + 50, 12)} in {i + 90} boxes" for i in range(20)]


@pytest.mark.parametrize(
    "copied",
    [
        pytest.param(lambda words: words, id="whole"),
        pytest.param(lambda words: words[: len(words) * 6 // 10], id="60 % prefix"),
        pytest.param(lambda words: [w if i % 25 != 12 else "other" for i, w in enumerate(words)], id="words changed"),
        pytest.param(lambda words: ["700" if w.isdigit() and len(w) < 3 else w for w in words], id="numbers changed"),
    ],
)
@pytest.mark.parametrize("before", ["", ORDER])
def test_most_of_an_items_own_text_is_a_hit(
    copied: Callable[[list[str]], list[str]], before: str, decontam: Decontam
) -> None:
    row = " ".join(copied(QUESTIONS[6].split()))
    found(decontam, [before + text for text in QUESTIONS], [f"Hello! {before}{row} Thank you."])
    assert pairs(decontam, "ngram") == [(0, 6)]


def test_a_question_without_its_choices_is_a_hit() -> None:
    """Where the paper's rule makes a hit of it, although half of the item's own text is missing."""
    passage, question = story(1, 40), story(2, 12)
    items = [
        Item("t", i, (("question", f"{passage} {question if i == 1 else story(20 + i, 12)}"),
                      ("choices", story(40 + i, 20))))
        for i in range(4)
    ]  # fmt: skip
    for rule in (Rule(), Rule(variant="paper")):
        hits = [(row, i) for row, i, kind, _ in decided(items, [[f"{passage} {question}"]], rule) if kind == "ngram"]
        assert hits == ([(0, 1)] if rule.variant == "own" else [(0, i) for i in range(4)])


def decided(items: Sequence[Item], rows: list[list[str]], rule: Rule) -> list[tuple[int, int, str, float]]:
    """(row, item, kind, coverage) of the pairs of rows, each with its texts."""
    from decontam.matching.decide import Decider
    from decontam.matching.filter import Filter
    from decontam.matching.index import build
    from decontam.training_data.batches import Batch

    index = build([({"name": "t", "unseen": False}, items)], rule)
    texts = [(r, text) for r, row in enumerate(rows) for text in row]
    batch = Batch.of_texts(
        [text.encode() for _, text in texts], [r for r, _ in texts], len(rows), [f"p{k}" for k in range(len(texts))]
    )
    return [
        (row, pair.item, pair.kind, pair.coverage)
        for matches in Decider(index, rule)(batch, Filter(index, rule.threshold)(batch))
        for row, pair in matches.pairs()
    ]


@settings(max_examples=60, deadline=None)
@given(cases())
def test_without_shared_text_the_rule_is_the_papers(case: tuple[list[list[str]], list[list[str]], Rule]) -> None:
    """Every item is a task of its own here, so that it shares its text with no other of its task."""
    texts, rows, rule = case
    items = [Item(f"t{i}", i, tuple((f"f{k}", text) for k, text in enumerate(parts))) for i, parts in enumerate(texts)]
    expected = brute_force(texts, rows, rule)
    for variant in ("own", "paper"):
        found = decided(items, rows, replace(rule, variant=variant))
        assert {(row, item): (kind, coverage) for row, item, kind, coverage in found} == expected


@pytest.mark.parametrize("before", ["", "So "])
def test_an_expression_inside_a_longer_one_is_no_copy(before: str, decontam: Decontam) -> None:
    ends = ["True", "False", "not True", "not False"]
    texts = [f"{a} and ( {b} or {c} ) is" for a in ends for b in ends for c in ends]
    rows = [f"{before}False or {texts[5]}", f"( {texts[9]}", f"{before}what? {texts[20]}"]
    found(decontam, texts, rows)
    assert pairs(decontam, "ngram", "short") == [(2, 20)]


def marks(items: list[list[str]]) -> list[str]:
    """Items of one leaf with every word that is not their own replaced by a dot."""
    words = [[tokens.tokenize(text) for text in item] for item in items]
    flat = [word for item in words for part in item for word in part]
    codes, ends = tokens.code_points(flat)
    parts = np.cumsum([0, *(len(part) for item in words for part in item)])
    bounds = np.cumsum([0, *map(len, items)])
    numbers: dict[str, int] = {}
    texts = np.array([numbers.setdefault(text, len(numbers)) for item in items for text in item])
    leaf = np.zeros(len(items), np.int64)
    stream = own_text.Stream(
        hashing.token_hashes(codes, ends), parts, bounds, texts, leaf,
        own_text.distinct_items([0] * len(items), items),
    )  # fmt: skip
    own = own_text.marks(stream, 8).own.tolist()
    shown = [word if mark else "." for word, mark in zip(flat, own, strict=True)]
    return [" ".join(shown[parts[a] : parts[b]]) for a, b in itertools.pairwise(bounds)]


def test_own_text_is_what_few_items_share() -> None:
    items = [[f"Answer this one question now: {story(i, 9)}"] for i in range(5)]
    shown = marks([*items, items[0]])
    assert shown[0] == f". . . . . {story(0, 9)}" == shown[5]  # a copy takes nothing away
    shared = marks([[f"{story(50, 9)} {story(i, 9)}"] for i in range(2)])
    assert "." not in shared[0].split()  # two items are not many


def test_a_shared_field_is_not_an_items_own_and_copies_in_another_order_are_one_item() -> None:
    first = [["the same passage", story(1, 9)], ["the same passage", story(2, 9)]]
    assert [text[:5] for text in marks(first)] == [". . .", ". . ."]
    again = [["a question of its own", "this\nthat"], ["a question of its own", "that\nthis"]]
    assert marks(again) == ["a question of its own this that", "a question of its own that this"]


def test_symbols_are_tokens_where_they_are_asked_for() -> None:
    assert tokens.tokenize("( a+b ) → [x], done! 'so' 1.5", symbols=True) == [
        "(", "a", "+", "b", ")", "→", "[", "x", "]", "done", "so", "1", "5",
    ]  # fmt: skip
    assert tokens.tokenize("( a+b ) → [x]") == ["a", "b", "x"]
    text = "e\u0301 (ﬁ) ½ < 漢字"
    spans = tokens.spans(text, symbols=True)
    assert len(spans) == len(tokens.tokenize(text, symbols=True)) and text[slice(*spans[1])] == "("


def test_a_clean_copy_is_scanned_as_its_original(tmp_path: Path, decontam: Decontam) -> None:
    train = tmp_path / "t.jsonl"
    train.write_bytes(b"\xef\xbb\xbf" + lines({"prompt": BRACKETS[3]}, {"prompt": ORDER + brackets(999, 40)}))
    (tmp_path / "e.jsonl").write_bytes(lines(*({"task": "m", "doc_id": i, "text": t} for i, t in enumerate(BRACKETS))))
    options = ["--eval", tmp_path / "e.jsonl"]
    assert decontam("clean", train, options=options)[0] == 0
    copy = decontam.out / "clean/t.jsonl"
    assert decontam("scan", copy, options=options, out=tmp_path / "again")[0] == 0
    report = json.loads((tmp_path / "again/report.json").read_text())
    assert (report["sets"][0]["rows"], report["sets"][0]["hit"], report["problems"]) == (1, 0, [])
