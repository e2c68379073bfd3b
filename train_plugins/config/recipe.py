"""A recipe: what a stage trains on what, and how. YAML in, frozen dataclasses out; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from olmes_suite import yaml_files
from olmes_suite.comparison import gate_rules
from olmes_suite.errors import UsageError, WrongKey
from olmes_suite.tasks import catalog, index, suites
from olmes_suite.yaml_files import INNER, Place, YamlFile

SHIPPED = Path(__file__).parent.parent / "recipes"
RESERVED = {
    "output_dir": "output",
    "seed": "seed",
    "data_seed": "seed",
    "resume_from_checkpoint": "--resume",
    "overwrite_output_dir": "output",
    "chat_template_path": "chat_template",
    "assistant_only_loss": "sft (the loss is always on the assistant's turns only)",
    "completion_only_loss": "sft (the loss is always on the assistant's turns only)",
    "loss_type": "sft.loss or dpo.loss; in rlvr it is the mean over the batch's tokens",
    "beta": "dpo.beta or rlvr.beta",
    "use_vllm": "rlvr.rollouts",
    "vllm_mode": "rlvr.rollouts",
    "vllm_server_base_url": "rlvr.server",
    "remove_unused_columns": "nothing: the trainers read the columns that they need",
    "precompute_ref_log_probs": "dpo (reference log-probabilities are always computed beforehand)",
    "push_to_hub": "nothing: push the finished folder",
}
"""Trainer arguments that have a key of ours, or no meaning here."""


@dataclass(frozen=True, slots=True)
class DataEntry:
    """One training set: a file or folder (`path`), or a data set on the Hub (`hub`)."""

    path: str | None = None
    """A .jsonl, .json or .parquet file, or a folder of them."""
    hub: str | None = None
    split: str = "train"
    """Split of a Hub data set."""
    limit: int | None = None
    """The first so many rows."""


@dataclass(frozen=True, slots=True)
class Decontamination:
    """What the decontamination hook is asked to do."""

    suites: tuple[str, ...] = ("dev", "unseen")
    data_dir: tuple[str, ...] = ()
    on_contamination: Literal["stop", "filter", "warn"] = "stop"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `olmes eval` is asked of the stage's checkpoints."""

    suite: str | None = None
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    """Documents of every leaf task."""
    every: int | None = None
    """Evaluate (and save) every so many steps; without it only the last checkpoint is evaluated."""
    data_dir: tuple[str, ...] = ()
    include_path: tuple[str, ...] = ()
    """Folders of the user's own task files."""
    runs: str = "runs"
    """Folder of the runs and of the ledger of looks at the unseen suite."""
    device: Literal["same", "endpoint"] | int | None = None
    """Where checkpoints are evaluated: `same`, on the trainer's GPU, whose model and optimiser wait in the CPU's memory
    meanwhile; a GPU's number; `endpoint`, an OpenAI-compatible server. None: beside the training, wherever it runs."""
    base_url: str | None = None
    """The endpoint; it must serve a checkpoint under its folder's path."""
    judge: str | None = None
    judge_base_url: str | None = None
    classifier: str | None = None
    classifier_base_url: str | None = None
    encoder: str | None = None


@dataclass(frozen=True, slots=True)
class Lora:
    """Keys under `lora`; Hu et al. 2021, Dettmers et al. 2023."""

    r: int = 16
    """Rank."""
    alpha: float = 32.0
    """The update is scaled by alpha / r."""
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"
    """Names of the layers that get an adapter; all-linear: every linear layer but the head."""
    bits: Literal[4, 8] | None = None
    """QLoRA: the frozen weights in 4 (NF4) or 8 bits; needs bitsandbytes."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A stage's recipe, complete."""

    model: str
    """The checkpoint to start from: a folder or a Hub id."""
    data: tuple[DataEntry, ...]
    output: str | None = None
    seed: int = 42
    final: bool = False
    """The last checkpoint, and no other, may look at the unseen suite."""
    chat_template: str | None = None
    """`tulu`, or a Jinja file with generation markers; None: the tokenizer's own."""
    eos_token: str | None = None
    """The tokenizer's end-of-text token, where the chat template ends turns in another than the checkpoint's."""
    batch_size: int | None = None
    """Rows in one optimiser step over all processes; sets `gradient_accumulation_steps`."""
    decontam: Decontamination | None = None
    eval: Evaluation | None = None
    lora: Lora | None = None
    """Train low-rank adapters in place of all weights; the last checkpoint is merged."""
    gate: str | Mapping[str, Any] | None = None
    """The last checkpoint must pass `olmes gate` against the one that the stage starts from, on what `eval` names: a
    gate.yaml, or its content."""
    trainer: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of TRL's and transformers' trainer, by their own names."""
    kind: str = field(default="", metadata={INNER: True})
    """The stage."""
    own: Any = field(default=None, metadata={INNER: True})
    """The stage's own keys, a dataclass; in the file they stand under the stage's name."""
    place: Place = field(default=Place("recipe"), metadata={INNER: True}, compare=False, repr=False)
    """What begins a complaint about the recipe."""

    def as_data(self) -> dict[str, Any]:
        """The recipe as it would stand in a file: keys that are set, defaults filled in."""
        data = {one.name: _plain(getattr(self, one.name)) for one in fields(self) if one.name != "place"}
        data[data.pop("kind")] = data.pop("own")
        return {key: value for key, value in data.items() if value is not None}


def load(
    file: Path, kind: str, own: type, known: Sequence[str], changes: Sequence[str] = (), output: Path | None = None
) -> Recipe:
    """The recipe of a YAML file (or of a shipped one, by its name) for the stage `kind`, one of the stages `known`.

    `own` is the dataclass of the stage's own keys, `changes` are `--set` arguments. Raises UsageError.
    """
    source = read_yaml(find(file))
    for change in changes:
        set_key(source, change)
    if output:
        source.data["output"] = str(output)
    return parse(source.data, Place(str(file), file=source), kind, own, known)


def parse(data: Mapping[str, Any], where: Place, kind: str, own: type, known: Sequence[str]) -> Recipe:
    """The recipe in a file's content; `where` begins each complaint. Raises UsageError."""
    rest = {key: value for key, value in data.items() if key != kind}
    for other in known:
        if other in rest:
            raise UsageError(f"{where.line((other,))}: the key {other!r} belongs to the stage {other}, this is {kind}")
    settings: Any = yaml_files.typed(own, data.get(kind) or {}, where.inside(kind))
    recipe = replace(yaml_files.typed(Recipe, rest, where, (kind,)), kind=kind, own=settings, place=where)
    _check(recipe, where)
    return recipe


def find(file: Path) -> Path:
    """The file, or the shipped recipe of that name."""
    if file.is_file():
        return file
    shipped = SHIPPED / file.with_suffix(".yaml").name
    if file.parent == Path() and shipped.is_file():
        return shipped
    names = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
    raise UsageError(f"recipe {file}: no such file; shipped recipes: {', '.join(names)}")


def read_yaml(file: Path, what: str = "recipe") -> YamlFile:
    """A file that holds a mapping. Raises UsageError."""
    source = yaml_files.read(file, what)
    if not isinstance(source.data, dict):
        raise UsageError(f"{what} {file}: expected a mapping of keys")
    return source


def set_key(source: YamlFile, change: str) -> None:
    """Apply one `a.b=value`; the value is read as YAML. Lists are entered by number: `data.0.limit=10`."""
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
            raise UsageError(f"--set {change}: {name!r} is no entry of a list of {len(place)}")
        return place[int(name)]
    found = place.get(name)
    if found is None:
        found = place[name] = {}
    if not isinstance(found, dict | list):
        raise UsageError(f"--set {change}: {name!r} is not a mapping")
    return found


def _check(recipe: Recipe, where: Place) -> None:
    """What the types do not say. Raises UsageError."""
    if not recipe.output:
        raise UsageError(f"{where}: say where to write: the key `output`, or --output DIR")
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
    if recipe.eval is not None:
        check_evaluation(recipe.eval, recipe.final, str(where))
    if recipe.gate is not None:
        if recipe.eval is None:
            raise UsageError(f"{where}: gate: needs `eval`, which says what the gate compares")
        if looked := unseen_in(recipe.eval):
            raise UsageError(
                f"{where}: gate: evaluates the checkpoint that the stage starts from too, and eval names {looked[0]} "
                "of the unseen suite, which only the last one may see; gate on dev"
            )
        gate_rules.rules(recipe.gate, where.inside("gate"))


def check_evaluation(wanted: Evaluation, final: bool, where: str) -> None:
    """Known names, and the unseen suite only for the last checkpoint of a final stage. Raises UsageError."""
    if wanted.suite is None and not wanted.tasks:
        raise UsageError(f"{where}: eval: name a `suite` or `tasks`")
    for name, value in (("limit", wanted.limit), ("every", wanted.every)):
        if value is not None and value < 1:
            raise UsageError(f"{where}: eval.{name} must be at least 1, not {value}")
    for folder in wanted.include_path:
        if not Path(folder).is_dir():
            raise UsageError(f"{where}: eval.include_path {folder}: no such folder")
    if (wanted.device == "endpoint") != (wanted.base_url is not None):
        raise UsageError(f"{where}: eval: `device: endpoint` and `base_url` belong together")
    looked = unseen_in(wanted)
    if looked and not final:
        raise UsageError(
            f"{where}: eval names {len(looked)} tasks of the unseen suite or of its kind ({looked[0]}), which is for "
            "the end; evaluate on dev, or say `final: true`"
        )
    if looked and wanted.every is not None:
        raise UsageError(
            f"{where}: eval.every would show the unseen suite to every checkpoint; only the last may look, remove it"
        )


def unseen_in(wanted: Evaluation) -> list[str]:
    """The tasks of the unseen suite, their variants and siblings, that an evaluation names. Raises UsageError."""
    names = [entry.task for entry in suites.load(wanted.suite).tasks] if wanted.suite else []
    with catalog.including(map(Path, wanted.include_path)):
        names += [catalog.find(name).name for name in wanted.tasks]
        return sorted({name for name in names if suites.asks_unseen(name)})


def check_trainer(arguments: Mapping[str, Any], config: type[Any], where: Place) -> dict[str, Any]:
    """The trainer's arguments, typed as its configuration class wants them. Raises WrongKey, also for unknown ones."""
    from typing import get_type_hints

    known = {f.name for f in fields(config) if f.init}
    hints = get_type_hints(config)
    checked = {}
    for name, value in arguments.items():
        if name in RESERVED:
            raise WrongKey(f"{where.line(('trainer', name))}: trainer.{name} is not taken; use {RESERVED[name]}")
        if name not in known:
            place = where.line(("trainer", name))
            raise WrongKey(f"{place}: trainer: unknown key {name!r}{index.nearest(str(name), sorted(known))}")
        checked[name] = yaml_files.typed(hints[name], value, where.inside("trainer", name, named=f"trainer.{name}"))
    return checked


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
