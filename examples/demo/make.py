"""Make what the demo starts from: a small untrained Llama, its tokenizer, training sets, held-out documents.

python examples/demo/make.py FOLDER [--seed 0] [--rows 12000] [--held-out 500] [--thinking]
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from problems import THINK, Sum, held_out, instruction, short, steps, sums, worked

TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{% else %}{{ message['content'] + '\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
"""Turns marked by their roles, each answer closed by end-of-text, as in the Tülu chat format."""
THINKING_TEMPLATE = TEMPLATE.replace(
    "{% generation %}",
    "{% generation %}{% if message['reasoning_content'] %}"
    f"{{{{ '{THINK[0]}' + message['reasoning_content'] + '{THINK[1]}' }}}}{{% endif %}}",
)
"""The same, with a turn's `reasoning_content` as a thought before its answer."""
VOCABULARY = 448
INSTRUCTIONS = 0.1
"""Share of short instructions among the training rows."""


def chat(question: str, answer: dict[str, str]) -> list[dict[str, str]]:
    """A conversation of one round; `answer` holds the fields of its turn."""
    return [{"role": "user", "content": question}, {"role": "assistant", **answer}]


def at_once(one: Sum) -> dict[str, str]:
    """The answer alone."""
    return {"content": short(one)}


def in_answer(one: Sum) -> dict[str, str]:
    """The working, as part of the answer."""
    return {"content": worked(one)}


def in_thought(one: Sum) -> dict[str, str]:
    """The working as a thought before the answer."""
    return {"reasoning_content": steps(one), "content": short(one)}


def training_rows(
    rng: random.Random, count: int, without: frozenset[Any], thinking: bool = False
) -> list[dict[str, Any]]:
    """Conversations: sums, answered at once or worked out as each template's share says, and short instructions.

    With `thinking`, three of four workings are thoughts.
    """
    ways = [in_thought, in_thought, in_thought, in_answer] if thinking else [in_answer]
    rows = []
    for one in sums(rng, round(count * (1 - INSTRUCTIONS)), without):
        answer = rng.choice(ways)(one) if rng.random() < one.worked else at_once(one)
        rows.append({"messages": chat(one.question, answer)})
    for _ in range(count - len(rows)):
        question, text = instruction(rng)
        rows.append({"messages": chat(question, {"content": text})})
    rng.shuffle(rows)
    return rows


def prompt_rows(rng: random.Random, count: int, without: frozenset[Any]) -> list[dict[str, Any]]:
    """Questions with their answers, for sampling and for verified rewards."""
    return [
        {
            "messages": [{"role": "user", "content": one.question}],
            "ground_truth": str(one.value),
            "dataset": "gsm8k",
        }
        for one in sums(rng, count, without)
    ]


def write_lines(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_tokenizer(texts: list[str], thinking: bool = False) -> Any:
    """A byte-level BPE tokenizer: each digit is a token and, with `thinking`, each mark of a thought or a turn."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    inner.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=special[0], pad_token=special[1])
    tokenizer.chat_template = THINKING_TEMPLATE if thinking else TEMPLATE
    if thinking:
        tokenizer.add_tokens([*THINK, "<|user|>\n", "<|assistant|>\n"])
    return tokenizer


def make_model(folder: Path, tokenizer: Any, seed: int) -> None:
    """A Llama of four layers with random weights, and its tokenizer."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.05,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(f"{folder}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} million parameters", flush=True)


def write_held_out(data: Path, rng: random.Random, count: int) -> frozenset[Any]:
    """The held-out documents as a mirror of the data set `demo/sums`; returns what they ask."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = held_out(rng, count)
    file = data / "demo" / "sums" / "default" / "test.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([{"question": one.question, "answer": str(one.value)} for one in found]), file)
    return frozenset(one.key for one in found)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--thinking", action="store_true", help="answers with thoughts between marks")
    chosen = parser.parse_args()
    data = chosen.folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    rng = random.Random(chosen.seed)
    asked = write_held_out(data, rng, chosen.held_out)
    rows = training_rows(rng, chosen.rows, asked, chosen.thinking)
    write_lines(data / "sft.jsonl", rows)
    write_lines(data / "prompts.jsonl", prompt_rows(rng, max(chosen.rows // 4, 64), asked))
    turns = [turn for row in rows for turn in row["messages"]]
    texts = [turn[field] for turn in turns for field in ("reasoning_content", "content") if field in turn]
    tokenizer = make_tokenizer(texts, chosen.thinking)
    make_model(chosen.folder / "base", tokenizer, chosen.seed)


if __name__ == "__main__":
    main()
