"""The keys that task files may have in addition to those of lm-eval's `TaskConfig`."""

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
    """The additional keys of a task file; each field is a key."""

    revision: str = "main"
    """Revision of the data set on the Hub."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """See `DataSpec` for this key and the next six."""
    split_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    subset: Mapping[str, int] | None = None
    hub: bool = True
    gated: bool = False
    made_by: str = ""
    json_files: Sequence[Mapping[str, Sequence[str]]] = ()
    where: Mapping[str, Any] | None = None
    """Column to value, or to a list of values: the rows of the split that belong to this task."""
    leave_out: Callable[[Document], str | None] | None = None
    """Returns why a document cannot be scored, otherwise None. Such rows are counted and left out."""
    chat: bool = True
    """False if the reference sends plain text even to chat models."""
    fewshot: Callable[[SuiteTask], Any] | None = None
    """Returns the few-shot documents, in place of lm-eval's rules."""
    gold: Callable[[Document], Any] | None = None
    """Returns a response that scores 1."""
    corrupt: Callable[[Document], Any] | None = None
    """Returns a response that scores 0."""
    cluster: Callable[[Document], Any] | str | None = None
    """Function or column: documents with an equal value belong to one cluster."""
    strata: Callable[[Document], Any] | str | None = None
    """Function or column: the score is the unweighted mean of the means of documents with an equal value."""
    needs: tuple[str, ...] = ()
    """Tools of `olmes_suite.scoring.tools` that the scorer needs."""
    preflight: Callable[[Tools], None] | None = None
    """Called before a model is loaded; raises MissingData if something that the scorer needs is missing."""
    summary: Callable[[Sequence[Instance]], Mapping[str, Estimate]] | None = None
    """Returns the metrics that are not means over documents."""
    resources: Callable[[Document], Sequence[str]] | None = None
    """Returns the `olmes_suite.scoring.language_resources` that scoring a document needs."""
    nltk: tuple[str, ...] = ()
    """Packages of NLTK's data that `olmes data pull` fetches."""
    texts: tuple[str, ...] = ()
    """Columns whose texts decontamination compares."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> TaskKeys:
        """Read the keys of a task file's content; keys of lm-eval are ignored."""
        values = {name: config[name] for name in TASK_KEYS if config.get(name) is not None}
        for name in ("needs", "nltk", "texts"):
            if name in values:
                values[name] = tuple(values[name])
        return cls(**values)

    def data_spec(self, path: str, config: str | None, sample_file: Path | None = None) -> DataSpec:
        """Build the specification of the data set with Hub id `path` and configuration `config`."""
        return DataSpec(
            path=path,
            config=config or "default",
            revision=self.revision,
            columns=self.columns,
            split_names=self.split_names,
            subset=self.subset,
            hub=self.hub,
            gated=self.gated,
            made_by=self.made_by,
            json_files=self.json_files,
            sample_file=sample_file,
        )


TASK_KEYS = tuple(f.name for f in fields(TaskKeys))
"""Names of the keys, in the order of the fields."""
