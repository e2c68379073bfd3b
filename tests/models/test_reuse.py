"""What prompts have in common is computed once, and no answer changes by it."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from models_fixture import ARCHITECTURES, STARTS, TEXT, answers, choice, generation, make_model, make_tiny_tokenizer

from olmes_suite.models.factory import make_backend
from olmes_suite.models.hf.prefix_tree import by_prefix, prefixes, release

pytestmark = pytest.mark.xdist_group("reuse")  # models are made and loaded once

SHARES = [name for name in ARCHITECTURES if name not in ("doge", "mamba", "rwkv")]
STOPS = ("ea", "\n", "72", "</s>")
LONG, OTHER = TEXT[:300], TEXT[200:380]
TEXTS = [
    *(f"{LONG}{STARTS[i % 4]}{' of the people' * (i % 5)}{i}" for i in range(9)),
    *(f"{OTHER}{STARTS[i % 4]}{i}" for i in range(6)),
    *(f"{i}{STARTS[i % 4]}{' and school' * (4 * i % 9)}" for i in range(5)),
]
CHOICES = (" A", " B", " C", " green", " in the hall strikes nine", "\n", " in the old door")


MOVED = 2
"""Of 21 drawn texts, those that may differ. The probabilities of the two are apart by rounding, by 1e-5 in sum at most,
and so far can the edges lie between which a draw falls. In 500 draws one falls there now and then, on some processors;
three times it does not. A wrong seed or a wrong prefix moves nearly all texts."""
QUICK = ("llama",)
"""The others (attention with a window, a state of which nothing can be shared, …) take seconds each."""


@pytest.fixture(
    scope="module",
    params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in ARCHITECTURES],
)
def pair(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(kind, backend, the same without reuse) in float32."""
    import torch

    torch.set_num_threads(1)
    folder = make_model(tmp_path_factory.mktemp("model"), request.param)
    options = {"device": "cpu", "max_length": 400}
    return (
        request.param,
        make_backend("hf", str(folder), **options),
        make_backend("hf", str(folder), reuse=False, batch_size=1, **options),
        folder,
    )


class TestAnswers:
    """With and without reuse, of every architecture."""

    def test_it_says_where_nothing_can_be_shared(self, pair: Any) -> None:
        kind, ours, _, _ = pair
        notes = [line for line in ours.notes() if "not reused" in line]
        assert (ours.shared is not None) == (kind in SHARES), ours.why_plain
        assert bool(notes) == (kind not in SHARES)
        assert ours.settings()["reuse"] == ("prefixes" if kind in SHARES else ours.why_plain)
        assert ours.one_by_one == (kind in ("doge", "rwkv")) == any("batch size is 1" in line for line in ours.notes())
        assert kind != "doge" or "keep_window_size" in ours.why_plain

    def test_greedy_answers(self, pair: Any) -> None:
        _, ours, plain, _ = pair
        requests = [generation(i, text, stop=STOPS[: i % 5], max_tokens=6 + i % 20) for i, text in enumerate(TEXTS)]
        found = answers(ours, requests)
        assert found == answers(plain, requests)
        assert "length" in {r.finish_reason for r in found} <= {"stop", "length"}

    @pytest.mark.long
    def test_samples_share_their_prompt(self, pair: Any) -> None:
        _, ours, plain, _ = pair
        requests = [generation(i, text, temperature=0.8, top_p=0.95, samples=5) for i, text in enumerate(TEXTS[:4])]
        requests.append(generation(4, TEXTS[4]))
        seeds = [[10 * i + s for s in range(5)] for i in range(4)] + [[1]]
        found, expected = answers(ours, requests, seeds), answers(plain, requests, seeds)
        assert sum(one != other for one, other in zip(found, expected, strict=True)) <= MOVED
        assert len({r.text for r in found[:5]}) > 1

    def test_log_likelihoods(self, pair: Any) -> None:
        _, ours, plain, _ = pair
        requests = [choice(i, n, text, end) for i, text in enumerate(TEXTS) for n, end in enumerate(CHOICES)]
        found, expected = answers(ours, requests), answers(plain, requests)
        assert [r.loglikelihood for r in found] == pytest.approx([r.loglikelihood for r in expected], abs=1e-4)
        assert [r.is_greedy for r in found] == [r.is_greedy for r in expected]
        assert [(r.prompt_tokens, r.completion_tokens) for r in found] == [
            (r.prompt_tokens, r.completion_tokens) for r in expected
        ]

    def test_they_are_those_of_lm_eval(self, pair: Any) -> None:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM

        kind, ours, _, folder = pair
        if kind not in ("llama", "gemma2", "gemma3"):
            pytest.skip("the plain path is compared with lm-eval's elsewhere")
        theirs: Any = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=3)
        settings = {"until": list(STOPS), "max_gen_toks": 20, "do_sample": False}
        asked = [Instance("generate_until", {}, (text, dict(settings)), i) for i, text in enumerate(TEXTS)]
        found = answers(ours, [generation(i, text, stop=STOPS, max_tokens=20) for i, text in enumerate(TEXTS)])
        assert [r.text for r in found] == theirs.generate_until(asked, disable_tqdm=True)
        pairs = [(text, end) for text in TEXTS for end in CHOICES]
        scores = theirs.loglikelihood(
            [Instance("loglikelihood", {}, p, i) for i, p in enumerate(pairs)], disable_tqdm=True
        )
        ours_scores = answers(ours, [choice(i, 0, *p) for i, p in enumerate(pairs)])
        assert [r.loglikelihood for r in ours_scores] == pytest.approx([value for value, _ in scores], abs=1e-4)
        assert [r.is_greedy for r in ours_scores] == [greedy for _, greedy in scores]

    def test_the_model_is_as_it_was(self, pair: Any) -> None:
        kind, ours, plain, _ = pair
        assert ours.settings()["attention"] == plain.settings()["attention"]
        assert kind not in SHARES or not ours.model.get_output_embeddings()._forward_pre_hooks


@pytest.fixture(scope="module")
def llama_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_model(tmp_path_factory.mktemp("llama"), "llama")


class TestWork:
    """How much goes through the model."""

    def test_a_shared_prefix_goes_through_once(self, llama_checkpoint: Any) -> None:
        backend: Any = make_backend("hf", str(llama_checkpoint), device="cpu")
        seen: list[int] = []
        backend.model.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
        )
        requests = [generation(i, f"{LONG} {i}", max_tokens=2) for i in range(16)]
        prompts = backend.encoder.prompts(requests)
        answers(backend, requests)
        assert sum(seen) < len(prompts[0]) + 16 * 8 < sum(map(len, prompts)) / 4
        seen.clear()
        answers(backend, [choice(0, n, LONG, end) for n, end in enumerate(CHOICES)])
        assert sum(seen) < len(prompts[0]) + 30

    def test_a_later_call_goes_on_from_the_same_beginning(self, llama_checkpoint: Any) -> None:
        """Workers get their requests piece by piece: the few-shot examples are computed once all the same."""
        backend, fresh = (make_backend("hf", str(llama_checkpoint), device="cpu") for _ in range(2))
        first = [generation(i, f"{LONG} {i}", max_tokens=2) for i in range(8)]
        second = [generation(i, f"{LONG} {i} and then", max_tokens=2) for i in range(8, 16)]
        answers(backend, first)
        seen: list[int] = []
        backend.model.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
        )
        assert answers(backend, second) == answers(fresh, second)
        assert sum(seen) < 8 * 12 < len(backend.encoder.prompts(second)[0])
        other = [generation(i, f"An other one. {LONG} {i}", max_tokens=2) for i in range(8)]
        assert answers(backend, other) == answers(make_backend("hf", str(llama_checkpoint), device="cpu"), other)
        backend.shared.forget()
        assert answers(backend, first) == answers(fresh, first)

    @pytest.mark.parametrize(
        "size", [pytest.param(1, marks=pytest.mark.long), 2, pytest.param(5, marks=pytest.mark.long)]
    )
    def test_batch_size_changes_nothing(self, llama_checkpoint: Any, size: int) -> None:
        whole, some = (make_backend("hf", str(llama_checkpoint), device="cpu", batch_size=n) for n in (None, size))
        requests = [generation(i, text, stop=STOPS, temperature=0.5 * (i % 2)) for i, text in enumerate(TEXTS)]
        seeds = [[i] for i in range(len(TEXTS))]
        assert answers(whole, requests, seeds) == answers(some, requests, seeds)

    @pytest.mark.long
    @pytest.mark.parametrize("most", [1, 3])
    def test_memory_running_out_halves_and_loses_nothing(self, llama_checkpoint: Any, most: int) -> None:
        import torch

        whole: Any = make_backend("hf", str(llama_checkpoint), device="cpu")
        scarce: Any = make_backend("hf", str(llama_checkpoint), device="cpu")
        work = scarce.shared.logits

        def logits(tokens: Any, state: Any, picks: Any) -> Any:
            if len(tokens) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return work(tokens, state, picks)

        scarce.shared.logits = logits
        requests = [generation(i, text, temperature=0.7) for i, text in enumerate(TEXTS)]
        ranked = [choice(i, n, text, end) for i, text in enumerate(TEXTS) for n, end in enumerate(CHOICES)]
        assert answers(scarce, requests) == answers(whole, requests)
        found = [r.loglikelihood for r in answers(scarce, ranked)]
        assert found == pytest.approx([r.loglikelihood for r in answers(whole, ranked)], abs=1e-4)
        assert scarce.settings()["batch_size"] <= most

    def test_attention_of_either_kind_gives_the_same(self, llama_checkpoint: Any) -> None:
        shared, eager = (
            make_backend("hf", str(llama_checkpoint), device="cpu", reuse=reuse) for reuse in (True, False)
        )
        eager.model.set_attn_implementation("eager")  # type: ignore[attr-defined]
        requests = [generation(i, text) for i, text in enumerate(TEXTS)]
        assert answers(shared, requests) == answers(eager, requests)

    def test_positions_that_depend_on_the_length_are_not_shared(self, llama_checkpoint: Any, tmp_path: Any) -> None:
        copy = Path(shutil.copytree(llama_checkpoint, tmp_path / "copy"))
        config = json.loads((copy / "config.json").read_text())
        config["rope_parameters"] = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
        (copy / "config.json").write_text(json.dumps(config))
        backend: Any = make_backend("hf", str(copy), device="cpu")
        assert backend.why_plain == "its rotary positions depend on the longest prompt"
        assert len(answers(backend, [generation(0)])) == 1

    def test_a_generation_config_that_changes_answers_is_left_to_transformers(self, llama_checkpoint: Any) -> None:
        backend: Any = make_backend("hf", str(llama_checkpoint), device="cpu")
        backend.model.generation_config.repetition_penalty = 1.3
        backend.processed = "repetition_penalty"
        assert "repetition_penalty" in backend.notes()[0]
        backend.shared.logits = None  # it is not called
        assert len(answers(backend, [generation(0)])) == 1


class TestStops:
    """Where a row ends."""

    def test_a_tail_that_cannot_end_a_stop_string_need_not_be_decoded(self) -> None:
        from olmes_suite.models.hf.decoding import RowStop

        tokenizer, draw = make_tiny_tokenizer(), random.Random(0)
        ids = tokenizer("Question: the ea gs 72\n\nééa </s> ef: s. day</s>", add_special_tokens=False).input_ids
        pieces: dict[int, str] = {}
        ended = 0
        for _ in range(400):
            stops = draw.sample(["ea", "\n\n", "72", "</s>", "éa", "ey", "s.", ": ", "ion:", "é"], 3)
            quick, full = (RowStop(tokenizer, stops, 40, [], pieces) for _ in range(2))
            full.ends = None
            for token in draw.choices([*ids, *range(3, 60)], k=40):
                quick.add(token)
                full.add(token)
            assert quick.tokens == full.tokens and quick.reason == full.reason
            ended += quick.reason == "stop"
        assert 50 < ended < 400


class TestTree:
    """Prefixes of token sequences."""

    def test_nodes_nest(self) -> None:
        found = prefixes([(1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 9), (7,)], tokens=1, rows=2)
        spans = [[(n.start, n.end) for n in node.path()] if node else [] for node in found]
        assert spans == [[(0, 2), (2, 3)], [(0, 2), (2, 3)], [(0, 2)], []]

    def test_equal_sequences_share_all_but_the_last_token(self) -> None:
        (first, *rest) = prefixes([(1, 2, 3)] * 3, tokens=2, rows=2)
        assert first is not None and first.tokens == (1, 2) and all(node is first for node in rest)

    def test_what_no_one_needs_is_let_go(self) -> None:
        nodes = prefixes([(1, 2, 3), (1, 2, 4)], tokens=1, rows=2)
        assert nodes[0] is not None
        nodes[0].cache = "kept"
        release(nodes[0])
        assert nodes[0].cache == "kept"
        release(nodes[1])
        assert nodes[0].cache is None

    def test_any_sequences(self) -> None:
        draw = random.Random(0)
        for _ in range(500):
            rows = [tuple(draw.randrange(2) for _ in range(draw.randrange(1, 9))) for _ in range(draw.randrange(1, 12))]
            tokens, least = draw.randrange(1, 4), draw.randrange(2, 4)
            nodes = prefixes(rows, tokens=tokens, rows=least)
            for row, node in zip(rows, nodes, strict=True):
                at = 0
                for one in node.path() if node else ():
                    assert one.start == at and one.end - at >= tokens and one.users >= least
                    assert row[at : one.end] == one.tokens
                    at = one.end
                assert at < len(row)
            assert sorted(by_prefix(rows, nodes)) == list(range(len(rows)))
