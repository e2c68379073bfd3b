"""The bridge to lm-eval: the class that task files name, and requests built from lm-eval's instances."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import datasets

from olmes_suite import lm_eval_api
from olmes_suite.errors import UsageError
from olmes_suite.lm_eval_api import ConfigurableTask
from olmes_suite.lm_eval_api import Instance as LmEvalInstance
from olmes_suite.records import Request
from olmes_suite.scoring.scorers import DeferredScorer, Scorer
from olmes_suite.tasks.documents import DataSource, DataSpec, load_split
from olmes_suite.tasks.generation_kwargs import sampling
from olmes_suite.tasks.keys import TASK_KEYS, TaskKeys

lm_eval_api.cache_templates()

ROW = "_row"
"""Column with a document's row in the whole split, present if a task evaluates a selection of rows."""


class Splits(Mapping[str, datasets.Dataset]):
    """The splits of a data set configuration, each read on first use."""

    def __init__(
        self,
        source: DataSource,
        spec: DataSpec,
        where: Mapping[str, Any] | None,
        leave_out: Callable[[Mapping[str, Any]], str | None] | None = None,
    ) -> None:
        self.source, self.spec, self.where, self.leave_out = source, spec, where or {}, leave_out
        self.left_out: dict[int, str] = {}
        """Row of the whole split to the reason why it is left out."""
        self._read: dict[str, datasets.Dataset] = {}

    def __getitem__(self, split: str) -> datasets.Dataset:
        if split not in self._read:
            table = load_split(self.source, self.spec, split)
            # A random fingerprint, because `datasets` would otherwise pickle the table to compute one that is not used.
            self._read[split] = self._select(datasets.Dataset(table, fingerprint=uuid4().hex))
        return self._read[split]

    def _select(self, rows: datasets.Dataset) -> datasets.Dataset:
        conditions = {column: value for column, value in self.where.items() if column in rows.column_names}
        if conditions:
            chosen = set(range(len(rows)))
            for column, value in conditions.items():
                allowed = value if isinstance(value, list) else [value]
                chosen &= {i for i, cell in enumerate(rows[column]) if cell in allowed}
            rows = rows.select(sorted(chosen)).add_column(ROW, sorted(chosen))
        return self._without(rows) if self.leave_out else rows

    def _without(self, rows: datasets.Dataset) -> datasets.Dataset:
        """Return the rows that have a scorer; the other rows are recorded with the reason that `leave_out` returns."""
        assert self.leave_out is not None
        reasons = [self.leave_out(doc) for doc in rows]
        row_numbers = rows[ROW] if ROW in rows.column_names else range(len(rows))
        self.left_out = {row: reason for row, reason in zip(row_numbers, reasons, strict=True) if reason is not None}
        if not self.left_out:
            return rows
        numbered = rows if ROW in rows.column_names else rows.add_column(ROW, list(range(len(rows))))
        return numbered.select([i for i, reason in enumerate(reasons) if reason is None])

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


class SuiteTask(ConfigurableTask):
    """An lm-eval task that reads its documents through `olmes_suite.tasks.documents`.

    A task file may have the keys of `olmes_suite.tasks.keys.TaskKeys` in addition to lm-eval's.
    """

    system: str | None = None
    """A system prompt that the user gave: it comes before the task's own; "" moves the task's into the user's turn."""
    chat_template_args: Mapping[str, Any] = MappingProxyType({})
    """Arguments of the chat template that the user gave."""
    averages_samples = False
    """Whether the score of a document is the mean over its samples, since the user gave their number."""
    source: DataSource | None = None
    """Set by the runner; otherwise read from the environment, so that plain `lm_eval` can use a mirror."""

    def __init__(self, config: dict[str, Any]) -> None:
        config = dict(config)
        self.keys = TaskKeys.of(config)
        for key in ("class", *TASK_KEYS):
            config.pop(key, None)
        self.folder = Path((config.get("metadata") or {}).get("config_source", ".")).parent
        super().__init__(config=config)

    @property
    def spec(self) -> DataSpec:
        """The data set as the task file declares it."""
        return self.keys.data_spec(self.config.dataset_path, self.config.dataset_name, self.folder / "sample.jsonl")

    @property
    def chat(self) -> bool:
        """False if the reference sends this task as plain text."""
        return bool(self.keys.chat)

    @property
    def scorer(self) -> Scorer | DeferredScorer:
        """The scoring function of the task."""
        function = self.config.process_results
        if not isinstance(function, Scorer | DeferredScorer):
            raise UsageError(
                f"{self.config.task}: process_results must be a function decorated with `scorer` or `deferred` of "
                "olmes_suite.scoring"
            )
        return function

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Prepare the data when lm-eval asks for it; splits are read on first use."""
        source = self.source
        if source is None:  # under plain lm-eval
            source = DataSource.from_environment()
            source.show_to_nltk()
        self.dataset = Splits(source, self.spec, self.keys.where, self.keys.leave_out)

    @property
    def left_out(self) -> dict[int, str]:
        """Rows of the whole split that the task cannot score, with the name of the missing scorer."""
        return self.dataset.left_out if len(self.task_docs) and isinstance(self.dataset, Splits) else {}

    def notes(self) -> list[str]:
        """Return lines for the user to print before the run."""
        return []

    def fewshot_docs(self) -> Any:
        """Return the few-shot documents, from the task's `fewshot` function or otherwise by lm-eval's rules."""
        if function := self.keys.fewshot:
            return function(self)
        settings = lm_eval_api.few_shot_settings(self)
        if not self.config.num_fewshot and settings.samples is None and settings.split is None:
            return None
        return super().fewshot_docs()

    @staticmethod
    def resolve_field(doc: Mapping[str, Any], field: str | None = None) -> Any:
        """Resolve a field by lm-eval's rule, but without the template engine for text that is not a template."""
        if field and field not in doc and "{" not in field:
            return field
        return lm_eval_api.resolve_field(ConfigurableTask, doc, field)

    def doc_to_prefix(self, doc: Mapping[str, Any]) -> str | None:
        """Return the assistant's prefix."""
        return self.resolve_field(doc, self.config.gen_prefix)

    def requests(self, doc: Mapping[str, Any], doc_id: int, *, chat: bool) -> list[Request]:
        """Build the requests of a document with lm-eval, as plain text if `chat` is false."""
        template = _keep_messages if chat and self.chat else None
        context = self.fewshot_context(
            doc,
            num_fewshot=self.config.num_fewshot or 0,
            apply_chat_template=template is not None,
            fewshot_as_multiturn=True,
            chat_template=template,
            gen_prefix=self.doc_to_prefix(doc),
        )
        instances = self.construct_requests(
            doc=doc,
            ctx=context,
            metadata=(self.config.task, doc_id, self.config.repeats),
            apply_chat_template=template is not None,
            chat_template=template,
        )
        requests = [
            request_of(instance, i)
            for i, instance in enumerate(instances if isinstance(instances, list) else [instances])
        ]
        return requests if self.system is None else [with_system(request, self.system) for request in requests]


def _keep_messages(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in messages)


def request_of(instance: LmEvalInstance, index: int) -> Request:
    """Convert an lm-eval instance, whose context is messages (role, content) or plain text, to a `Request`."""
    context, argument = instance.args[0], instance.args[1]
    messages = context if isinstance(context, tuple) else None
    prefix = ""
    if messages and messages[-1][0] == "assistant":
        prefix, messages = messages[-1][1], messages[:-1]
    common: dict[str, Any] = {
        "task": instance.task_name, "doc_id": instance.doc_id, "index": index, "messages": messages,
        "text": None if messages is not None else context, "prefix": prefix,
    }  # fmt: skip
    if instance.request_type == "loglikelihood":
        return Request(kind="loglikelihood", continuation=argument, **common)
    settings = sampling(argument)
    return Request(
        kind="generate",
        stop=settings.stop,
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        samples=instance.repeats or 1,
        unset=settings.unset,
        **settings.more,
        **common,
    )


def with_system(request: Request, system: str) -> Request:
    """Return the request with a system prompt before the task's own text, after a blank line, as in lm-eval.

    An empty prompt takes the role away: the task's own system text goes to the start of the first user turn.
    """
    if request.messages is None:
        return replace(request, text=f"{system}\n\n{request.text}") if system else request
    messages = request.messages
    own, rest = (messages[0][1], messages[1:]) if messages and messages[0][0] == "system" else ("", messages)
    if system:
        return replace(request, messages=(("system", f"{system}\n\n{own}" if own else system), *rest))
    if own and rest and rest[0][0] == "user":
        rest = (("user", f"{own}\n\n{rest[0][1]}"), *rest[1:])
    elif own:
        rest = (("user", own), *rest)
    return replace(request, messages=rest)


def call(function: Callable[..., Any] | str | None, doc: Mapping[str, Any]) -> Any:
    """Read a value of a document by a function or a column name; None for None."""
    if function is None:
        return None
    return doc[function] if isinstance(function, str) else function(doc)
