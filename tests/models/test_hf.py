"""The transformers backend: parity with lm-eval's, independence of rows, budgets, chat templates."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from models_fixture import CHAT_TEMPLATE, PROMPTS, STOPS, answers, choice, generation, make_tiny_model, one_line

from olmes_suite.errors import RequestFailed
from olmes_suite.models.factory import make_backend
from olmes_suite.models.stops import cut_at_stop


@pytest.fixture(scope="module")
def hf(tiny_checkpoint: Path) -> Any:
    """The tiny model in the hf backend."""
    import torch

    torch.set_num_threads(1)
    return make_backend("hf", str(tiny_checkpoint), device="cpu")


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path) -> Any:
    """The tiny model in lm-eval's own hf backend."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(tiny_checkpoint), device="cpu", dtype="float32", batch_size=4)


def ask_reference(reference: Any, prompts: Sequence[str], stops: Sequence[str] = STOPS, tokens: int = 24) -> list[str]:
    """lm-eval's greedy answers."""
    from lm_eval.api.instance import Instance

    asked = [
        Instance("generate_until", {}, (p, {"until": list(stops), "max_gen_toks": tokens, "do_sample": False}), i)
        for i, p in enumerate(prompts)
    ]
    found: list[str] = reference.generate_until(asked, disable_tqdm=True)
    return found


class TestParity:
    """The hf backend against lm-eval's."""

    def test_greedy_answers_are_those_of_lm_eval(self, hf: Any, reference: Any) -> None:
        ours = answers(hf, [generation(i, stop=STOPS) for i in range(16)])
        assert [r.text for r in ours] == ask_reference(reference, PROMPTS)
        assert {r.finish_reason for r in ours} == {"stop", "length"}
        assert len({r.completion_tokens for r in ours}) > 3

    def test_greedy_answers_without_stop_strings(self, hf: Any, reference: Any) -> None:
        ours = answers(hf, [generation(i) for i in range(16)])
        assert [r.text for r in ours] == ask_reference(reference, PROMPTS, ())

    def test_plain_text_that_starts_with_bos_gets_no_other(self, hf: Any, reference: Any) -> None:
        texts = [f"<s>{prompt}" for prompt in PROMPTS[:4]]
        ours = answers(hf, [generation(i, text) for i, text in enumerate(texts)])
        assert [r.text for r in ours] == ask_reference(reference, texts, ())
        assert [r.text for r in ours] == [r.text for r in answers(hf, [generation(i) for i in range(4)])]

    def test_chat_messages_equal_the_rendered_text(self, checkpoint_copy: Path, reference: Any) -> None:
        (checkpoint_copy / "chat_template.jinja").write_text("{{ bos_token }}" + CHAT_TEMPLATE)
        backend: Any = make_backend("hf", str(checkpoint_copy), device="cpu")
        assert any("BOS" in line for line in backend.notes())
        asked = [generation(i, messages=(("user", PROMPTS[i]),), text=None, prefix="Answer:") for i in range(4)]
        rendered = [f"<s><|user|>\n{PROMPTS[i]}\n<|assistant|>\nAnswer:" for i in range(4)]
        assert [r.text for r in answers(backend, asked)] == ask_reference(reference, rendered, ())

    def test_log_likelihoods_are_those_of_lm_eval(self, hf: Any, reference: Any) -> None:
        from lm_eval.api.instance import Instance

        contexts = ["Which of these is a colour?\nAnswer:", "The old clock ", "Q: x\n\n", "", "<s>The answer is", " "]
        choices = [" A", " B", " C", " in the hall strikes nine", "green\n", "</s>", "<s> A"]
        pairs = [(context, continuation) for context in contexts for continuation in choices]
        theirs = reference.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs], disable_tqdm=True)
        ours = answers(hf, [choice(i, 0, *pair) for i, pair in enumerate(pairs)])
        assert [r.loglikelihood for r in ours] == pytest.approx([value for value, _ in theirs], abs=1e-4)
        assert [r.is_greedy for r in ours] == [greedy for _, greedy in theirs]

    def test_greedy_flag_is_true_for_the_greedy_answer(self, hf: Any) -> None:
        # the model's own first token: byte-level, so that its text is found by trying all the vocabulary's texts
        vocabulary = [hf.tokenizer.decode([token]) for token in range(3, len(hf.tokenizer))]
        texts = [text for text in vocabulary if text.isascii() and text.strip() == text and text]
        scored = answers(hf, [choice(0, i, "Answer:\n", text) for i, text in enumerate(texts)])
        greedy = [r.loglikelihood or 0.0 for r in scored if r.is_greedy]
        assert len(greedy) <= 1
        assert not greedy or greedy[0] == max(r.loglikelihood or 0.0 for r in scored if r.completion_tokens == 1)

    def test_through_lm_evals_interface(self, hf: Any, reference: Any) -> None:
        assert ask_reference(hf, PROMPTS[:6]) == ask_reference(reference, PROMPTS[:6])


class TestRows:
    """No row sees another."""

    @pytest.mark.parametrize(
        "sampling",
        [
            pytest.param({}, marks=pytest.mark.long),
            {"temperature": 0.8, "top_p": 0.95},
            pytest.param({"temperature": 1.0, "top_p": None}, marks=pytest.mark.long),
        ],
    )
    def test_batch_size_changes_nothing(self, tiny_checkpoint: Path, hf: Any, sampling: dict[str, Any]) -> None:
        requests = [generation(i, stop=STOPS[: i % 4], **({"max_tokens": 8 + i} | sampling)) for i in range(12)]
        seeds = [[i, 1000 + i] for i in range(12)]
        alone = make_backend("hf", str(tiny_checkpoint), device="cpu", batch_size=1)
        assert answers(alone, requests, seeds) == answers(hf, requests, seeds)

    def test_seeds_decide_the_samples(self, hf: Any) -> None:
        sampled = [generation(0, temperature=0.8, top_p=0.95, samples=3)]
        first, second, third = answers(hf, sampled, [[1, 2, 1]])
        assert first == third != second
        assert answers(hf, sampled, [[None, 2, None]]) == [second]

    def test_huge_seeds_are_fine(self, hf: Any) -> None:
        assert len(answers(hf, [generation(0, temperature=0.5)], [[2**64 - 1]])) == 1

    def test_greedy_and_sampled_rows_share_a_batch(self, hf: Any) -> None:
        mixed = [generation(i, temperature=0.7 * (i % 2)) for i in range(6)]
        greedy = [generation(i) for i in range(6)]
        found, expected = answers(hf, mixed), answers(hf, greedy)
        assert [r.text for r in found][::2] == [r.text for r in expected][::2]
        assert [r.text for r in found][1::2] != [r.text for r in expected][1::2]

    def test_end_of_text_ids_of_the_generation_config_stop(self, checkpoint_copy: Path, hf: Any) -> None:
        settings = json.loads((checkpoint_copy / "generation_config.json").read_text())
        settings["eos_token_id"] = [1, *range(10, 400, 10)]  # a tenth of all tokens
        (checkpoint_copy / "generation_config.json").write_text(json.dumps(settings))
        requests = [generation(i) for i in range(16)]
        before = answers(hf, requests)
        after = answers(make_backend("hf", str(checkpoint_copy), device="cpu"), requests)
        assert "stop" in {r.finish_reason for r in after}
        for short, long in zip(after, before, strict=True):
            assert (long.text or "").startswith((short.text or "").rstrip("\ufffd"))
            assert short.completion_tokens == 24 or short.finish_reason == "stop"

    def test_answers_come_batch_by_batch_and_stop_when_closed(self, tiny_checkpoint: Path) -> None:
        backend: Any = make_backend("hf", str(tiny_checkpoint), device="cpu", batch_size=2, reuse=False)
        done: list[int] = []
        work = backend._generate

        def counted(batch: Sequence[Any]) -> Any:
            done.append(len(batch))
            return work(batch)

        backend._generate = counted
        stream = backend.run([generation(i) for i in range(8)], [[0]] * 8)
        next(stream)
        assert done == [2]
        stream.close()
        assert done == [2]

    def test_a_stop_request_ends_the_run_after_the_batch(self, tiny_checkpoint: Path) -> None:
        backend = make_backend("hf", str(tiny_checkpoint), device="cpu", batch_size=2)
        stream = backend.run([*(generation(i) for i in range(8)), choice(9, 0, "Q", "A")], [[0]] * 9)
        next(stream)
        backend.stop_requested = True
        assert len(list(stream)) == 1

    def test_memory_running_out_halves_the_batch_for_good(self, tiny_checkpoint: Path, hf: Any) -> None:
        import torch

        backend: Any = make_backend("hf", str(tiny_checkpoint), device="cpu", batch_size=8, reuse=False)
        work = backend._generate

        def scarce(batch: Sequence[Any]) -> Any:
            if len(batch) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return work(batch)

        backend._generate = scarce
        requests = [generation(i) for i in range(6)]
        assert answers(backend, requests) == answers(hf, requests)
        assert backend.settings()["batch_size"] == 2

    def test_other_errors_are_not_taken_for_memory(self, tiny_checkpoint: Path) -> None:
        backend: Any = make_backend("hf", str(tiny_checkpoint), device="cpu", reuse=False)

        def broken(batch: Sequence[Any]) -> Any:
            raise RuntimeError("shapes cannot be multiplied")

        backend._generate = broken
        with pytest.raises(RuntimeError, match="shapes"):
            answers(backend, [generation(0)])

    @pytest.mark.long
    def test_single_request_out_of_memory_is_an_error(self, tiny_checkpoint: Path) -> None:
        import torch

        backend: Any = make_backend("hf", str(tiny_checkpoint), device="cpu", reuse=False)

        def never(batch: Sequence[Any]) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

        backend._generate = never
        with pytest.raises(RequestFailed, match="single request"):
            answers(backend, [generation(i) for i in range(3)])


class TestBudget:
    """Prompts and answers within the model's context."""

    @pytest.mark.parametrize(
        ("prompt", "wanted", "expected"),
        [
            (10, 20, (10, 20)),
            (90, 20, (90, 10)),
            (98, 20, (98, 2)),
            (99, 20, (80, 20)),
            (500, 20, (80, 20)),
            (500, 999, (50, 50)),
        ],
    )
    def test_fit(self, prompt: int, wanted: int, expected: tuple[int, int]) -> None:
        from olmes_suite.models.base import fit

        assert fit(prompt, wanted, 100) == expected

    def test_a_long_prompt_is_cut_and_flagged_and_a_short_one_keeps_its_budget(self, tiny_checkpoint: Path) -> None:
        backend: Any = make_backend("hf", str(tiny_checkpoint), device="cpu", max_length=64)
        long, middle, short = answers(
            backend, [generation(0, "x y z " * 60), generation(1, "x y z " * 8), generation(2, "x")]
        )
        assert (long.truncated, long.prompt_tokens, long.completion_tokens) == (True, 40, 24)
        assert not middle.truncated
        assert middle.finish_reason == "length"
        assert middle.prompt_tokens + middle.completion_tokens == 64
        assert short.completion_tokens == 24

    def test_a_cut_context_of_a_choice_is_flagged(self, tiny_checkpoint: Path) -> None:
        backend: Any = make_backend("hf", str(tiny_checkpoint), device="cpu", max_length=16)
        long, short = answers(backend, [choice(0, 0, "x y z " * 30, " A"), choice(1, 0, "x", " A")])
        assert long.truncated
        assert not short.truncated
        with pytest.raises(RequestFailed, match=r"tulu3_test.*raise --max-length"):
            answers(backend, [choice(0, 0, "x", " y z" * 30)])

    def test_single_token_choices_share_a_forward_pass(self, hf: Any) -> None:
        from olmes_suite.models.local.jobs import choices, rows_of

        asked = [choice(0, i, "Answer:", f" {c}") for i, c in enumerate("xzXZ")]
        rows = rows_of(choices(hf.encoder, asked, [(i, 0, 0) for i in range(4)], hf.max_length))
        sizes = sorted(len(row.choices) for row in rows)
        assert sum(sizes) == 4
        assert sizes[-1] > 1


class TestSampler:
    """Temperature and nucleus sampling against the distribution they stand for."""

    def test_draws_follow_the_cut_distribution(self) -> None:
        import torch

        from olmes_suite.models.hf.decoding import Choosing, RowSampler

        logits = torch.tensor([3.0, 2.0, 1.0, 0.0, -5.0])
        rows = 4000
        sampler = RowSampler([Choosing(0.5, 0.9)] * rows, list(range(rows)), torch.device("cpu"))
        drawn = sampler(torch.zeros(rows, 1), logits.repeat(rows, 1)).argmax(dim=-1)
        shares = torch.bincount(drawn, minlength=5) / rows
        expected = (logits / 0.5).softmax(0)[:2]
        assert shares[:2].tolist() == pytest.approx((expected / expected.sum()).tolist(), abs=0.03)
        assert shares[2:].sum() == 0

    def test_top_p_of_zero_is_greedy(self) -> None:
        import torch

        from olmes_suite.models.hf.decoding import Choosing, RowSampler

        sampler = RowSampler([Choosing(1.0, 0.0)], [7], torch.device("cpu"))
        assert int(sampler(torch.zeros(1, 1), torch.tensor([[0.0, 1.0, 0.5]])).argmax()) == 1

    @pytest.mark.parametrize(
        ("text", "stops", "expected"),
        [("a STOP b", ("STOP",), "a "), ("a b c", ("c", "b"), "a "), ("abc", (), "abc"), ("abc", ("",), "abc")],
    )
    def test_cut_at_stop(self, text: str, stops: tuple[str, ...], expected: str) -> None:
        assert cut_at_stop(text, stops) == expected

    def test_raw_keeps_what_was_cut(self, hf: Any) -> None:
        cut = [r for r in answers(hf, [generation(i, stop=STOPS) for i in range(16)]) if r.raw is not None]
        assert cut
        assert all((r.raw or "").startswith(r.text or "") and r.finish_reason == "stop" for r in cut)


class TestTemplates:
    """Chat templates: missing, replaced, broken."""

    def test_without_a_template_plain_text_is_used(self, tmp_path: Path) -> None:
        folder = make_tiny_model(tmp_path / "plain", chat_template=False)
        backend: Any = make_backend("hf", str(folder), device="cpu")
        assert not backend.chat
        assert any("--chat-template" in line for line in backend.notes())
        with pytest.raises(RequestFailed, match="--chat-template"):
            answers(backend, [generation(0, text=None, messages=(("user", "x"),))])

    def test_a_template_file_replaces_the_tokenizers(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        file = tmp_path / "template.jinja"
        file.write_text("{% for m in messages %}[{{ m['content'] }}]{% endfor %}")
        backend: Any = make_backend("hf", str(tiny_checkpoint), device="cpu", chat_template=file)
        request = generation(0, text=None, messages=(("user", "one"), ("assistant", "two")), prefix=" so")
        assert backend.encoder.render(request) == "[one][two] so"
        assert backend.fingerprint != make_backend("hf", str(tiny_checkpoint), device="cpu").fingerprint

    def test_a_refused_system_message_goes_to_the_user_with_a_note(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        file = tmp_path / "template.jinja"
        file.write_text(
            "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
            "[{{ m['content'] }}]{% endfor %}"
        )
        backend: Any = make_backend("hf", str(tiny_checkpoint), device="cpu", chat_template=file)
        request = generation(0, text=None, messages=(("system", "be kind"), ("user", "one")))
        assert backend.encoder.render(request) == "[be kind\n\none]"
        assert any("system" in line for line in backend.notes())

    @pytest.mark.parametrize("text", ["{% for", "", "{{ raise_exception('never') }}"])
    def test_broken_templates_are_one_line(self, tiny_checkpoint: Path, tmp_path: Path, text: str) -> None:
        (tmp_path / "template.jinja").write_text(text)
        one_line(
            lambda: make_backend("hf", str(tiny_checkpoint), device="cpu", chat_template=tmp_path / "template.jinja"),
            "chat.template",
        )
