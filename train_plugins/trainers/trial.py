"""A trial of the trainer's arguments on a model of one number, before the stage's own model is loaded.

What the configuration, the optimiser, the schedule and the loggers refuse is found here, so that the error names the
argument. Later the same error would be a traceback, or would seem to be the checkpoint's.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from olmes_suite.devices import has_gpu
from olmes_suite.errors import OlmesError, UsageError, one_line
from olmes_suite.trackers import factory as trackers
from train_plugins import distributed

if TYPE_CHECKING:
    from torch import nn
    from transformers import Trainer, TrainingArguments

STEPS = 1000
"""Length of the trial's schedule, if the recipe has no `max_steps`."""
LOW_RANK = ("galore", "apollo")
"""Beginnings of the names of optimisers that read `optim_target_modules`."""
COMPILERS = ("c++", "g++", "clang++", "cl")


def check(args: TrainingArguments, given: Collection[str]) -> None:
    """Raise UsageError for arguments with which training could not start, or that have no effect beside the others.

    `given` are the names of the arguments that the recipe sets.
    """
    _check_machine(args)
    _check_recomputation(args)
    _check_schedule(args, given)
    if distributed.is_sharded():  # optimiser and schedule may belong to FSDP or DeepSpeed
        return
    with tempfile.TemporaryDirectory(prefix="olmes-trial-") as folder:
        args = copy.copy(args)
        args.output_dir, args.full_determinism, args.push_to_hub = folder, False, False
        with _explained("trainer"):
            trainer = _trainer(args)
        _check_optimizer(trainer, given)


def _check_machine(args: TrainingArguments) -> None:
    """Raise UsageError for what this machine lacks."""
    if args.fp16 and args.device.type == "cpu":  # accelerate would compute in 32 bits without a word
        raise UsageError("trainer.fp16 needs a GPU; remove it, or use bf16 with use_cpu: true")
    if args.use_liger_kernel and find_spec("liger_kernel") is None:
        raise UsageError("trainer.use_liger_kernel needs liger-kernel: pip install liger-kernel")
    if getattr(args, "activation_offloading", False) and not has_gpu():
        raise UsageError("trainer.activation_offloading moves activations from a GPU, and there is none; remove it")
    _check_trackers(args)
    if args.torch_compile:
        from torch import _dynamo

        backends = _dynamo.list_backends(exclude_tags=())
        if args.torch_compile_backend not in backends:
            raise UsageError(
                f"trainer.torch_compile_backend {args.torch_compile_backend!r} is none of {', '.join(backends)}"
            )
        if args.torch_compile_backend == "inductor" and not any(map(shutil.which, COMPILERS)):
            raise UsageError("trainer.torch_compile needs a C++ compiler, and there is none here; install g++")


def _check_trackers(args: TrainingArguments) -> None:
    """Raise UsageError for a tracker whose client is missing or has no account, which would end the first step."""
    for name in args.report_to:
        other = name == "tensorboard" and find_spec("tensorboardX") is not None
        if name in trackers.BUILT_IN and not other:
            trackers.check(name, "trainer.report_to")


def _check_recomputation(args: TrainingArguments) -> None:
    """Raise UsageError for keywords that torch's checkpointing would refuse in the first pass."""
    import inspect

    from torch.utils.checkpoint import checkpoint

    known = {*inspect.signature(checkpoint).parameters, "preserve_rng_state", "selective"} - {
        "function",
        "args",
        "kwargs",
    }
    for name in args.gradient_checkpointing_kwargs or {}:
        if name not in known:
            raise UsageError(
                f"trainer.gradient_checkpointing_kwargs: unknown key {name!r}; known: {', '.join(sorted(known))}"
            )


def _check_schedule(args: TrainingArguments, given: Collection[str]) -> None:
    """Raise UsageError for arguments that transformers' schedules ignore silently."""
    name = str(args.lr_scheduler_type.value)
    if name == "constant" and "warmup_steps" in given and args.warmup_steps:
        raise UsageError(
            f"trainer.warmup_steps {args.warmup_steps} has no effect with lr_scheduler_type: constant; use "
            "constant_with_warmup"
        )
    if name in ("constant", "constant_with_warmup") and args.lr_scheduler_kwargs:
        raise UsageError(f"trainer.lr_scheduler_kwargs has no effect with lr_scheduler_type: {name}; remove it")


def _trainer(args: TrainingArguments) -> Trainer:
    """Return transformers' trainer of a model of one number."""
    import torch
    from transformers import PretrainedConfig, Trainer

    class Number(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = PretrainedConfig()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, input_ids: Any = None, labels: Any = None) -> Any:
            return self.weight

    return Trainer(model=Number(), args=args)


def _check_optimizer(trainer: Trainer, given: Collection[str]) -> None:
    """Build the optimiser and the schedule, and compute some of its learning rates. Raises UsageError."""
    args: TrainingArguments = trainer.args
    name = str(args.optim.value)
    if not name.startswith(LOW_RANK) and args.optim_target_modules:
        raise UsageError(f"trainer.optim_target_modules has no effect with optim: {name}; remove it")
    for part in (args.optim_args or "").replace(" ", "").split(","):
        if args.optim_args and part.count("=") != 1:
            raise UsageError(
                f"trainer.optim_args {args.optim_args!r}: expected key=value pairs with commas between them"
            )
    with _explained(f"trainer.optim {name}"):
        if name.startswith(LOW_RANK):  # its targets are modules of the model; the packages are checked
            _low_rank(args, trainer.model)
            return
        _check_read(args, trainer.model, given)
        optimizer: Any = trainer.create_optimizer()
    steps = args.max_steps if args.max_steps > 0 else STEPS
    with _explained(f"trainer.lr_scheduler_type {args.lr_scheduler_type.value}"):
        schedule = trainer.create_scheduler(steps, optimizer)
        for shape in getattr(schedule, "lr_lambdas", ()):
            for step in range(0, steps, max(steps // 10, 1)):
                shape(step)


def _low_rank(args: TrainingArguments, model: nn.Module) -> None:
    from transformers import Trainer

    try:
        Trainer.get_optimizer_cls_and_kwargs(args, model)
    except ValueError as error:
        if "No target modules found" not in str(error):
            raise


def _check_read(args: TrainingArguments, model: nn.Module, given: Collection[str]) -> None:
    """Raise UsageError for arguments that the optimiser does not read: without them it would be the same."""
    from transformers import Trainer

    def build(**changes: Any) -> tuple[Any, dict[str, Any]]:
        other = copy.copy(args)
        for name, value in changes.items():
            setattr(other, name, value)
        kind, keywords = Trainer.get_optimizer_cls_and_kwargs(other, model)
        return kind, dict(keywords)

    name, whole = args.optim.value, build()
    for one, other in (("adam_beta1", 0.123), ("adam_beta2", 0.123), ("adam_epsilon", 0.123)):
        if one in given and build(**{one: other}) == whole:
            raise UsageError(f"trainer.{one} has no effect with optim: {name}; remove it")
    parts = [part for part in (args.optim_args or "").split(",") if part]
    for part in parts:
        rest = ",".join(one for one in parts if one is not part) or None
        if build(optim_args=rest) == whole:
            raise UsageError(f"trainer.optim_args: {part.strip()!r} has no effect with optim: {name}; remove it")


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Convert whatever the libraries raise for arguments to one line. Raises UsageError."""
    try:
        yield
    except OlmesError:
        raise
    except Exception as error:  # dozens of types: transformers', torch's, those of optimisers' packages
        raise UsageError(f"{where}: {one_line(error, 300)}") from None
