"""One process of several: RLVR on fixed responses; writes losses, gradients and weights. Run by
test_rlvr_processes.py. Each word is a training: an algorithm, and what is added to it; `fsdp` shards them all.

    python -m torch.distributed.run --nproc_per_node 2 tests/support/rlvr_worker.py FOLDER OUT ppo ppo+lora … [fsdp]
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from gradients import Keep, fsdp_on_cpu
from rlvr_fixture import Coin, make_rlvr, prompt_rows

from train_plugins import distributed
from train_plugins.rl import rollouts
from train_plugins.running.prepare_stage import configuration, prepare, trainer_arguments
from train_plugins.stages import registry

rollouts.Verifiers = Coin


class Half(Coin):
    """Tells the responses apart to every second prompt only."""

    def verify(self, calls: Any) -> list[float | None]:
        """See `Coin`."""
        coins = zip(super().verify(calls), calls, strict=True)
        return [coin if call.row["row"] % 2 else 1.0 for coin, call in coins]


def answers(prompts: list[list[int]], ends: list[int]) -> list[list[int]]:
    """Responses that hang on the prompt and on its turn in the group alone, two in three with end-of-text."""
    found = []
    for number, prompt in enumerate(prompts):
        turn = next((back for back in range(number) if prompts[number - back - 1] != prompt), number)
        draw = random.Random(hash((tuple(prompt), turn)))
        answer = [draw.choice([n for n in range(10, 300) if n not in ends]) for _ in range(draw.randint(2, 9))]
        found.append([*answer, ends[0]] if draw.random() < 0.67 else answer)
    return found


def train(folder: Path, algorithm: str, more: list[str], sharded: bool) -> dict[str, Any]:
    """Two rollouts of eight responses, two steps on each."""
    adapter, checkpointing, active = (word in more for word in ("lora", "checkpointing", "active"))
    rollouts.Verifiers = Half if active else Coin
    world = distributed.world_size()
    rate = (1e-4 if adapter else 1e-3) if algorithm == "ppo" else 1e-5  # or all ratios leave the clip
    settings = {"per_device_train_batch_size": 2, "num_iterations": 2, "gradient_checkpointing": checkpointing,
                "learning_rate": rate}  # fmt: skip
    name = f"{algorithm}-{world}-{adapter}-{sharded}-{checkpointing}-{active}"
    own = folder / f"{name}-{distributed.is_main()}"
    own.mkdir(exist_ok=True)
    value = {"value_model": str(folder / "reward")} if algorithm == "ppo" else {}
    value |= {"active_sampling": True} if active else {}
    rows = prompt_rows(16 if algorithm == "ppo" else 4)
    wanted = make_rlvr(own, algorithm, rows, model=str(folder / "tiny"), trainer=settings, rlvr=value,
                       output=str(folder / f"out-{name}"), **({"lora": {"r": 4}} if adapter else {}))  # fmt: skip
    stage = registry.find("rlvr")
    wanted, arguments = trainer_arguments(stage, wanted)
    ready = prepare(stage, wanted, arguments)
    args = configuration(stage.config(wanted), arguments, wanted)
    if sharded:
        fsdp_on_cpu(args)
    trainer = stage.trainer(wanted, args, ready.encoded.rows, ready.tokenizer)

    def fixed(prompt_ids: list[list[int]], *_: Any) -> Any:
        first = distributed.is_main()  # a group may be shared by the processes
        whole = answers(gather_object(prompt_ids), trainer.eos_token_ids)
        found = whole[: len(prompt_ids)] if first else whole[-len(prompt_ids) :]
        return found if algorithm == "rloo" else (found, None)

    trainer._generate_single_turn = fixed
    keep = Keep()
    trainer.add_callback(keep)
    trainer.train()
    trainer.save_model(str(folder / f"saved-{name}"))
    return {
        "history": [entry for entry in trainer.state.log_history if "loss" in entry],
        "gradients": keep.steps,
        "type": str(trainer.accelerator.distributed_type.value),
        "saved": str(folder / f"saved-{name}"),
        "rate": rate,
    }


def main() -> None:
    folder, out, sharded = Path(sys.argv[1]), Path(sys.argv[2]), "fsdp" in sys.argv[3:]
    found = {}
    for word in [word for word in sys.argv[3:] if word != "fsdp"]:
        algorithm, *more = word.split("+")
        found[word] = train(folder, algorithm, more, sharded)
    if distributed.is_main():
        torch.save(found, out)


if __name__ == "__main__":
    main()
