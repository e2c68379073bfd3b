"""The keys of our task files that lm-eval's `TaskConfig` does not know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.tasks.documents import DataSpec

if TYPE_CHECKING:
    from olmes_suite.records import Instance
    from olmes_suite.scoring.tools import Tools
    from olmes_suite.stats import Estimate
    from olmes_suite.tasks.task import SuiteTask

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TaskKeys:
    """What a task file says beside lm-eval's keys; each field is a key of the file."""

    revision: str = "main"
    """Revision of the data set on the Hub."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column to type; see `DataSpec.columns`, as for the next four."""
    split_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    subset: Mapping[str, int] | None = None
    hub: bool = True
    gated: bool = False
    where: Mapping[str, Any] | None = None
    """Column to value, or to a list of values: the rows of the split that belong to this task."""
    leave_out: Callable[[Document], str | None] | None = None
    """Names why a document cannot be scored, else None; such rows are counted and left out."""
    chat: bool = True
    """False: the reference sends plain text, to chat models too."""
    fewshot: Callable[[SuiteTask], Any] | None = None
    """Gives the few-shot documents, in place of lm-eval's rules."""
    gold: Callable[[Document], Any] | None = None
    """Gives a response that scores 1."""
    corrupt: Callable[[Document], Any] | None = None
    """Gives a response that scores 0."""
    cluster: Callable[[Document], Any] | str | None = None
    """Function or column: documents with an equal value belong to one cluster."""
    strata: Callable[[Document], Any] | str | None = None
    """Function or column: the score is the unweighted mean of the means of documents with an equal value."""
    needs: tuple[str, ...] = ()
    """Tools of `olmes_suite.scoring.tools` that the scorer takes."""
    preflight: Callable[[Tools], None] | None = None
    """Called before any model is loaded; raises MissingData for anything that the scorer lacks."""
    summary: Callable[[Sequence[Instance]], Mapping[str, Estimate]] | None = None
    """Gives the metrics that are not means over documents."""
    resources: Callable[[Document], Sequence[str]] | None = None
    """Names the `olmes_suite.scoring.language_resources` that scoring a document reads."""
    nltk: tuple[str, ...] = ()
    """Packages of NLTK's data that `olmes data pull` fetches."""
    texts: tuple[str, ...] = ()
    """Columns with the texts that decontamination compares."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> TaskKeys:
        """Read the keys of a task file's content; keys of lm-eval are ignored."""
        given = {name: config[name] for name in TASK_KEYS if config.get(name) is not None}
        for name in ("needs", "nltk", "texts"):
            if name in given:
                given[name] = tuple(given[name])
        return cls(**given)

    def data_spec(self, path: str, config: str | None, sample_file: Path | None = None) -> DataSpec:
        """The data set that the task reads: `path` is its Hub id, `config` its configuration."""
        return DataSpec(
            path=path,
            config=config or "default",
            revision=self.revision,
            columns=self.columns,
            split_names=self.split_names,
            subset=self.subset,
            hub=self.hub,
            gated=self.gated,
            sample_file=sample_file,
        )


TASK_KEYS = tuple(f.name for f in fields(TaskKeys))
"""Names of the keys, in the order of the fields."""
