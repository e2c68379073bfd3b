"""The part that GRPO, RLOO and PPO share on top of TRL: verified rewards, metrics, and exact resuming."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import is_peft_model, send_to_device
from trl import GRPOTrainer, RLOOTrainer
from trl.trainer.utils import RepeatSampler, split_tensor_dict

from olmes_suite.errors import StageRefused
from train_plugins.rl import advantages, answers, vllm_rollouts, watching
from train_plugins.rl.active_sampling import EPOCH_STRIDE, ActiveSampling
from train_plugins.rl.rewards import Rewards, Scored
from train_plugins.rl.tool_rollouts import ToolRollouts
from train_plugins.trainers import dropout, lora
from train_plugins.trainers.callbacks import Watched
from train_plugins.verifiers import Verifiers

if TYPE_CHECKING:
    from datasets import Dataset
    from torch.utils.data import Sampler
    from transformers.trainer_utils import TrainOutput

    from train_plugins.rl.keys import RlvrKeys

HOPELESS = 8
"""Number of consecutive rollouts without a signal after which a stage stops."""


@contextmanager
def drawing(not_a_number: Callable[[], StageRefused]) -> Iterator[None]:
    """Raise the error `not_a_number()` for draws in the block from weights with NaN, inf or negative numbers."""
    draw = torch.multinomial

    def checked(weights: torch.Tensor, *args: Any, **keywords: Any) -> torch.Tensor:
        try:
            return draw(weights, *args, **keywords)
        except RuntimeError:
            if bool((torch.isfinite(weights) & (weights >= 0)).all()):
                raise
            raise not_a_number() from None

    torch.multinomial = checked
    try:
        yield
    finally:
        torch.multinomial = draw


def verified(*_: Any, **__: Any) -> list[float | None]:
    """Name the reward in TRL's log; `Rollouts._calculate_rewards` computes it."""
    raise NotImplementedError


NOTHING_LEARNT = (
    "warning: the rewards taught nothing: in each of the {} rollouts no response ended by itself, or all responses to "
    "a prompt got the same reward"
)


class EpochOrder(RepeatSampler):
    """TRL's sampler with a seed for each epoch, so that a resumed stage draws the same order again.

    TRL's sampler draws all epochs from one generator; a resumed stage would restart it and repeat the first epoch.
    """

    def set_epoch(self, epoch: int) -> None:
        """Seed the order of an epoch; transformers' trainer calls this before each one."""
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) + EPOCH_STRIDE * epoch)


class Rollouts(Watched):
    """Mixin for TRL's sampling trainers, placed before them. `keys`: the recipe's keys under `rlvr`."""

    def __init__(self, *args: Any, keys: RlvrKeys, **kwargs: Any) -> None:
        self.keys = keys
        self.rewards = Rewards.of(keys)
        self.names = self.rewards.verifiers(set(kwargs["train_dataset"]["verifier"]))
        self.verifiers: Verifiers
        self.scores = self.facts = torch.zeros(0)
        self.hopeless = 0
        """Number of rollouts without a signal, up to the last one."""
        self.rollouts = 0
        self.watch = watching.Watch()
        self._total_train_tokens = 0
        super().__init__(*args, reward_funcs=verified, **kwargs)  # type: ignore[call-arg]
        arguments = getattr(self.args, "chat_template_kwargs", None)  # type: ignore[attr-defined]
        self.answers = answers.Answers(self.processing_class, keys, arguments)  # type: ignore[attr-defined]
        for model in (self.model, getattr(self, "ref_model", None)):  # type: ignore[attr-defined]
            if model is not None and self.args.disable_dropout:  # type: ignore[attr-defined]
                dropout.switch_off(model)
        self.add_callback(watching.Stop(lambda: self.watch, keys.watch))  # type: ignore[attr-defined]
        self.adapted: bool = is_peft_model(self.model)  # type: ignore[attr-defined]
        if self.adapted and self.use_vllm:  # type: ignore[attr-defined]
            self.vllm_generation._iter_named_params = lambda: lora.merged(self.model)  # type: ignore[attr-defined]

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train while the verifiers' workers run."""
        processes = self.args.world_size  # type: ignore[attr-defined]
        with Verifiers(
            self.names, self.keys.workers, self.keys.timeout, judge=self.keys.judge, processes=processes
        ) as self.verifiers:
            self._check_truths()
            done: TrainOutput = super().train(*args, **kwargs)  # type: ignore[misc]
        if self.hopeless and self.hopeless == self.rollouts and self.is_world_process_zero():  # type: ignore[attr-defined]
            print(NOTHING_LEARNT.format(self.rollouts), file=sys.stderr)
        return done

    # Rewards

    def _check_truths(self) -> None:
        """Check every row's ground truth before the first rollout, shared among processes. Raises VerifierFailed."""
        args = self.args  # type: ignore[attr-defined]
        rows = self.train_dataset.select_columns(["verifier", "truth", "extra", "row", "prompt"])  # type: ignore[attr-defined]
        share = rows.select(range(args.process_index, len(rows), args.world_size))
        calls = [call for row in share for call in self.rewards.calls(row, "", (), None)]
        self.verifiers.check_truths([call for call in calls if call is not None])

    def _calculate_rewards(
        self, inputs: Sequence[Mapping[str, Any]], prompts: Any, completions: Sequence[Any],
        completion_ids_list: Sequence[Sequence[int]],
    ) -> torch.Tensor:  # fmt: skip
        """Return the scores (responses of all processes, 1), NaN for a skipped row.

        Raises StageRefused if all rows are skipped.
        """
        timeouts, crashes = self.verifiers.timeouts, self.verifiers.crashes
        texts = [response_text(answer) for answer in completions]
        scored = self.rewards.score(self.verifiers, inputs, texts, completion_ids_list, self.answers)
        self._note_lost(self.verifiers.timeouts - timeouts, self.verifiers.crashes - crashes)
        self._note_judge()
        facts = []
        given = self._environment_rewards() or [None] * len(scored)
        for one, ids, more in zip(scored, completion_ids_list, given, strict=True):
            ended = bool(ids) and ids[-1] in self.eos_token_ids  # type: ignore[attr-defined]
            score = advantages.score(one.total, ended, self.keys.reward, self.keys.no_eos_penalty)
            score = more if score is None else score + (more or 0.0)
            values = [one.rewards.get(name) for name in self.rewards.named]
            values += [one.verifiers.get(name) for name in self.names]
            numbers = (score, one.verified, ended, len(ids), *values)
            facts.append([float("nan") if number is None else float(number) for number in numbers])
        here = torch.tensor(facts, device=self.accelerator.device)  # type: ignore[attr-defined]
        everywhere = self.accelerator.gather(here)  # type: ignore[attr-defined]
        self.scores, self.facts = here[:, 0], everywhere
        self._check_verdicts(everywhere)
        self._note_rewards(everywhere)
        self._watch(everywhere, inputs, scored)
        self._stop_without_signal(everywhere)
        return everywhere[:, :1]

    def _environment_rewards(self) -> list[float | None]:
        """Return the rewards that environments add to the scores; empty without environments."""
        return []

    def _watch(self, facts: torch.Tensor, inputs: Sequence[Mapping[str, Any]], scored: Sequence[Scored]) -> None:
        """Add the rollout of all processes to the watch, and show what it names."""
        mine = [[int(row["row"]), watching.answer_hash(one.answer)] for row, one in zip(inputs, scored, strict=True)]
        device = self.accelerator.device  # type: ignore[attr-defined]
        given = self.accelerator.gather(torch.tensor(mine, dtype=torch.int64, device=device)).tolist()  # type: ignore[attr-defined]
        group = self.num_generations  # type: ignore[attr-defined]
        rollout = watching.statistics(
            self.state.global_step + 1, given, facts[:, :3].tolist(),  # type: ignore[attr-defined]
            flat=advantages.without_signal(facts[:, 0], group) if group > 1 else None,
            thinks=self.answers.thoughts is not None,
        )  # fmt: skip
        for name in ("unclosed", "repeated"):
            if (share := getattr(rollout, name)) is not None:
                self._note(f"rlvr/{name}", share)
        for alarm in self.watch.add(rollout):
            if self.is_world_process_zero():  # type: ignore[attr-defined]
                print(alarm.line, file=sys.stderr)

    def _check_verdicts(self, facts: torch.Tensor) -> None:
        """Raise StageRefused if no response has a verdict."""
        if facts[:, 0].isnan().all():
            raise StageRefused(
                f"the verifiers ({', '.join(self.names)}) gave no verdict on any of {len(facts)} responses; "
                "check the rows' ground_truth"
            )

    def _stop_without_signal(self, facts: torch.Tensor) -> None:
        """Raise StageRefused after `HOPELESS` consecutive rollouts whose rewards give no gradient."""
        group = self.num_generations  # type: ignore[attr-defined]
        endless = self.keys.no_eos_penalty is not None and not bool(facts[:, 2].any())
        flat = group > 1 and float(advantages.without_signal(facts[:, 0], group)) == 1.0
        self.rollouts += 1
        self.hopeless = self.hopeless + 1 if endless or flat else 0
        if self.hopeless < HOPELESS:
            return
        if endless:
            raise StageRefused(
                f"in {HOPELESS} rollouts in a row no response ended by itself, so each got the no_eos_penalty; "
                "check that the checkpoint writes the tokenizer's end-of-text, and raise trainer.max_completion_length"
            )
        raise StageRefused(
            f"in {HOPELESS} rollouts in a row all {group} responses to each prompt got the same reward, so there is "
            "nothing to learn from; check the verifiers, the prompts' difficulty and trainer.temperature"
        )

    def _note_rewards(self, facts: torch.Tensor) -> None:
        """Log the rewards; the columns of `facts` (responses, 4 + rewards + verifiers) are score, verified fraction,
        ended, length, then the value of each reward and of each verifier.
        """
        self._note("rlvr/verified", facts[:, 1].nanmean())
        columns = [*(f"rlvr/rewards/{name}" for name in self.rewards.named)]
        columns += [f"rlvr/verified/{name}" for name in self.names]
        for column, name in zip(facts[:, 4:].T, columns, strict=True):
            if not bool(column.isnan().all()) and (self.keys.rewards is not None or "/verified/" in name):
                self._note(name, column.nanmean())
        self._note("rlvr/eos_rate", facts[:, 2].mean())
        self._note("rlvr/length", facts[:, 3].mean())
        if self.num_generations > 1:  # type: ignore[attr-defined]
            self._note("rlvr/no_signal", advantages.without_signal(facts[:, 0], self.num_generations))  # type: ignore[attr-defined]

    def _note_lost(self, timeouts: int, crashes: int) -> None:
        """Log how many verdicts of this rollout ran out of time or ended their process, over all processes."""
        lost = torch.tensor([float(timeouts), float(crashes)], device=self.accelerator.device)  # type: ignore[attr-defined]
        for name, value in zip(("timeouts", "crashes"), self.accelerator.reduce(lost, "sum"), strict=True):  # type: ignore[attr-defined]
            self._note(f"rlvr/{name}", value)

    def _note_judge(self) -> None:
        """Log what the judge has cost in this rollout: sums over all processes, but the longest time."""
        if self.verifiers.judges is None:
            return
        spent = asdict(self.verifiers.judges.take())
        seconds = torch.tensor(spent.pop("seconds"), device=self.accelerator.device)  # type: ignore[attr-defined]
        sums = torch.tensor(list(spent.values()), device=self.accelerator.device)  # type: ignore[attr-defined]
        for name, value in zip(spent, self.accelerator.reduce(sums, "sum"), strict=True):  # type: ignore[attr-defined]
            self._note(f"rlvr/judge/{name}", value)
        self._note("rlvr/judge/seconds", self.accelerator.gather(seconds).max())  # type: ignore[attr-defined]

    def _note(self, name: str, value: float | torch.Tensor) -> None:
        mode = "train" if self.model.training else "eval"  # type: ignore[attr-defined]
        self._metrics[mode][name].append(float(value))  # type: ignore[attr-defined]

    # Rollouts

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Count the tokens of TRL's rollouts, and log their KL divergence from the reference."""
        with self._sampling():
            out: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        count = out["prompt_mask"].sum() + out["completion_mask"].sum()
        self._total_train_tokens += int(self.accelerator.gather(count).sum())  # type: ignore[attr-defined]
        if "old_per_token_logps" in out:
            self._note_kl(out, out["old_per_token_logps"])
        return out

    def _note_kl(self, inputs: Mapping[str, Any], policy: torch.Tensor) -> None:
        if "ref_per_token_logps" in inputs:
            divergence = advantages.kl(policy, inputs["ref_per_token_logps"], inputs["completion_mask"])
            self._note("rlvr/kl", self.accelerator.gather(divergence).mean())  # type: ignore[attr-defined]

    @contextmanager
    def _sampling(self) -> Iterator[None]:
        """Convert errors while sampling to one line. Raises StageRefused."""
        with vllm_rollouts.sampling(self.keys), drawing(self.not_a_number):
            yield

    # Resuming

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler[int]:
        sampler = super()._get_train_sampler(dataset)  # type: ignore[misc]
        return EpochOrder(
            data_source=sampler.data_source, mini_repeat_count=sampler.mini_repeat_count, batch_size=sampler.batch_size,
            repeat_count=sampler.repeat_count, shuffle=sampler.shuffle, seed=sampler.seed,
        )  # fmt: skip

    def _save_rng_state(self, output_dir: str) -> None:
        """Also save the rollouts still in use and the step within their cycle, which TRL does not save.

        transformers calls this method on every process after the model was written.
        """
        super()._save_rng_state(output_dir)  # type: ignore[misc]
        torch.save(self._rollout_state(), self._rollouts_file(output_dir))

    def _rollout_state(self) -> dict[str, Any]:
        rows = self.args.per_device_train_batch_size  # type: ignore[attr-defined]
        return {"step": self._step, "buffer": self._buffered_inputs, "rows": rows, "watch": self.watch.as_data()}

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        if checkpoint and self._rollouts_file(checkpoint).is_file():
            # not to the accelerator's device: torch cannot load to gloo's "cpu:0"
            self._take_rollout_state(torch.load(self._rollouts_file(checkpoint), map_location="cpu", weights_only=True))

    def _take_rollout_state(self, state: Mapping[str, Any]) -> None:
        now = self.args.per_device_train_batch_size  # type: ignore[attr-defined]
        self._step = state["step"] * state.get("rows", now) // now
        self.watch = watching.Watch.from_data(state.get("watch", {}))
        buffer = state["buffer"]
        if buffer is not None and state.get("rows", now) != now:
            buffer = regrouped(buffer, self.args.steps_per_generation)  # type: ignore[attr-defined]
        self._buffered_inputs = send_to_device(buffer, self.accelerator.device)  # type: ignore[attr-defined]

    def _rollouts_file(self, folder: str) -> Path:
        return Path(folder) / f"rollouts_{self.args.process_index}.pt"  # type: ignore[attr-defined]


class Grpo(ActiveSampling, ToolRollouts, Rollouts, GRPOTrainer):
    """GRPO on verified rewards, with tools, environments, and active sampling if the keys ask for them."""

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        outputs = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._latest = outputs[0].detach()
        return outputs

    def _compute_loss(self, model: torch.nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor:
        loss = super()._compute_loss(model, inputs)
        if "old_per_token_logps" not in inputs:  # the policy has not changed since it sampled
            self._note_kl(inputs, self._latest)
        return loss


class Rloo(Rollouts, RLOOTrainer):
    """RLOO on verified rewards; TRL adds the KL, summed over a response, to its reward."""

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        outputs = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._passes.append(outputs[0].detach())
        return outputs

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._passes: list[torch.Tensor] = []
        out = super()._generate_and_score_completions(inputs)
        if len(self._passes) == 2:  # the policy's pass, then the reference's
            self._note_kl({**out, "ref_per_token_logps": self._passes[1]}, self._passes[0])
        return out

    def _compute_loss(self, model: torch.nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor:
        self._passes = []
        return super()._compute_loss(model, inputs)


def regrouped(passes: Sequence[Mapping[str, Any]], count: int) -> list[dict[str, Any]]:
    """Split a rollout, which was split for passes of another size, into `count` passes."""
    whole = {}
    for name, first in passes[0].items():
        parts = [one[name] for one in passes]
        if isinstance(first, torch.Tensor) and first.ndim:
            whole[name] = torch.cat(parts)
        else:
            whole[name] = [row for part in parts for row in part] if isinstance(first, list) else first
    return split_tensor_dict(whole, count)


def response_text(answer: Any) -> str:
    """Return the text of a response, which TRL decodes as a list of one turn or as text."""
    return str(answer[0].get("content") or "") if isinstance(answer, list) else str(answer)
