"""The keys under `eval` of a recipe: how a stage's checkpoints are evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from olmes_suite.errors import UsageError
from olmes_suite.tasks import catalog, suites
from olmes_suite.tasks.settings import Settings, system_text
from train_plugins.config.plain import UNSET


@dataclass(frozen=True, slots=True)
class UntilDecided:
    """Keys under `eval.until_decided`: checkpoints are asked until the gate is decided, by the rules of `gate`."""

    baseline: str = "parent"
    """`parent`, the checkpoint that the stage starts from, which is evaluated on all documents first; or a run."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Keys under `eval`: the evaluation of the stage's checkpoints by `olmes eval`."""

    suite: str | None = None
    """A suite's name or file."""
    tasks: tuple[str, ...] = ()
    """Tasks or groups, beside or instead of a suite."""
    limit: int | None = None
    """Number of documents of every leaf task."""
    every: int | None = None
    """Number of steps between evaluations (and saves); None: only the last checkpoint is evaluated."""
    data_dir: tuple[str, ...] = ()
    """Mirrors of the benchmark data."""
    data: Literal["sample"] | None = field(default=None, metadata=UNSET)
    """`sample`: the few documents that ship with each task, to try a recipe out; their scores say nothing."""
    missing: Literal["skip"] | None = field(default=None, metadata=UNSET)
    """`skip`: tasks without documents have no score, and the others go on. None: they stop the stage."""
    include_path: tuple[str, ...] = ()
    """Folders of the user's own task files."""
    runs: str = "runs"
    """Folder of the runs and of the ledger of looks at the unseen suite."""
    device: Literal["same", "endpoint"] | int | None = None
    """Where checkpoints are evaluated: `same`, on the trainer's GPU, while its model and optimiser wait in CPU memory;
    a GPU's number; `endpoint`, an OpenAI-compatible server. None: beside the training, on the same devices."""
    engine: Literal["live"] | None = field(default=None, metadata=UNSET)
    """What answers: `live`, the vLLM engine that samples rollouts, between two steps (rlvr with vllm_colocate); tasks
    that exceed its context are answered from the checkpoint's folder. None: an engine that loads the folder."""
    base_url: str | None = None
    """URL of the endpoint, which must serve a checkpoint under its folder's path."""
    judge: str | None = None
    """This key and the next four name the models that score, as the options of `olmes eval` do."""
    judge_base_url: str | None = None
    classifier: str | None = None
    classifier_base_url: str | None = None
    encoder: str | None = None
    profile: str | None = None
    """Settings that a model's makers recommend: a profile's name or file. This key and the next four are options of
    `olmes eval`."""
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict)
    samples: int | None = None
    system: str | None = None
    chat_template_args: Mapping[str, Any] = field(default_factory=dict)
    until_decided: UntilDecided | None = field(default=None, metadata=UNSET)
    """Ask documents until the gate is decided."""


def check_evaluation(evaluation: Evaluation, final: bool, where: str) -> None:
    """Check names and numbers, and that only a final stage evaluates the unseen suite. Raises UsageError."""
    if evaluation.suite is None and not evaluation.tasks:
        raise UsageError(f"{where}: eval: name a `suite` or `tasks`")
    for name, value in (("limit", evaluation.limit), ("every", evaluation.every)):
        if value is not None and value < 1:
            raise UsageError(f"{where}: eval.{name} must be at least 1, not {value}")
    for name, folders in (("include_path", evaluation.include_path), ("data_dir", evaluation.data_dir)):
        for folder in folders:
            if not Path(folder).is_dir():
                raise UsageError(f"{where}: eval.{name} {folder}: no such folder")
    try:
        Settings.of(
            profile=evaluation.profile, gen_kwargs=evaluation.gen_kwargs, samples=evaluation.samples,
            system=system_text(evaluation.system), chat_template_args=evaluation.chat_template_args,
        )  # fmt: skip
    except UsageError as error:
        raise UsageError(f"{where}: eval: {error}") from None
    if evaluation.until_decided is not None:
        _check_until_decided(evaluation, where)
    if (evaluation.device == "endpoint") != (evaluation.base_url is not None):
        raise UsageError(f"{where}: eval: `device: endpoint` and `base_url` belong together")
    if evaluation.engine == "live" and evaluation.device is not None:
        raise UsageError(f"{where}: eval: `engine: live` answers in the training's own engine; remove `device`")
    unseen = unseen_in(evaluation)
    if unseen and not final:
        raise UsageError(
            f"{where}: eval names {len(unseen)} tasks of the unseen suite or of its kind ({unseen[0]}), which is for "
            "the end; evaluate on dev, or set `final: true`"
        )
    if unseen and evaluation.every is not None:
        raise UsageError(
            f"{where}: eval.every would show the unseen suite to every checkpoint; only the last may see it, remove it"
        )


def _check_until_decided(evaluation: Evaluation, where: str) -> None:
    """Raise UsageError for keys that exclude `until_decided`."""
    if evaluation.suite is None or evaluation.tasks or evaluation.limit is not None:
        raise UsageError(f"{where}: eval.until_decided takes a `suite`, without `tasks` and `limit`")
    if unseen := unseen_in(evaluation):
        raise UsageError(
            f"{where}: eval.until_decided also evaluates the checkpoint that the stage starts from, but eval names "
            f"{unseen[0]} of the unseen suite; final numbers come from all documents, remove the key"
        )


def unseen_in(evaluation: Evaluation) -> list[str]:
    """Return the named tasks that belong to the unseen suite, or are variants or siblings. Raises UsageError."""
    names = [entry.task for entry in suites.load(evaluation.suite).tasks] if evaluation.suite else []
    with catalog.including(map(Path, evaluation.include_path)):
        names += [catalog.find(name).name for name in evaluation.tasks]
        return sorted({name for name in names if suites.asks_unseen(name)})
