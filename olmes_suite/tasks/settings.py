"""The settings that a user puts over those of the tasks: sampling, samples, system prompt, chat template arguments.

What a command gives wins over its profile, and the profile over the task.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import UsageError
from olmes_suite.records import CONTEXT, OPTIONAL
from olmes_suite.tasks import profiles
from olmes_suite.tasks.generation_kwargs import DEFAULT, Sampling, sampling
from olmes_suite.tasks.overrides import CONTEXT_NAME, checked, merged, shown, without_effect

if TYPE_CHECKING:
    from olmes_suite.tasks.task import SuiteTask

OPTION = "--gen-kwargs"
RENDERING = frozenset(
    {"messages", "conversation", "chat_template", "tokenize", "add_generation_prompt", "continue_final_message",
     "tools", "documents", "padding", "truncation", "max_length", "return_tensors", "return_dict", "tokenizer_kwargs",
     "return_assistant_tokens_mask"}
)  # fmt: skip
"""Names that a chat template does not take as arguments, since rendering has them itself."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a command and its profile."""

    gen_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Sampling settings of the command, under the names of `overrides.FIELDS`."""
    samples: int | None = None
    system: str | None = None
    """"" for no system prompt."""
    chat_template_args: Mapping[str, Any] = field(default_factory=dict)
    profile: str | None = None
    profiled: Mapping[str, Any] = field(default_factory=dict)
    """Sampling settings of the profile that the command does not give."""
    commanded: frozenset[str] = frozenset()
    """Names among samples, system and the chat template's arguments that the command gives."""

    def __bool__(self) -> bool:
        """Whether anything is given."""
        return bool(self.sampled or self.samples is not None or self.system is not None or self.chat_template_args)

    @property
    def sampled(self) -> dict[str, Any]:
        """The sampling settings of command and profile."""
        return {**self.profiled, **self.gen_kwargs}

    @classmethod
    def of(
        cls, *, profile: str | None = None, gen_kwargs: Mapping[str, Any] | None = None, samples: int | None = None,
        system: str | None = None, chat_template_args: Mapping[str, Any] | None = None,
    ) -> Settings:  # fmt: skip
        """Check the options of a command and read its profile. Raises UsageError."""
        below = profiles.load(profile) if profile is not None else profiles.Profile()
        own = checked(gen_kwargs or {}, OPTION)
        profiled = checked(below.gen_kwargs, f"profile {profile}: gen_kwargs")
        if {"temperature", "do_sample"} & own.keys():  # the command decides between greedy and sampled answers
            profiled.pop("do_sample", None)
        if own.get("do_sample") is False:
            profiled.pop("temperature", None)
        if samples is not None and samples < 1:
            raise UsageError(f"--samples {samples}: give the number of answers to a request, 1 or more")
        if taken := sorted(RENDERING & {**below.chat_template_args, **(chat_template_args or {})}.keys()):
            raise UsageError(f"--chat-template-args {taken[0]}: is set by the rendering itself; leave it out")
        settings = cls(
            own,
            below.samples if samples is None else samples,
            below.system if system is None else system,
            {**below.chat_template_args, **(chat_template_args or {})},
            profile,
            {name: value for name, value in profiled.items() if name not in own},
            frozenset(chat_template_args or {})
            | {name for name, value in (("samples", samples), ("system", system)) if value is not None},
        )
        settings._check()
        return settings

    def _check(self) -> None:
        """Raise UsageError for settings that contradict each other whatever the task."""
        sampled = self.sampled
        greedy = sampled.get("do_sample") is False or sampled.get("temperature") == 0
        if greedy and (self.samples or 1) > 1:
            raise UsageError(f"--samples {self.samples}: {EQUAL}")
        names = without_effect(self.gen_kwargs)
        if greedy and names:
            raise UsageError(f"{OPTION} {names[0]}: has no effect at temperature 0; leave it out, or raise temperature")

    def apply(self, task: SuiteTask) -> None:
        """Put the settings over those of a task."""
        if self.system is not None:
            task.system = self.system
        task.chat_template_args = self.chat_template_args
        if task.config.output_type != "generate_until":
            return
        task.config.generation_kwargs = merged(task.config.generation_kwargs or {}, self.sampled)
        if self.samples is not None and self.samples != task.config.repeats:
            task.config.repeats = self.samples
            task.averages_samples = True

    def check_tasks(self, tasks: Iterable[SuiteTask]) -> None:
        """Check the settings against the tasks to which they are applied. Raises UsageError."""
        generative = [task for task in tasks if task.config.output_type == "generate_until"]
        greedy = [task.config.task for task in generative if not _sampling(task).temperature]
        if greedy and (self.samples or 1) > 1:
            raise UsageError(f"--samples {self.samples}: {_named(greedy)}: {EQUAL}")
        names = without_effect(self.gen_kwargs)
        if generative and len(greedy) == len(generative) and names:
            raise UsageError(
                f"{OPTION} {names[0]}: has no effect on greedy answers, and {_named(greedy)} would be greedy; "
                "add temperature=NUMBER"
            )
        if generative and self.gen_kwargs.get("do_sample") is True and len(greedy) == len(generative):
            raise UsageError(f"{OPTION} do_sample=true: {_named(greedy)} sets no temperature; add temperature=NUMBER")

    def check_context(self, max_length: int | None) -> None:
        """Raise UsageError for a token limit, given here, that is larger than the model's context."""
        limit = self.sampled.get("max_tokens")
        if limit is None or limit == CONTEXT or max_length is None or limit <= max_length:
            return
        where = OPTION if "max_tokens" in self.gen_kwargs else f"profile {self.profile}: "
        raise UsageError(
            f"{where}{' ' if where == OPTION else ''}max_tokens={limit}: the model's context has {max_length} tokens; "
            f"lower it, or give {OPTION} max_tokens={CONTEXT_NAME} for all that a prompt leaves"
        )

    def check_template(self, unused: Sequence[str]) -> None:
        """Raise UsageError for an argument of the command that the model's chat template does not use.

        A profile may hold arguments for other models of its family; backends name those in a note.
        """
        for name in unused:
            if name in self.commanded:
                value = self.chat_template_args[name]
                shown_value = value if isinstance(value, str) else json.dumps(value)
                raise UsageError(
                    f"--chat-template-args {name}={shown_value}: the model's chat template does not use it (prompts "
                    "are the same with and without it); leave it out"
                )

    def notes(self, tasks: Sequence[SuiteTask]) -> list[str]:
        """Return lines about settings without effect, and about tasks whose samples these settings make equal."""
        generative = [task for task in tasks if task.config.output_type == "generate_until"]
        given = [name for name, value in ((OPTION, self.sampled), ("--samples", self.samples)) if value]
        if given and tasks and not generative:
            return [f"{' and '.join(given)}: without effect, since the tasks are scored by log-likelihood"]
        if not {"temperature", "do_sample"} & self.sampled.keys():
            return []
        several = [task for task in generative if (task.config.repeats or 1) > 1 and not _sampling(task).temperature]
        return [
            f"{task.config.task}: the {task.config.repeats} answers to each request are equal at temperature 0; "
            "--samples 1 asks for one"
            for task in several
        ]

    def as_json(self) -> dict[str, Any] | None:
        """Return the settings for the manifest; None where none is given."""
        if not self and self.profile is None:
            return None
        fields = {
            "profile": self.profile,
            "profile_gen_kwargs": shown(self.profiled),
            "gen_kwargs": shown(self.gen_kwargs),
            "samples": self.samples,
            "system": self.system,
            "chat_template_args": dict(self.chat_template_args),
        }
        return {name: value for name, value in fields.items() if value not in (None, {})}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Settings:
        """Rebuild the settings of a run from its manifest, without reading the profile again. Raises UsageError."""
        if not data:
            return cls()
        return cls(
            checked(data.get("gen_kwargs") or {}, "manifest"),
            data.get("samples"),
            data.get("system"),
            data.get("chat_template_args") or {},
            data.get("profile"),
            checked(data.get("profile_gen_kwargs") or {}, "manifest"),
        )


EQUAL = "greedy answers (temperature 0) are all equal; add --gen-kwargs temperature=NUMBER"


def _sampling(task: SuiteTask) -> Sampling:
    return sampling(task.config.generation_kwargs or {})


def _named(tasks: Sequence[str]) -> str:
    short = [name.removeprefix("tulu3_") for name in tasks]
    return ", ".join(short[:3]) + (f" and {len(short) - 3} more" if len(short) > 3 else "")


def fields_in(task: SuiteTask) -> list[str]:
    """Return the optional fields of a task's requests, and `unset` where fields are left to the server."""
    if task.config.output_type != "generate_until":
        return []
    found = _sampling(task)
    return [*found.more, *(["unset"] if found.unset else [])]


def effective(task: SuiteTask, unclosed: str = "reference") -> dict[str, Any] | None:
    """Return the settings with which a task's answers are generated; None for a log-likelihood task.

    `unclosed` is the policy for unclosed thoughts, which is named where it is not the default.
    """
    if task.config.output_type != "generate_until":
        return None
    found = _sampling(task)
    values: dict[str, Any] = {
        "max_tokens": CONTEXT_NAME if found.max_tokens == CONTEXT else found.max_tokens,
        "temperature": DEFAULT if found.unset else found.temperature,
        "top_p": found.top_p,
        **{name: found.more.get(name) for name in OPTIONAL},
        "stop": list(found.stop),
        "samples": task.config.repeats or 1,
        "chat_template_args": dict(task.chat_template_args) or None,
        "unclosed": unclosed if unclosed != "reference" else None,
    }
    return {name: value for name, value in values.items() if value is not None}


def system_text(value: str | None) -> str | None:
    """Read a system prompt: the text itself, or the content of a file after `@` without its last line break.

    Raises UsageError for a file that cannot be read.
    """
    if value is None or not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--system {value}: cannot be read ({error}); give a text, or @FILE") from None
