"""What GRPO, RLOO and PPO share on top of TRL: verified rewards, what is watched, resuming bit for bit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import is_peft_model, send_to_device
from trl import GRPOTrainer, RLOOTrainer
from trl.trainer.utils import RepeatSampler

from olmes_suite.errors import StageRefused
from train_plugins.rl import advantages, vllm_rollouts
from train_plugins.trainers import dropout, lora
from train_plugins.trainers.callbacks import Watched
from train_plugins.verifiers import Call, Verifiers

if TYPE_CHECKING:
    from train_plugins.rl.keys import RlvrKeys

HOPELESS = 8
"""Rollouts in a row without a signal after which a stage stops."""
EPOCH_STRIDE = 1_000_003
"""Between the seeds of two epochs' orders."""


def verified(*_: Any, **__: Any) -> list[float | None]:
    """Names the reward in TRL's log; `Rollouts._calculate_rewards` computes it."""
    raise NotImplementedError


class EpochOrder(RepeatSampler):
    """TRL's sampler with an order for each epoch that a resumed stage draws again.

    TRL's own draws all epochs from one generator, which a resumed stage starts anew: it would repeat the first epoch.
    """

    def set_epoch(self, epoch: int) -> None:
        """Called by transformers' trainer before each epoch."""
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) + EPOCH_STRIDE * epoch)


class Rollouts(Watched):
    """Mixin before one of TRL's trainers that sample. `keys`: the recipe's under `rlvr`."""

    def __init__(self, *args: Any, keys: RlvrKeys, **kwargs: Any) -> None:
        self.keys = keys
        self.names: tuple[str, ...] = tuple(sorted(set(kwargs["train_dataset"]["verifier"])))
        self.verifiers: Any = None
        self.scores = torch.zeros(0)
        self.hopeless = 0
        self._total_train_tokens = 0
        super().__init__(*args, reward_funcs=verified, **kwargs)  # type: ignore[call-arg]
        for model in (self.model, getattr(self, "ref_model", None)):  # type: ignore[attr-defined]
            if model is not None and self.args.disable_dropout:  # type: ignore[attr-defined]
                dropout.switch_off(model)
        self.adapted: bool = is_peft_model(self.model)  # type: ignore[attr-defined]
        if self.adapted and self.use_vllm:  # type: ignore[attr-defined]
            self.vllm_generation._iter_named_params = lambda: lora.merged(self.model)  # type: ignore[attr-defined]

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train with the verifiers' workers running."""
        with Verifiers(self.names, self.keys.workers, self.keys.timeout) as self.verifiers:
            self._check_truths()
            return super().train(*args, **kwargs)  # type: ignore[misc]

    # Rewards

    def _check_truths(self) -> None:
        """Try every row's truth before the first rollout, each process its share. Raises VerifierFailed."""
        args = self.args  # type: ignore[attr-defined]
        rows = self.train_dataset.select_columns(["verifier", "truth", "extra", "row", "prompt"])  # type: ignore[attr-defined]
        share = rows.select(range(args.process_index, len(rows), args.world_size))
        self.verifiers.check_truths([call_of(row, "") for row in share])

    def _calculate_rewards(
        self, inputs: Sequence[Mapping[str, Any]], prompts: Any, completions: Sequence[Any],
        completion_ids_list: Sequence[Sequence[int]],
    ) -> torch.Tensor:  # fmt: skip
        """(responses of all processes, 1): the scores, NaN where a row is skipped. Raises StageRefused if all are."""
        lost = self.verifiers.timeouts, self.verifiers.crashes
        fractions = self.verifiers.verify(
            [call_of(row, response_text(answer)) for row, answer in zip(inputs, completions, strict=True)]
        )
        self._note_lost(self.verifiers.timeouts - lost[0], self.verifiers.crashes - lost[1])
        facts = []
        for row, fraction, ids in zip(inputs, fractions, completion_ids_list, strict=True):
            ended = bool(ids) and ids[-1] in self.eos_token_ids  # type: ignore[attr-defined]
            score = advantages.score(fraction, ended, self.keys.reward, self.keys.no_eos_penalty)
            numbers = (score, fraction, self.names.index(row["verifier"]), ended, len(ids))
            facts.append([float("nan") if number is None else float(number) for number in numbers])
        here = torch.tensor(facts, device=self.accelerator.device)  # type: ignore[attr-defined]
        everywhere = self.accelerator.gather(here)  # type: ignore[attr-defined]
        self.scores = here[:, 0]
        if everywhere[:, 0].isnan().all():
            raise StageRefused(
                f"the verifiers ({', '.join(self.names)}) gave no verdict on any of {len(everywhere)} responses; "
                "look at the rows' ground_truth"
            )
        self._note_rewards(everywhere)
        self._stop_without_signal(everywhere)
        return everywhere[:, :1]

    def _stop_without_signal(self, facts: torch.Tensor) -> None:
        """Raise StageRefused after `HOPELESS` rollouts in a row that no gradient of the reward can come from."""
        group = self.num_generations  # type: ignore[attr-defined]
        endless = self.keys.no_eos_penalty is not None and not bool(facts[:, 3].any())
        flat = group > 1 and float(advantages.without_signal(facts[:, 0], group)) == 1.0
        self.hopeless = self.hopeless + 1 if endless or flat else 0
        if self.hopeless < HOPELESS:
            return
        if endless:
            raise StageRefused(
                f"no response of {HOPELESS} rollouts in a row has ended by itself, so each got the no_eos_penalty; "
                "check that the checkpoint writes the tokenizer's end-of-text, and raise trainer.max_completion_length"
            )
        raise StageRefused(
            f"in {HOPELESS} rollouts in a row all {group} responses to each prompt got the same reward, so there is "
            "nothing to learn from; look at the verifiers, the prompts' difficulty and trainer.temperature"
        )

    def _note_rewards(self, facts: torch.Tensor) -> None:
        """Log what the rollouts earned; `facts` (responses, 5): score, fraction, verifier, ended, length."""
        self._note("rlvr/verified", facts[:, 1].nanmean())
        for number, name in enumerate(self.names):
            if bool((chosen := facts[:, 2] == number).any()):
                self._note(f"rlvr/verified/{name}", facts[chosen, 1].nanmean())
        self._note("rlvr/eos_rate", facts[:, 3].mean())
        self._note("rlvr/length", facts[:, 4].mean())
        if self.num_generations > 1:  # type: ignore[attr-defined]
            self._note("rlvr/no_signal", advantages.without_signal(facts[:, 0], self.num_generations))  # type: ignore[attr-defined]

    def _note_lost(self, timeouts: int, crashes: int) -> None:
        """Verdicts of this rollout that ran out of time or ended their process, over all processes."""
        lost = torch.tensor([float(timeouts), float(crashes)], device=self.accelerator.device)  # type: ignore[attr-defined]
        for name, value in zip(("timeouts", "crashes"), self.accelerator.reduce(lost, "sum"), strict=True):  # type: ignore[attr-defined]
            self._note(f"rlvr/{name}", value)

    def _note(self, name: str, value: Any) -> None:
        mode = "train" if self.model.training else "eval"  # type: ignore[attr-defined]
        self._metrics[mode][name].append(float(value))  # type: ignore[attr-defined]

    # Rollouts

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """TRL's rollouts; their tokens are counted, and their distance from the reference is logged."""
        with self._sampling():
            out: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        count = out["prompt_mask"].sum() + out["completion_mask"].sum()
        self._total_train_tokens += int(self.accelerator.gather(count).sum())  # type: ignore[attr-defined]
        if "old_per_token_logps" in out:
            self._note_kl(out, out["old_per_token_logps"])
        return out

    def _note_kl(self, inputs: Mapping[str, Any], policy: torch.Tensor) -> None:
        if "ref_per_token_logps" in inputs:
            found = advantages.kl(policy, inputs["ref_per_token_logps"], inputs["completion_mask"])
            self._note("rlvr/kl", self.accelerator.gather(found).mean())  # type: ignore[attr-defined]

    @contextmanager
    def _sampling(self) -> Iterator[None]:
        """What can go wrong while sampling, in one line."""
        try:
            with vllm_rollouts.sampling(self.keys):
                yield
        except RuntimeError as error:
            if "probability tensor" not in str(error):  # torch.multinomial's words for NaN, inf or a negative number
                raise
            raise self.not_a_number() from None

    # Resuming

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        made = super()._get_train_sampler(dataset)  # type: ignore[misc]
        return EpochOrder(
            data_source=made.data_source, mini_repeat_count=made.mini_repeat_count, batch_size=made.batch_size,
            repeat_count=made.repeat_count, shuffle=made.shuffle, seed=made.seed,
        )  # fmt: skip

    def _save_rng_state(self, output_dir: str) -> None:
        """Also the rollouts that are still in use, and where in their cycle the stage is: TRL forgets both.

        transformers calls this on every process, after the model was written.
        """
        super()._save_rng_state(output_dir)  # type: ignore[misc]
        held = {"step": self._step, "buffer": self._buffered_inputs}
        torch.save(held, self._held(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        if checkpoint and self._held(checkpoint).is_file():
            # not the accelerator's device: gloo's "cpu:0" cannot be loaded to
            held = torch.load(self._held(checkpoint), map_location="cpu", weights_only=True)
            self._step = held["step"]
            self._buffered_inputs = send_to_device(held["buffer"], self.accelerator.device)  # type: ignore[attr-defined]

    def _held(self, folder: Any) -> Path:
        return Path(folder) / f"rollouts_{self.args.process_index}.pt"  # type: ignore[attr-defined]


class Grpo(Rollouts, GRPOTrainer):
    """GRPO on verified rewards."""

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        found = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._latest = found[0].detach()
        return found

    def _compute_loss(self, model: Any, inputs: Mapping[str, Any]) -> Any:
        loss = super()._compute_loss(model, inputs)
        if "old_per_token_logps" not in inputs:  # the policy is still the one that sampled
            self._note_kl(inputs, self._latest)
        return loss


class Rloo(Rollouts, RLOOTrainer):
    """RLOO on verified rewards; TRL puts the KL, summed over a response, into its reward."""

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        found = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._passes.append(found[0].detach())
        return found

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        self._passes: list[torch.Tensor] = []
        out = super()._generate_and_score_completions(inputs)
        if len(self._passes) == 2:  # the policy's, then the reference's
            self._note_kl({**out, "ref_per_token_logps": self._passes[1]}, self._passes[0])
        return out

    def _compute_loss(self, model: Any, inputs: Mapping[str, Any]) -> Any:
        self._passes = []
        return super()._compute_loss(model, inputs)


def response_text(answer: Any) -> str:
    """The text of a response, as TRL decodes it: a list of one turn, or text."""
    return str(answer[0].get("content") or "") if isinstance(answer, list) else str(answer)


def row_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as the data had it, for the verifier."""
    return {**json.loads(row["extra"]), "messages": row["prompt"], "row": row["row"]}


def call_of(row: Mapping[str, Any], response: str) -> Call:
    """What the verifier is asked."""
    return Call(row["verifier"], response, json.loads(row["truth"]), row_of(row))
