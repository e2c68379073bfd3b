"""The interface of a stage: its keys, its data and its trainer. A new stage is one subclass in one file."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from olmes_suite.errors import UsageError
from olmes_suite.extras import install
from olmes_suite.files import read_json
from olmes_suite.models.local.checkpoint import is_hub_id
from train_plugins.stages import memory, plan, price

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

    from train_plugins.config.recipe import Recipe
    from train_plugins.config.trainer_fields import Table
    from train_plugins.data.encoding import Encoded
    from train_plugins.data.forms import Reads

LANGUAGE_MODELS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
"""Endings of the names of model classes that generate text."""
TRL_LENGTH = 1024
"""TRL's default of max_length."""


class Stage(ABC):
    """A kind of training. Subclasses import TRL inside their methods, so that recipes can be checked without TRL."""

    name: ClassVar[str]
    uses: ClassVar[str]
    """Name of TRL's configuration class, whose fields `trainer:` may name."""
    own: ClassVar[type]
    """Frozen dataclass of the recipe keys under the stage's name."""
    reads: ClassVar[Reads | None] = None
    """What the stage trains on, which decides the forms of data that it accepts; None: rows reach `form` unchanged."""
    masked: ClassVar[bool] = False
    """Whether the chat template must mark the assistant's turns."""
    pooled: ClassVar[bool] = False
    """Whether the model's head reads the last token that is not padding."""
    generates: ClassVar[bool] = True
    """Whether its checkpoints are language models that `olmes eval` can evaluate."""

    def config(self, recipe: Recipe | None = None) -> type:
        """Return TRL's configuration class. Raises UsageError if TRL is not installed."""
        config: type = from_trl(self.uses)
        return config

    def fields(self, recipe: Recipe) -> Table | None:
        """Return what each argument of the configuration class does to the stage; None: as the trainer documents it."""
        return None

    def defaults(self, recipe: Recipe) -> Mapping[str, Any]:
        """Return the trainer arguments that apply unless the recipe sets them."""
        return {}

    def check(self, recipe: Recipe, arguments: Mapping[str, Any]) -> None:
        """Check what the keys' types cannot express, before any data is read. Raises UsageError."""
        return None

    def batch_size(self, recipe: Recipe, arguments: Mapping[str, Any]) -> int | None:
        """Return the rows in one optimiser step over all processes; None: as the trainer's arguments say."""
        return recipe.batch_size

    @abstractmethod
    def form(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Bring a row of the data to the stage's form. Raises ValueError with what is wrong with the row."""

    def row_reader(self, recipe: Recipe) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        """Return the function that reads the recipe's rows: `form`, unless the stage's keys have a say in it."""
        return self.form

    def select(self, recipe: Recipe, rows: Dataset) -> Dataset:
        """Adapt the rows to the stage's keys. Raises UsageError or DataError."""
        return rows

    @abstractmethod
    def encode(
        self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, limit: int | None, processes: int | None
    ) -> Encoded:
        """Encode the rows as token ids; rows over `limit` tokens are cut or dropped."""

    def prepare_tokenizer(
        self, recipe: Recipe, tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any]
    ) -> None:
        """Check the chat template against the stage's keys, before rows are read. Raises UsageError."""
        return None

    def has_engine(self, recipe: Recipe) -> bool:
        """Return whether the trainer holds a vLLM engine that can also answer an evaluation."""
        return False

    def encoder(self, recipe: Recipe) -> Callable[..., Encoded]:
        """Return the function that encodes the recipe's rows: `encode`, unless the stage's keys have a say in it."""
        return self.encode

    def checker(self, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Callable[[dict[str, Any]], None] | None:
        """Return a function that raises an error for a row that the chat template cannot render; None: not checked.

        It is called for data whose bad rows are left out. Elsewhere `encode` names the first such row.
        """
        return None

    def limit(self, recipe: Recipe, arguments: Mapping[str, Any]) -> tuple[str, int | None]:
        """Return the length limit of `encode` as (name of the key, tokens)."""
        return "max_length", arguments.get("max_length", TRL_LENGTH)

    def tokens(self, recipe: Recipe, arguments: Mapping[str, Any]) -> int:
        """Return the number of tokens of the longest row in a forward pass, for the memory estimate."""
        return int(self.limit(recipe, arguments)[1] or TRL_LENGTH)

    def longest_row(self, recipe: Recipe, arguments: Mapping[str, Any]) -> int:
        """Return the tokens of a row that is as long as the limit, as the encoded rows count them."""
        return int(self.limit(recipe, arguments)[1] or TRL_LENGTH)

    def longest(self, encoded: Encoded, arguments: Mapping[str, Any]) -> int:
        """Return the number of tokens of the longest text that the model may see, to compare with its positions."""
        return encoded.longest

    def beside(self, recipe: Recipe) -> tuple[memory.Beside, ...]:
        """Return the models in memory beside the one that the stage starts from, for the memory estimate."""
        return ()

    def plan(self, encoded: Encoded, arguments: Mapping[str, Any], processes: int) -> plan.Plan:
        """Plan the steps and tokens of the stage. Raises DataError if the rows do not fill one batch."""
        count = len(encoded.rows)
        if arguments.get("packing"):
            count = max(-(-encoded.tokens // int(arguments.get("max_length", TRL_LENGTH))), 1)
        return plan.plan(count, encoded.tokens, arguments, processes)

    def price(self, recipe: Recipe, arguments: Mapping[str, Any]) -> price.Passes:
        """Return how often a planned token passes through the model, for the estimate of time."""
        return price.Passes(recomputed=bool(arguments.get("gradient_checkpointing", True)))

    def check_machine(self, recipe: Recipe) -> None:
        """Check that this machine has what the recipe runs on, such as an engine. Raises UsageError."""
        return None

    def watchers(self, recipe: Recipe, output: Path) -> tuple[Any, ...]:
        """Return the callbacks for a run's first process that are also plugins of the stage."""
        return ()

    @abstractmethod
    def trainer(
        self, recipe: Recipe, args: TrainingArguments, rows: Dataset, tokenizer: PreTrainedTokenizerBase
    ) -> Trainer:
        """Return TRL's trainer for the encoded rows, with `Watched` mixed in. `args` is an instance of `config()`."""

    def extra_arguments(self, recipe: Recipe) -> Mapping[str, Any]:
        """Return the configuration's arguments that follow from the stage's keys."""
        return {}


def from_trl(name: str) -> Any:
    """Return a class of TRL. Raises UsageError, which names the extra to install, if TRL is missing."""
    try:
        return getattr(importlib.import_module("trl"), name)
    except ImportError as error:
        raise UsageError(f"training needs TRL ({error}): {install('train')}") from None


def is_classifier(model: str) -> bool | None:
    """Return whether the checkpoint is a sequence classifier; None if its configuration is not on this machine."""
    names = architectures(model)
    return None if names is None else any(name.endswith("ForSequenceClassification") for name in names)


def check_language_model(model: str) -> None:
    """Raise UsageError for a checkpoint whose class has no language modelling head."""
    if is_classifier(model):
        raise UsageError(f"{model}: a sequence classifier (a reward model?), not a language model")
    names = architectures(model) or []
    if names and not any(name.endswith(LANGUAGE_MODELS) for name in names):
        raise UsageError(f"{model}: a {names[0]}, not a language model; give a checkpoint that generates text")


def architectures(model: str) -> list[str] | None:
    """Return the classes that the checkpoint's configuration names; None if it is not on this machine.

    Raises DataError.
    """
    file = Path(model).expanduser() / "config.json"
    if is_hub_id(model):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(model, "config.json")
        if not isinstance(cached, str):
            return None
        file = Path(cached)
    if not file.is_file():
        return None
    config = read_json(file)
    return [str(name) for name in config.get("architectures") or []] if isinstance(config, dict) else []
