"""Judges that are checkpoints on this machine: a tiny language model, and encoders for BERTScore."""

from __future__ import annotations

import json

import pytest
from helpers import as_json, olmes
from models_fixture import make_tiny_model

from olmes_suite.errors import ModelError
from olmes_suite.judges.base import Question
from olmes_suite.judges.checkpoints import digest_of
from olmes_suite.judges.encoder import TextEncoder
from olmes_suite.judges.local import LocalJudge
from olmes_suite.models.without_model.mock import MockBackend
from olmes_suite.scoring.tools import ToolOptions

QUESTIONS = [
    Question(messages=(("user", "Which of these is a colour?"),), max_tokens=4, top_logprobs=5),
    Question(messages=(("user", "How many eggs are there after three days, when a hen lays two?"),), max_tokens=6),
    Question(text="The old clock", max_tokens=1, temperature=1.0, top_logprobs=3),
]


def test_a_checkpoint_answers_as_its_backend_does(tiny_checkpoint):
    import torch

    from olmes_suite.models.hf.backend import HFBackend

    judge = LocalJudge(str(tiny_checkpoint), ToolOptions(engine={"device": "cpu", "batch_size": 2}))
    found = dict(judge.ask(QUESTIONS))
    backend = HFBackend(tiny_checkpoint, device="cpu")
    for position, question in enumerate(QUESTIONS):
        first = found[position].first_token
        assert len(first) == question.top_logprobs
        if first:
            prompt = backend.tokenizer.apply_chat_template(
                [{"role": role, "content": text} for role, text in question.messages], tokenize=False,
                add_generation_prompt=True,
            ) if question.messages else question.text  # fmt: skip
            ids = backend.tokenizer(prompt, add_special_tokens=question.text is not None, return_tensors="pt").input_ids
            with torch.inference_mode():
                row = backend.model(input_ids=ids).logits[0, -1].log_softmax(-1)
            values, tokens = row.topk(question.top_logprobs)
            assert [token for token, _ in first] == [backend.tokenizer.decode([t]) for t in tokens.tolist()]
            assert [value for _, value in first] == pytest.approx(values.tolist(), abs=1e-4)
    assert found[0].text.startswith(found[0].first_token[0][0])
    judge.close()


def test_the_model_is_loaded_once_and_not_for_what_is_known(tiny_checkpoint):
    loaded = []

    def load():
        loaded.append(1)
        return MockBackend()

    plain = [Question(text=f"q {n}", max_tokens=5) for n in range(4)]
    first = LocalJudge("mine", ToolOptions(), load=load, digest="known")
    answers = dict(first.ask(plain))
    list(first.ask([Question(text="another")]))
    assert loaded == [1] and first.usage.asked == 5
    second = LocalJudge("mine", ToolOptions(), load=load, digest="known")
    assert {n: a.text for n, a in second.ask(plain)} == {n: a.text for n, a in answers.items()}
    assert loaded == [1] and second.usage.cached == 4
    third = LocalJudge("mine", ToolOptions(), load=load, digest="other weights")
    list(third.ask(plain))
    assert loaded == [1, 1] and third.fingerprint != second.fingerprint


def test_a_checkpoint_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match=r"no config\.json"):
        digest_of(str(tmp_path))
    with pytest.raises(ModelError, match=r"no such folder.*HF_HUB_OFFLINE is set"):
        digest_of("nobody/nothing-of-that-name")


@pytest.fixture(scope="module")
def decided(tmp_path_factory):
    """A model that always names one of the two outputs: the logits of m and M are opposite, all others 0."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = make_tiny_model(tmp_path_factory.mktemp("decided"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        rows = model.lm_head.weight
        one = rows[tokenizer.convert_tokens_to_ids("m")].clone()
        rows.zero_()
        rows[tokenizer.convert_tokens_to_ids("m")], rows[tokenizer.convert_tokens_to_ids("M")] = one, -one
    model.save_pretrained(folder)
    return folder


@pytest.mark.long
def test_alpaca_eval_with_local_models_as_candidate_and_judge(tiny_checkpoint, decided, tmp_path):
    done = olmes(
        "eval", "--task", "alpaca_eval", "--data", "sample", "--backend", "hf", "--model", tiny_checkpoint,
        "--judge", decided, "--max-length", "64", "--device", "cpu", "--runs", tmp_path / "runs", "--json",
        tmp=tmp_path,
    )  # fmt: skip
    found = as_json(done)
    entry = found["tasks"]["tulu3_alpaca_eval"]
    with open(f"{found['path']}/manifest.json", encoding="utf-8") as handle:
        recorded = json.load(handle)["judge"]["judge"]
    assert "error" not in entry, entry
    assert recorded["asked"] == 6 and recorded["model"] == str(decided)
    assert entry["flags"]["extraction_failed"] == 0
    assert entry["metrics"]["win_rate"]["value"] == entry["metrics"]["discrete_win_rate"]["value"]


# BERTScore ------------------------------------------------------------------------------------------------------------

PAIRS = [
    ("The cat sat on the mat.", "A cat was sitting on a mat."),
    ("Paris is the capital of France", "The capital of France is Paris."),
    ("", "something"),
    ("something", "  "),
    ("the same", "the same"),
    ("Ünïcödé text", "Unicode text"),
    ("a long text " * 300, "another long text " * 200),
]


def naive_f1(name, layer, one, other):
    """BERTScore F1 by its definition, one pair at a time, with loops."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModel.from_pretrained(name).eval()

    def embed(text):
        made = tokenizer(text.strip(), truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt")
        with torch.no_grad():
            states = model(**made, output_hidden_states=True).hidden_states[layer][0]
        special = [i in (tokenizer.cls_token_id, tokenizer.sep_token_id) for i in made["input_ids"][0].tolist()]
        return [state / state.norm() for state in states], special

    (a, a_special), (b, b_special) = embed(one), embed(other)
    precisions = [max(float(x @ y) for y in b) for x, special in zip(a, a_special, strict=True) if not special]
    recalls = [max(float(x @ y) for x in a) for y, special in zip(b, b_special, strict=True) if not special]
    if not precisions or not recalls:
        return 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.long
@pytest.mark.parametrize("layer", [6, 4])
def test_bertscore_is_its_definition(minilm, layer):
    encoder = TextEncoder(minilm, "cpu", layer=layer)
    found = encoder.f1([one for one, _ in PAIRS], [other for _, other in PAIRS])
    assert found[:6] == pytest.approx([naive_f1(minilm, layer, *pair) for pair in PAIRS[:6]], abs=1e-4)
    assert found[2:4] == [0.0, 0.0] and found[4] == pytest.approx(1.0, abs=1e-5)
    assert 0 < found[6] < 1
    assert encoder.record()["pairs"] == 7


def test_bertscore_of_the_bert_score_package(minilm):
    # bert-score 0.3.13, BERTScorer(model_type=this encoder, num_layers=6 and 4, no idf, no rescaling), first five pairs
    for layer, expected in ((6, [0.890883, 0.957432, 0.0, 0.0, 1.0]), (4, [0.8556, 0.930426, 0.0, 0.0, 1.0])):
        pairs = [PAIRS[0], PAIRS[1], ("", "ref"), ("short", ""), ("same", "same")]
        found = TextEncoder(minilm, "cpu", layer=layer).f1([one for one, _ in pairs], [other for _, other in pairs])
        assert found == pytest.approx(expected, abs=1e-5)


def test_the_layer_belongs_to_the_encoder(minilm):
    assert TextEncoder(minilm).layer == -1
    assert TextEncoder(minilm).fingerprint != TextEncoder(minilm, layer=4).fingerprint
