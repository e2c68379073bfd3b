"""Checks and conversions of the arguments of the command line and the Python interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from olmes_suite.comparison.gate_rules import Rules
    from olmes_suite.comparison.plan_file import PlanFile
    from olmes_suite.runs.schema import Planned
    from olmes_suite.scoring.tools import ToolOptions
    from olmes_suite.tasks.documents import DataSource
    from olmes_suite.tasks.settings import Settings

Paths = str | Path | Sequence[str | Path] | None
"""Type of an option that may be given several times."""
AnyPath = str | Path
Named = str | Mapping[str, Any] | None
"""Type of an option of names and values: a mapping, or text as on the command line."""


def tool_options(
    *, judge: str | None = None, judge_base_url: str | None = None, classifier: str | None = None,
    classifier_base_url: str | None = None, encoder: str | None = None, unsafe_code: bool = False,
) -> ToolOptions:  # fmt: skip
    """Build the options of the models that score.

    Raises UsageError for an endpoint without a model's name, and for one that is not a URL.
    """
    from olmes_suite.errors import UsageError
    from olmes_suite.scoring.tools import ToolOptions

    for flag, name, url in (("judge", judge, judge_base_url), ("classifier", classifier, classifier_base_url)):
        if url is not None and not name:
            raise UsageError(f"--{flag}-base-url needs --{flag}: the name under which the server knows the model")
        if url is not None and not url.startswith(("http://", "https://")):
            raise UsageError(f"--{flag}-base-url {url}: not a URL such as http://localhost:8000/v1")
    return ToolOptions(
        judge=judge, judge_base_url=judge_base_url, classifier=classifier, classifier_base_url=classifier_base_url,
        encoder=encoder, unsafe_code=unsafe_code,
    )  # fmt: skip


def settings(
    *, profile: AnyPath | None = None, gen_kwargs: Named = None, samples: int | None = None, system: str | None = None,
    chat_template_args: Named = None,
) -> Settings:  # fmt: skip
    """Build the settings that are put over the tasks' own. Raises UsageError."""
    from olmes_suite.models.model_args import parse
    from olmes_suite.tasks.settings import Settings, system_text

    def mapping(value: Named, option: str) -> Mapping[str, Any] | None:
        return parse(value, option) if isinstance(value, str) else value

    return Settings.of(
        profile=None if profile is None else str(profile), gen_kwargs=mapping(gen_kwargs, "--gen-kwargs"),
        samples=samples, system=system_text(system),
        chat_template_args=mapping(chat_template_args, "--chat-template-args"),
    )  # fmt: skip


def plan(path: Path | None, suite_names: tuple[str, ...]) -> tuple[tuple[str, ...], PlanFile | None, Planned | None]:
    """Read the plan that the options name; returns the suites, the plan and what it asks. Raises UsageError."""
    if path is None:
        return suite_names, None, None
    from olmes_suite.comparison import plan_file
    from olmes_suite.runs.schema import Planned

    found = plan_file.read(path)
    plan_file.check(path, found, suite_names)
    return (found.suite,), found, Planned(purpose=found.purpose, documents=found.counts)


def limit(given: int | float | None, suite_names: Sequence[str], task_names: Sequence[str]) -> int | float | None:
    """Return the number of documents of each leaf task: the user's, otherwise that of the suites.

    Raises UsageError where it is not clear what the suites' limit holds for.
    """
    if given is not None:
        return given
    from olmes_suite.errors import UsageError
    from olmes_suite.tasks import suites

    limits = {name: suites.load(name).limit for name in suite_names}
    name, found = next(((name, number) for name, number in limits.items() if number is not None), ("", None))
    if found is not None and (task_names or set(limits.values()) != {found}):
        raise UsageError(
            f"suite {name} asks {found} documents of each task, but what is evaluated with it has no such limit; "
            f"give --limit {found} for all, or evaluate {name} on its own"
        )
    return found


def until_decided(chosen: bool, config: AnyPath | Mapping[str, Any] | None) -> Rules | None:
    """Return the rules of the gate of a run until it is decided; None for another run. Raises UsageError."""
    from olmes_suite.comparison.results import rules
    from olmes_suite.errors import UsageError

    if config is not None and not chosen:
        raise UsageError("--config is the gate of --until-decided; give both")
    where = config if config is None or isinstance(config, Mapping) else Path(config)
    return rules(where, {}) if chosen else None


def local(runs: Path) -> None:
    """Raise UsageError for a URL, because runs are written to a local folder."""
    from olmes_suite.errors import UsageError

    if ":/" in str(runs):
        raise UsageError(f"--runs takes a local folder, not {runs}; copy finished runs from there")


def include(folders: Sequence[Path] | None) -> None:
    """Register folders of the user's task files. Raises UsageError for a folder that does not exist."""
    from olmes_suite.errors import UsageError
    from olmes_suite.tasks import catalog

    for folder in folders or ():
        if not folder.is_dir():
            raise UsageError(f"--include-path {folder}: no such folder")
    catalog.include(folders or ())


def source(data_dirs: Sequence[Path] | None, data: str | None) -> DataSource:
    """Build the data source that the options name. Raises UsageError for a folder that does not exist."""
    from olmes_suite.errors import UsageError
    from olmes_suite.tasks.documents import SAMPLE, DataSource

    for folder in data_dirs or ():
        if not folder.is_dir():
            raise UsageError(f"--data-dir {folder}: no such folder")
    if data not in (None, SAMPLE):
        raise UsageError(f"--data takes only `sample`, not {data!r}; a mirror is named with --data-dir")
    return DataSource.from_environment(data_dirs or (), data)


def listed(value: Any) -> list[Any]:
    """Return a single value or several values as a list."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def maybe(value: str | Path | None) -> Path | None:
    """Return the path of an optional value, None for None."""
    return None if value is None else Path(value)


def paths(value: Paths) -> list[Path]:
    """Return a single path or several paths as a list."""
    return [Path(path) for path in listed(value)]


def command_line(command: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Build the command line of a call, with the options that differ from their defaults."""
    words = ["olmes", command]
    for name, value in given.items():
        if value == defaults[name]:
            continue
        if isinstance(value, Mapping):
            value = ",".join(f"{key}={item}" for key, item in value.items())
        for item in listed(value):
            words += [f"--{name.replace('_', '-')}", *([] if item is True else [str(item)])]
    return words
