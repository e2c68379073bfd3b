"""Recipes: the model, data and settings of a stage, read from YAML into frozen dataclasses.

Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from olmes_suite import yaml_files
from olmes_suite.comparison import gate_rules
from olmes_suite.errors import UsageError, WrongKey
from olmes_suite.tasks import index, suites
from olmes_suite.yaml_files import INNER, Place, YamlFile
from train_plugins.config import sections, trainer_fields, trainer_values
from train_plugins.config.evaluation import Evaluation, check_evaluation, unseen_in
from train_plugins.config.plain import UNSET, plain

SHIPPED = Path(__file__).parent.parent / "recipes"


Form = Literal["messages", "sharegpt", "alpaca", "prompt", "transcript", "llamafactory", "hermes", "xlam"]
"""Forms of training rows; `data.forms` reads them."""


@dataclass(frozen=True, slots=True)
class DataEntry:
    """One training set: a file or folder (`path`), or a data set on the Hub (`hub`)."""

    path: str | None = None
    """A file of rows, a folder of such files, or a folder that `save_to_disk` wrote."""
    hub: str | None = None
    """A data set on the Hub, by its id."""
    split: str = "train"
    """Split of a Hub data set, or of a folder with splits."""
    limit: int | None = None
    """Number of rows to read from the start."""
    form: Form | None = field(default=None, metadata=UNSET)
    """Form of the rows; None: detected row by row."""
    bad_rows: Literal["error", "skip"] = field(default="error", metadata=UNSET)
    """Whether rows that cannot be trained on stop the stage or are left out."""
    control_tokens: Literal["refuse", "neutralise", "keep"] = field(default="refuse", metadata=UNSET)
    """What happens to a row whose text contains a control token of the tokenizer: it is a bad row, the token is encoded
    as plain text, or it stays a control token."""
    chat_template_kwargs: Mapping[str, Any] | None = field(default=None, metadata=UNSET)
    """Arguments of the chat template for rows without their own, such as `enable_thinking: false`."""


@dataclass(frozen=True, slots=True)
class Decontamination:
    """Keys under `decontam`: the suites to compare the data with, and what to do on contamination."""

    suites: tuple[str, ...] = ("dev", "unseen")
    """Suites, by name or file, whose items are looked for."""
    data_dir: tuple[str, ...] = ()
    """Mirrors of the benchmark data."""
    on_contamination: Literal["stop", "filter", "warn"] = "stop"
    """stop: the stage ends with exit status 1. filter: it trains on the clean rows. warn: it trains on all."""
    share: float = field(default=0.02, metadata=UNSET)
    """A set is contaminated if it contains more than this share (0 to 1) of the items of any evaluation. 0: any item,
    for small sets, which never reach the paper's 2 % of a large evaluation."""


@dataclass(frozen=True, slots=True)
class Lora:
    """Keys under `lora`; Hu et al. 2021, Dettmers et al. 2023."""

    r: int = 16
    """Rank."""
    alpha: float = 32.0
    """The update is scaled by alpha / r."""
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"
    """Names of the layers that get an adapter; all-linear: every linear layer except the head."""
    bits: Literal[4, 8] | None = None
    """QLoRA: precision of the frozen weights, 4 (NF4) or 8 bits; needs bitsandbytes."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Keys under `sizes`: published sizes, from which `--dry-run` estimates what is not on this machine."""

    rows: int
    """Rows, pairs or prompts that are trained on."""
    tokens: int | None = None
    """Tokens in one epoch; None: unknown, so all rows count with their full length."""
    parameters: int | None = None
    layers: int | None = None
    hidden: int | None = None
    """Width of the hidden states."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The complete recipe of a stage."""

    model: str
    """The checkpoint to start from: a folder or a Hub id."""
    data: tuple[DataEntry, ...]
    """Training sets, read one after the other."""
    output: str | None = None
    """Folder of the checkpoints; `--output` overrides it."""
    seed: int = 42
    """Seed of the data's order, of dropout and of sampling."""
    final: bool = False
    """Whether the last checkpoint, and no other, may be evaluated on the unseen suite."""
    chat_template: str | None = None
    """`tulu`, `olmo3`, or a Jinja file; None: the tokenizer's template."""
    eos_token: str | None = None
    """The tokenizer's end-of-text token, if the chat template ends turns with a different one than the checkpoint's."""
    batch_size: int | None = None
    """Rows in one optimiser step over all processes; sets `gradient_accumulation_steps`."""
    decontam: Decontamination | None = None
    """What the data are compared with before training; None: nothing."""
    eval: Evaluation | None = None
    """How checkpoints are evaluated; None: not at all."""
    lora: Lora | None = None
    """Train low-rank adapters instead of all weights; the last checkpoint is merged."""
    gate: str | Mapping[str, Any] | None = None
    """A gate.yaml, or its content: the last checkpoint must pass `olmes gate` against the one that the stage starts
    from, on the tasks of `eval`."""
    sizes: Sizes | None = field(default=None, metadata=UNSET)
    """Sizes of the model and the data, for `--dry-run` on a machine that has neither."""
    trainer: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of TRL's and transformers' trainer, under their original names."""
    kind: str = field(default="", metadata={INNER: True})
    """Name of the stage."""
    own: Any = field(default=None, metadata={INNER: True})
    """The stage-specific keys, a dataclass; in the file they stand under the stage's name."""
    place: Place = field(default=Place("recipe"), metadata={INNER: True}, compare=False, repr=False)
    """The file that error messages about the recipe begin with."""

    def as_data(self) -> dict[str, Any]:
        """Return the recipe as a file would hold it: the keys that are set, with defaults filled in."""
        data = {one.name: plain(getattr(self, one.name)) for one in fields(self) if one.name != "place"}
        data[data.pop("kind")] = data.pop("own")
        return {key: value for key, value in data.items() if value is not None}


def load(
    file: Path, kind: str, keys: type, stages: Sequence[str], *, changes: Sequence[str] = (), output: Path | None = None
) -> Recipe:
    """Load the recipe for the stage `kind` from a YAML file, or the shipped recipe of that name.

    `keys` is the dataclass of the stage's keys, `stages` are the names of all stages, `changes` are `--set` arguments.
    Raises UsageError.
    """
    source = read_yaml(find(file))
    for change in changes:
        set_key(source, change)
    if output:
        source.data["output"] = str(output)
    return parse(source.data, Place(str(file), file=source), kind, keys, stages)


def parse(data: Mapping[str, Any], where: Place, kind: str, keys: type, stages: Sequence[str]) -> Recipe:
    """Parse the recipe from a file's content; error messages begin with `where`. Raises UsageError."""
    rest = {key: value for key, value in data.items() if key != kind}
    for other in stages:
        if other in rest:
            raise UsageError(f"{where.line((other,))}: the key {other!r} belongs to the stage {other}, this is {kind}")
    known = {sections.TOP: Recipe, kind: keys, "eval": Evaluation, "decontam": Decontamination, "lora": Lora}
    for way, why in sections.misplaced(data, kind, known):
        raise WrongKey(f"{where.line(way)}: {why}")
    settings: Any = yaml_files.typed(keys, data.get(kind) or {}, where.inside(kind))
    recipe = replace(yaml_files.typed(Recipe, rest, where, (kind,)), kind=kind, own=settings, place=where)
    _check(recipe, where)
    return recipe


def find(file: Path) -> Path:
    """Return the file, or the shipped recipe of that name. Raises UsageError."""
    if file.is_file():
        return file
    shipped = SHIPPED / file.with_suffix(".yaml").name
    if file.parent == Path() and shipped.is_file():
        return shipped
    names = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
    raise UsageError(f"recipe {file}: no such file; shipped recipes: {', '.join(names)}")


def read_yaml(file: Path, what: str = "recipe") -> YamlFile:
    """Read a YAML file that holds a mapping. Raises UsageError."""
    source = yaml_files.read(file, what)
    if not isinstance(source.data, dict):
        raise UsageError(f"{what} {file}: expected a mapping of keys")
    return source


def set_key(source: YamlFile, change: str) -> None:
    """Apply one `a.b=value`, with a value in YAML; numbers index lists: `data.0.limit=10`. Raises UsageError."""
    import yaml

    path, equals, text = change.partition("=")
    names = path.strip().split(".")
    if not equals or not all(names):
        raise UsageError(f"--set {change}: expected key=value, such as trainer.learning_rate=1e-5")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"--set {change}: the value is not YAML") from None
    place: Any = source.data
    for name in names[:-1]:
        place = _enter(place, name, change)
    if isinstance(place, list):
        _enter(place, names[-1], change)
        place[int(names[-1])] = value
    else:
        place[names[-1]] = value
    source.replace(names)


def _enter(place: Any, name: str, change: str) -> Any:
    if isinstance(place, list):
        if not name.isdigit() or int(name) >= len(place):
            raise UsageError(f"--set {change}: {name!r} is not an entry of a list of {len(place)}")
        return place[int(name)]
    inner = place.get(name)
    if inner is None:
        inner = place[name] = {}
    if not isinstance(inner, dict | list):
        raise UsageError(f"--set {change}: {name!r} is not a mapping")
    return inner


def _check(recipe: Recipe, where: Place) -> None:
    """Check what the types cannot express. Raises UsageError."""
    if not recipe.output:
        raise UsageError(f"{where}: no output folder; set the key `output`, or --output DIR")
    if not recipe.data:
        raise UsageError(f"{where}: data: at least one entry is needed")
    for number, entry in enumerate(recipe.data):
        if (entry.path is None) == (entry.hub is None):
            raise UsageError(f"{where}: data[{number}]: give either `path` or `hub`")
        if entry.limit is not None and entry.limit < 1:
            raise UsageError(f"{where}: data[{number}]: limit must be at least 1, not {entry.limit}")
    if recipe.batch_size is not None:
        if recipe.batch_size < 1:
            raise UsageError(f"{where}: batch_size must be at least 1, not {recipe.batch_size}")
        if "gradient_accumulation_steps" in recipe.trainer:
            raise UsageError(f"{where}: give either `batch_size` or trainer.gradient_accumulation_steps")
    if recipe.decontam is not None:
        if not 0 <= recipe.decontam.share <= 1:
            raise UsageError(f"{where}: decontam.share is a share from 0 to 1, not {recipe.decontam.share:g}")
        for suite in recipe.decontam.suites:
            suites.load(suite)
    if recipe.eval is not None:
        check_evaluation(recipe.eval, recipe.final, str(where))
    if recipe.gate is not None:
        if recipe.eval is None:
            raise UsageError(f"{where}: gate: needs `eval`, which says what the gate compares")
        if unseen := unseen_in(recipe.eval):
            raise UsageError(
                f"{where}: gate: also evaluates the checkpoint that the stage starts from, but eval names "
                f"{unseen[0]} of the unseen suite, which only the last checkpoint may see; gate on dev"
            )
        gate_rules.rules(recipe.gate, where.inside("gate"))


def check_trainer(
    arguments: Mapping[str, Any], config: type[Any], where: Place, table: trainer_fields.Table | None = None
) -> dict[str, Any]:
    """Convert the trainer's arguments to the types of its configuration class. Raises WrongKey.

    `table` says what each argument does to the stage; None: a stage of another package.
    """
    from typing import get_type_hints

    defaults = trainer_fields.defaults(config)
    hints = get_type_hints(config)
    checked = {}
    for name, value in arguments.items():
        place = where.line(("trainer", name))
        if name not in defaults:
            advice = trainer_fields.elsewhere(name) or index.nearest(str(name), sorted(defaults))
            raise WrongKey(f"{place}: trainer: unknown key {name!r}{advice}")
        entries = trainer_fields.of_another_package(defaults) if table is None else table
        if why := trainer_fields.check(name, value, entries, defaults[name]):
            raise WrongKey(f"{place}: trainer.{name} {why}")
        if why := trainer_values.check_option(name, value, hints[name]):
            raise WrongKey(f"{place}: trainer.{name}{why}")
        checked[name] = yaml_files.typed(hints[name], value, where.inside("trainer", name, named=f"trainer.{name}"))
    return checked
