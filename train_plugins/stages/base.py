"""What a stage is: its keys, its data, its trainer. A new stage is one subclass in one file."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from olmes_suite.errors import UsageError
from olmes_suite.files import read_json
from olmes_suite.models.local.checkpoint import is_hub_id
from olmes_suite.plugins import install
from train_plugins.stages import memory, plan

if TYPE_CHECKING:
    from train_plugins.config.recipe import Recipe
    from train_plugins.data.encoding import Encoded

LANGUAGE_MODELS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
"""How the names of classes end that generate text."""
TRL_LENGTH = 1024
"""TRL's default of max_length."""


class Stage(ABC):
    """One kind of training. Subclasses import TRL inside their methods, so that a recipe is checked without it."""

    name: ClassVar[str]
    uses: ClassVar[str]
    """Name of TRL's configuration class, whose fields `trainer:` may name."""
    own: ClassVar[type]
    """Frozen dataclass of the recipe's keys under the stage's name."""
    masked: ClassVar[bool] = False
    """The chat template must mark the assistant's turns."""
    pooled: ClassVar[bool] = False
    """Its head reads the last token that is no padding."""
    generates: ClassVar[bool] = True
    """Its checkpoints are language models that `olmes eval` can ask."""

    def config(self, recipe: Recipe | None = None) -> type:
        """TRL's configuration class. Raises UsageError where TRL is not installed."""
        found: type = from_trl(self.uses)
        return found

    def defaults(self, recipe: Recipe) -> Mapping[str, Any]:
        """Trainer arguments where the recipe gives none."""
        return {}

    def check(self, recipe: Recipe, arguments: Mapping[str, Any]) -> None:
        """What the types of the keys do not say, before any data is read. Raises UsageError."""
        return None

    @abstractmethod
    def form(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row of the data in the stage's form. Raises ValueError saying what is wrong with it."""

    def select(self, recipe: Recipe, rows: Any) -> Any:
        """The rows as the stage's own keys want them. Raises UsageError or DataError."""
        return rows

    @abstractmethod
    def encode(self, rows: Any, tokenizer: Any, limit: int | None, processes: int | None) -> Encoded:
        """The rows in token ids, cut or dropped at `limit` tokens."""

    def limit(self, recipe: Recipe, arguments: Mapping[str, Any]) -> tuple[str, int | None]:
        """(name of the key, tokens): the length limit of `encode`."""
        return "max_length", arguments.get("max_length", TRL_LENGTH)

    def tokens(self, recipe: Recipe, arguments: Mapping[str, Any]) -> int:
        """Tokens of the longest row that a forward pass sees, for the estimate of the memory."""
        return int(self.limit(recipe, arguments)[1] or TRL_LENGTH)

    def beside(self, recipe: Recipe) -> tuple[memory.Beside, ...]:
        """The models in memory beside the one that the stage starts from, for the same estimate."""
        return ()

    def plan(self, encoded: Encoded, arguments: Mapping[str, Any], processes: int) -> plan.Plan:
        """Steps and tokens of the stage. Raises DataError where the rows do not fill one batch."""
        count = len(encoded.rows)
        if arguments.get("packing"):
            count = max(-(-encoded.tokens // int(arguments.get("max_length", TRL_LENGTH))), 1)
        return plan.plan(count, encoded.tokens, arguments, processes)

    def watchers(self, recipe: Recipe, output: Path) -> tuple[Any, ...]:
        """Callbacks of the trainer that are plugins of the stage too, made anew for each run on its first process."""
        return ()

    @abstractmethod
    def trainer(self, recipe: Recipe, args: Any, rows: Any, tokenizer: Any) -> Any:
        """TRL's trainer for the encoded rows, `Watched` mixed in. `args` is an instance of `config()`."""

    def extra_arguments(self, recipe: Recipe) -> Mapping[str, Any]:
        """Arguments of the configuration that follow from the stage's own keys."""
        return {}


def from_trl(name: str) -> Any:
    """A class of TRL. Raises UsageError naming the extra where TRL is not installed."""
    try:
        return getattr(importlib.import_module("trl"), name)
    except ImportError as error:
        raise UsageError(f"training needs TRL ({error}): {install('train')}") from None


def is_classifier(model: str) -> bool | None:
    """The checkpoint is a sequence classifier; None where its configuration is not on this machine."""
    names = architectures(model)
    return None if names is None else any(name.endswith("ForSequenceClassification") for name in names)


def check_language_model(model: str) -> None:
    """Raise UsageError for a checkpoint whose class has no language model's head."""
    if is_classifier(model):
        raise UsageError(f"{model}: a sequence classifier (a reward model?), not a language model")
    names = architectures(model) or []
    if names and not any(name.endswith(LANGUAGE_MODELS) for name in names):
        raise UsageError(f"{model}: a {names[0]}, not a language model; give a checkpoint that generates text")


def architectures(model: str) -> list[str] | None:
    """The classes that the checkpoint's configuration names; None where it is not on this machine. Raises DataError."""
    file = Path(model).expanduser() / "config.json"
    if is_hub_id(model):
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(model, "config.json")
        if not isinstance(found, str):
            return None
        file = Path(found)
    if not file.is_file():
        return None
    config = read_json(file)
    return [str(name) for name in config.get("architectures") or []] if isinstance(config, dict) else []
