"""The rules of a gate: margins, required tasks, floors and health limits, from `gate.yaml` or by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from olmes_suite import yaml_files
from olmes_suite.yaml_files import Between, Place

ALPHA = 0.05
MARGIN = 0.01
"""Default margin: one point."""
MORE = 0.05
"""Without a limit of its own, a health share may exceed the baseline's by so much."""
HEALTH = ("truncated", "length", "unclosed", "empty", "extraction_failed")
"""Flags of answers, each as a share of the answers, or of the documents where answers are not counted."""
TOKENS = ("tokens", "thinking_tokens", "answer_tokens")
"""Mean tokens per answer, each as a multiple of the baseline's."""
MUCH = 1.5
"""Without a limit of its own, more than this multiple of the baseline's tokens is noted."""
CONTAMINATED = 0.02
"""Tülu 3's rule (§ 3.2): a training set is contaminated if it overlaps more than 2 % of an evaluation's instances."""

Points = Annotated[float, Between(0, 100, per=100, unit="in points")]
"""A fraction; in the file it is in points."""
Share = Annotated[float, Between(0, 1)]
Multiple = Annotated[float, Between(0.01, 1000, unit="a multiple of the baseline's")]
ErrorRate = Annotated[float, Between(1e-9, 0.5)]
Inconclusive = Literal["pass", "fail", "exit3"]
Noise = Literal["published"]
PUBLISHED_NOISE: Mapping[str, float] = {
    "olmo3_gpqa": 0.0148, "olmo3_gpqa_boxed": 0.0148, "olmo3_alpaca_eval": 0.0124, "olmo3_ifeval": 0.0088,
    "olmo3_zebralogic": 0.0056, "olmo3_omega": 0.0056, "olmo3_omega500": 0.0056, "olmo3_aime_2024": 0.0054,
    "olmo3_humaneval_plus": 0.0046, "olmo3_agieval": 0.0043, "olmo3_bbh": 0.0039, "olmo3_livecodebench": 0.0029,
    "olmo3_livecodebench_no_think": 0.0029, "olmo3_mbpp_plus": 0.0027, "olmo3_math": 0.0025, "olmo3_mmlu": 0.0022,
    "olmo3_popqa": 0.0016,
}  # fmt: skip
"""Standard deviation between runs of one model, as fractions: the mean over 14 models and 3 runs each that the OLMo 3
paper prints (arXiv 2512.13961, section 4.1)."""


@dataclass(frozen=True, slots=True)
class TaskRule:
    """What `gate.yaml` says of one task; fractions."""

    margin: Points | None = None
    """How many points worse the task may be; None: the margin of its skill, or the general one."""
    required: bool = False
    """The task must pass on its own."""
    floor: Points | None = None
    """The candidate's score must not be below it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of a gate; margins and floors are fractions."""

    alpha: float = ALPHA
    margin: float = MARGIN
    suite_margin: float | None = None
    tasks: Mapping[str, TaskRule] = field(default_factory=dict)
    skills: Mapping[str, float] = field(default_factory=dict)
    health: Mapping[str, float] = field(default_factory=dict)
    """Limits that the file names: largest shares, multiples of the baseline's tokens, and the drop of `completed`."""
    inconclusive: Inconclusive = "exit3"
    noise: Noise | None = None
    """published: no margin is below the task's published standard deviation between runs."""

    def task(self, name: str) -> TaskRule:
        """The rule of a task, named with or without prefix."""
        return self.tasks.get(name) or self.tasks.get(name.removeprefix("tulu3_")) or TaskRule()

    def margin_of(self, name: str, skill: str) -> float:
        """Margin of a task: its own, else its skill's, else the general one."""
        own = self.task(name).margin
        return own if own is not None else self.skills.get(skill, self.margin)

    def noise_of(self, name: str) -> float:
        """Published noise of a task, named in full, which no margin is below; 0 without `noise: published`."""
        return PUBLISHED_NOISE.get(name, 0.0) if self.noise == "published" else 0.0


@dataclass(frozen=True, slots=True)
class _SkillKeys:
    """Keys of one skill under `skills`."""

    margin: Points


@dataclass(frozen=True, slots=True)
class _HealthKeys:
    """Limits under `health`."""

    truncated: Share | None = None
    """Prompts cut to the context length, as a share; so are the keys down to `contaminated`."""
    length: Share | None = None
    """Answers cut at the token limit."""
    unclosed: Share | None = None
    """Answers that ended inside a thought."""
    empty: Share | None = None
    """Empty answers."""
    extraction_failed: Share | None = None
    """Answers in which the scorer found nothing to score."""
    request_errors: Share | None = None
    """Requests that failed."""
    contaminated: Share | None = None
    """Documents that the checkpoint's training data contains."""
    tokens: Multiple | None = None
    """Largest mean tokens per answer."""
    thinking_tokens: Multiple | None = None
    """Largest mean tokens of a thought."""
    answer_tokens: Multiple | None = None
    """Largest mean tokens of an answer without its thought."""
    completed: Points | None = None
    """Largest drop of the score over answers that ended by themselves."""
    correct_per_million_tokens: Multiple | None = None
    """Smallest rate of correct answers."""


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of `gate.yaml`."""

    alpha: ErrorRate = ALPHA
    """Rate of false failures over all tasks together, and of false passes."""
    margin: Points = MARGIN
    """How many points worse a task or the average may be."""
    suite: Mapping[Literal["margin"], Points] | None = None
    """`margin`: the margin of the suite average."""
    tasks: Mapping[str, TaskRule] | None = None
    """Rules of single tasks, by name."""
    skills: Mapping[str, _SkillKeys] | None = None
    """Margins of all tasks of a skill."""
    health: _HealthKeys | None = None
    """Largest shares of answers that are cut, empty or unreadable, and limits of tokens."""
    inconclusive: Inconclusive = "exit3"
    """Outcome of an inconclusive gate: exit status 3, or as if it passed or failed."""
    noise: Noise | None = None
    """published: no margin is below a task's published standard deviation between runs."""


def read_rules(path: Path) -> Rules:
    """Rules from a YAML file. Raises UsageError naming the key that is wrong."""
    file = yaml_files.read(path)
    return parse_rules({} if file.data is None else file.data, file.place)


def parse_rules(data: Any, where: Place | str) -> Rules:
    """Rules from the content of `gate.yaml`; margins and floors are in points there, alpha and shares fractions."""
    keys = yaml_files.typed(_Keys, data, where)
    return Rules(
        alpha=keys.alpha,
        margin=keys.margin,
        suite_margin=(keys.suite or {}).get("margin"),
        tasks=keys.tasks or {},
        skills={name: rule.margin for name, rule in (keys.skills or {}).items()},
        health={name: limit for name, limit in asdict(keys.health or _HealthKeys()).items() if limit is not None},
        inconclusive=keys.inconclusive,
        noise=keys.noise,
    )


def rules(given: str | Mapping[str, Any], where: Place | str) -> Rules:
    """The rules of a `gate.yaml`, or of its content in a recipe. Raises UsageError."""
    return read_rules(Path(given)) if isinstance(given, str) else parse_rules(given, where)
