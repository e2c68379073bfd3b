"""Candidates by embedding: paraphrases are listed for a person; nothing is counted, removed or flagged for them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam.paraphrases import nearest
from decontam.paraphrases.nearest import Items, Nearest, Texts
from olmes_suite.cli.main import run

ITEMS = [
    "A farmer has twelve hens and each of them lays two eggs a day. How many eggs are there after three days?",
    "Which planet of our solar system takes the longest time to travel once around the sun?",
    "One question that nobody else would ever put in quite these words before lunch",
]
PARAPHRASE = "If each of a farmer's 12 chickens gives 2 eggs daily, what is the number of eggs in 3 days?"
OTHERS = [
    "Write a poem about a lighthouse keeper who has lost his lamp.", "Translate to French: good morning, dear friend.",
    "How do I reset the password of my router?", "Give me a recipe for bread without yeast.",
    "Explain the difference between a list and a tuple.", "Which year did the old bridge in the town burn down?",
]  # fmt: skip


@pytest.fixture
def mix_folder(tmp_path: Path) -> Path:
    """An evaluation of three items; training rows: others, the third item itself, and a paraphrase of the first."""
    write(tmp_path / "eval.jsonl", [{"task": "own", "doc_id": n, "text": text} for n, text in enumerate(ITEMS)])
    texts = [*OTHERS[:4], ITEMS[2], *OTHERS[4:], PARAPHRASE]
    write(tmp_path / "mix.jsonl", [{"prompt": text} for text in texts])
    return tmp_path


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def olmes(mix_folder: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(command: str, *args: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        where = ["--eval", mix_folder / "eval.jsonl", "--workers", "1"]
        if "--train" not in args:
            where += ["--train", mix_folder / "mix.jsonl"]
        code = run(["decontam", command, *map(str, where), *map(str, args)])
        said = capfd.readouterr()
        return code, said.out, said.err

    return call


@pytest.mark.long
def test_a_paraphrase_is_listed_and_nothing_is_done_with_it(mix_folder: Path, olmes: Any, minilm: str) -> None:
    plain, out = mix_folder / "plain", mix_folder / "out"
    before = olmes("scan", "--out", plain)
    code, said, _ = olmes("scan", "--out", out, "--embed", minilm)
    assert code == before[0] == 1  # for the third item alone, with or without the search
    found = pq.read_table(out / "candidates.parquet").to_pylist()
    # The third item stands in row 4 word by word: the n-gram rule has it, so nobody need judge it.
    assert [(c["train_row"], c["doc_id"]) for c in found] == [(7, 0)]
    assert found[0]["score"] > 0.75 and found[0]["train_text"] == PARAPHRASE and found[0]["eval_text"] == ITEMS[0]
    assert "1 for 1 item," in said and "none of them is counted" in said
    report, without = (json.loads((f / "report.json").read_text()) for f in (out, plain))
    assert report.pop("candidates")["sets"][0]["nearest"][0]["train_row"] == 7
    assert report == without
    for name in ("pairs.parquet", "flags.json"):
        assert (out / name).read_bytes() == (plain / name).read_bytes()
    assert PARAPHRASE.split(",")[1] in (out / "report.html").read_text()
    assert olmes("scan", "--out", out)[0] == 1 and not (out / "candidates.parquet").exists()


@pytest.mark.long
def test_a_set_with_nothing_but_paraphrases_is_clean(mix_folder: Path, olmes: Any, minilm: str) -> None:
    train = write(mix_folder / "t.jsonl", [{"prompt": PARAPHRASE}, {"prompt": OTHERS[0]}])
    args = ("--train", train, "--out", mix_folder / "o", "--embed", minilm, "--embed-min", "-1")
    assert olmes("scan", *args)[0] == 0
    assert pq.read_table(mix_folder / "o/candidates.parquet").num_rows == 6  # two rows for each of three items
    assert olmes("clean", *args)[0] == 0
    assert (mix_folder / "o/clean/t.jsonl").read_bytes() == train.read_bytes()
    assert not (mix_folder / "o/removed.jsonl").read_text()


@pytest.mark.long
def test_a_paraphrase_deep_in_a_long_turn_is_found(mix_folder: Path, olmes: Any, minilm: str) -> None:
    """The encoder sees 256 tokens at once; what is longer is seen window by window."""
    filler = " ".join(OTHERS) + " "
    train = write(mix_folder / "t.jsonl", [{"prompt": filler * 10}, {"prompt": filler * 40 + PARAPHRASE + filler * 40}])
    olmes(
        "scan",
        "--train",
        train,
        "--out",
        mix_folder / "o",
        "--embed",
        minilm,
        "--embed-min",
        "0.3",
        "--embed-top",
        "1",
    )
    found = {c["doc_id"]: c for c in pq.read_table(mix_folder / "o/candidates.parquet").to_pylist()}
    assert found[0]["train_row"] == 1 and "chickens" in found[0]["train_text"]


@pytest.mark.long
def test_a_killed_search_embeds_only_what_is_left(
    mix_folder: Path, olmes: Any, minilm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from decontam.paraphrases import candidates

    write(mix_folder / "second.jsonl", [{"prompt": text} for text in OTHERS])
    args = (
        "--train",
        mix_folder / "mix.jsonl",
        "--train",
        mix_folder / "second.jsonl",
        "--embed",
        minilm,
    )
    original, seen = candidates._look, []

    def killed(block: Any, *rest: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(block.path.name)
        original(block, *rest)

    monkeypatch.setattr(candidates, "_look", killed)
    assert olmes("scan", *args, "--out", mix_folder / "o")[0] == 130
    monkeypatch.setattr(
        candidates, "_look", lambda block, *rest: (seen.append(block.path.name), original(block, *rest))
    )
    assert olmes("scan", *args, "--out", mix_folder / "o")[0] == 1
    assert seen == ["mix.jsonl", "second.jsonl"]
    assert len(pq.read_table(mix_folder / "o/candidates.parquet")) == 1


def test_an_encoder_that_is_not_there_is_one_line(mix_folder: Path, olmes: Any, tmp_path: Path) -> None:
    (tmp_path / "dense").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "dense" / name).write_text("{}")
    (tmp_path / "dense/modules.json").write_text('[{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]')
    for name, said in ((tmp_path / "none", "no config.json"), (tmp_path / "dense", "its module Dense")):
        code, _, errors = olmes("scan", "--out", mix_folder / "o", "--embed", name)
        assert code == 2 and len(errors.strip().splitlines()) == 1 and said in errors
    assert not (mix_folder / "o").exists()  # said before anything is scanned


@pytest.mark.long
def test_vectors_are_those_of_the_definition(minilm: str) -> None:
    """Mean over the token vectors of the last layer, each text alone; padding changes nothing."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from decontam.paraphrases.encoder import SentenceEncoder

    encoder = SentenceEncoder(minilm, "cpu")
    windows = encoder.windows([*ITEMS, "", "a"])
    assert [w.text for w in windows] == [0, 1, 2, 4] and windows[0].end == len(ITEMS[0])
    vectors = encoder.vectors(windows)
    tokenizer, model = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm).eval()
    for text, vector in zip([*ITEMS, "a"], vectors, strict=True):
        with torch.no_grad():
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        assert vector == pytest.approx((mean / mean.norm()).numpy(), abs=1e-4)


@st.composite
def streams(draw: st.DrawFn) -> tuple[Items, list[Texts], dict[int, Any], int, float]:
    """Vectors of a coarse grid (so that scores tie), training windows cut into chunks anywhere."""
    numbers = st.integers(-2, 2)
    count = draw(st.integers(1, 5))
    owners = sorted(draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=8)))
    rows = sorted(draw(st.lists(st.integers(0, 9), max_size=25)))

    def vectors(size: int) -> Any:
        made = np.array(draw(st.lists(st.tuples(numbers, numbers), min_size=size, max_size=size)), np.float32)
        return (made.reshape(size, 2) + 0.1) / 3

    whole = vectors(len(rows))
    cuts = sorted({0, len(rows), *draw(st.lists(st.integers(0, len(rows)), max_size=4))})
    chunks = [
        Texts(whole[a:b], np.array(rows[a:b], np.int64), [("p", str(i)) for i in range(a, b)])
        for a, b in itertools.pairwise(cuts)
    ]
    known = {row: np.array([draw(st.integers(0, count - 1))]) for row in set(rows) if draw(st.booleans())}
    items = Items(vectors(len(owners)), np.array(owners, np.int64), count)
    return items, chunks, known, draw(st.integers(1, 4)), draw(st.sampled_from([-9.0, 0.2]))


@settings(max_examples=150, deadline=None)
@given(streams())
def test_the_nearest_are_those_of_brute_force(case: Any) -> None:
    items, chunks, known, k, least = case
    best: dict[int, dict[int, float]] = {item: {} for item in range(items.count)}
    for chunk in chunks:
        for vector, row in zip(chunk.vectors, chunk.rows.tolist(), strict=True):
            for own, item in zip(items.vectors, items.owners.tolist(), strict=True):
                score = round(float(np.float64(own @ vector)), 4)
                if score >= least and item not in known.get(row, []):
                    best[item][row] = max(best[item].get(row, -9), score)
    expected = [
        (item, row, score)
        for item, rows in best.items()
        for row, score in sorted(rows.items(), key=lambda e: (-e[1], e[0]))[:k]
    ]
    found = Nearest(items, k, least)
    for chunk in chunks:
        found.add(chunk, known)
    table = found.table().to_pylist()
    assert [(e["item"], e["train_row"]) for e in table] == [(item, row) for item, row, _ in expected]
    assert [e["score"] for e in table] == pytest.approx([score for _, _, score in expected], abs=2e-4)
    halves = [nearest.SCHEMA.empty_table(), found.table()]
    assert nearest.merged(iter(halves), k).to_pylist() == table
