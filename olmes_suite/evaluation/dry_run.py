"""`olmes eval --dry-run`: what a run would ask, counted without loading a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import ModelError, OlmesError, UsageError
from olmes_suite.evaluation import run_names
from olmes_suite.evaluation.document_cap import cap, limit_note
from olmes_suite.evaluation.plan import Leaf, Options, TaskPlan, choose, load_leaves, preflight
from olmes_suite.evaluation.planned import baseline_of, check_data
from olmes_suite.evaluation.settings_checks import check_settings
from olmes_suite.records import CONTEXT, Request
from olmes_suite.scoring.tools import Tools

if TYPE_CHECKING:
    from olmes_suite.evaluation.prompts import Renderer
    from olmes_suite.runs.schema import Manifest, Results

COUNTED = 100
"""Documents of a leaf task whose requests are rendered; the counts of larger ones are extrapolated from them."""


@dataclass(slots=True)
class Asked:
    """What would be asked for a task."""

    documents: int = 0
    of: int = 0
    """Documents of the whole task."""
    requests: int = 0
    """Texts to complete or to rank; one with several samples counts once."""
    answers: int = 0
    """Answers to generate, each sample by itself."""
    prompt_tokens: int | None = None
    """Tokens of all prompts; None without the model's tokenizer."""
    max_new_tokens: int | None = 0
    """Largest number of tokens to generate, within the context where the tokenizer is known; None without a limit."""
    exact: bool = True
    """Whether the tokens of all requests were counted; otherwise they are extrapolated."""
    seconds: float | None = None
    """Time as in earlier runs of the model; None without one that has the task."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class DryRun:
    """The documents, requests and tokens that a run would need, by top-level task."""

    tasks: Mapping[str, Asked]
    basis: tuple[str, ...] = ()
    """Earlier runs from which the time is estimated."""
    tokenizer: str | None = None
    """Why prompts were not counted in tokens; None where they were."""
    notes: Sequence[str] = field(default_factory=list)

    @property
    def total(self) -> Asked:
        """The sum over the tasks; tokens and seconds are None where a task has none."""
        counted = [asked for asked in self.tasks.values() if asked.error is None]

        def sum_of(name: str) -> Any:
            values = [getattr(asked, name) for asked in counted]
            return None if None in values or not values else sum(values)

        names = ("documents", "of", "requests", "answers")
        totals = {name: sum(getattr(asked, name) for asked in counted) for name in names}
        return Asked(
            **totals, prompt_tokens=sum_of("prompt_tokens"), max_new_tokens=sum_of("max_new_tokens"),
            exact=all(asked.exact for asked in counted), seconds=sum_of("seconds"),
        )  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """Return the counts in the form of `--dry-run --json`."""
        tasks = {name: asdict(asked) for name, asked in self.tasks.items()}
        return {
            "dry_run": True, "tasks": tasks, "total": asdict(self.total), "basis": list(self.basis),
            "notes": list(self.notes),
        }  # fmt: skip


def dry_run(options: Options) -> DryRun:
    """Count what the options would ask. Raises what `evaluation.evaluate.evaluate` raises before it loads a model."""
    notes: list[str] = []
    options.source.show_to_nltk()
    plans, _ = choose(options)
    run_names.check(options, plans)
    baseline = baseline_of(options, plans)
    with closing(Tools(replace(options.tools, mirrors=options.source.mirrors, sample=options.source.sample))) as tools:
        for plan in plans:
            if plan.error is None:
                load_leaves(plan, options)
                if plan.error is None and _cheap(plan, options):
                    preflight(plan, tools)
    cap(plans, options)
    if (line := limit_note(plans, options)) is not None:
        notes.append(line)
    check_data(plans, options, baseline)
    check_settings(plans, options, notes.append)
    renderer, why = _renderer(options)
    tasks = {plan.name: _asked(plan, renderer) for plan in plans}
    basis = _times(tasks, plans, options)
    return DryRun(tasks, basis, why, notes)


def _cheap(plan: TaskPlan, options: Options) -> bool:
    """Tell whether the task's scorers can be checked without loading a model that scores."""
    needs = {name for leaf in plan.leaves for need in leaf.task.keys.needs for name in need.split("|")}
    loaded = (
        "encoder" in needs,
        "judge" in needs and options.tools.judge and options.tools.judge_base_url is None,
        "classifier" in needs and options.tools.classifier and options.tools.classifier_base_url is None,
    )
    return not any(loaded)


def _renderer(options: Options) -> tuple[Renderer | None, str | None]:
    """Load the model's tokenizer where it is a local folder; otherwise say why prompts are not counted in tokens."""
    from olmes_suite.evaluation.prompts import renderer

    if not options.model or not Path(options.model).is_dir():
        return None, "prompt tokens are counted where --model is a local folder, with its tokenizer"
    engine = options.engine
    try:
        return renderer(
            options.model, engine.get("chat_template"), max_length=engine.get("max_length"),
            chat_template_args=options.settings.chat_template_args,
        ), None  # fmt: skip
    except ModelError as error:
        return None, f"prompt tokens are not counted: {error}"


def _asked(plan: TaskPlan, renderer: Renderer | None) -> Asked:
    if plan.error is not None:
        return Asked(error=plan.error)
    total = Asked(prompt_tokens=None if renderer is None else 0)
    for leaf in plan.leaves:
        one = _asked_of_leaf(leaf, renderer)
        for name in ("documents", "of", "requests", "answers", "prompt_tokens", "max_new_tokens"):
            before, more = getattr(total, name), getattr(one, name)
            setattr(total, name, None if before is None or more is None else before + more)
        total.exact = total.exact and one.exact
    return total


def _asked_of_leaf(leaf: Leaf, renderer: Renderer | None) -> Asked:
    rows = list(leaf.rows)
    step = max(1, -(-len(rows) // COUNTED))
    some = replace(leaf, rows=rows[::step])
    chat = renderer is None or renderer.chat
    requests: list[Request] = []
    tokens = 0
    for doc_id, doc in some.documents():
        requests += leaf.requests(doc_id, doc, chat)
    rooms: list[int | None] = []
    for request in requests:
        size = None if renderer is None else _prompt_tokens(leaf, request, renderer)
        tokens += size or 0
        rooms.append(None if renderer is None or size is None else renderer.context - size)
    factor = len(rows) / len(some.rows) if len(some.rows) else 1.0
    generated = [(request, room) for request, room in zip(requests, rooms, strict=True) if request.kind == "generate"]
    unlimited = any(request.max_tokens == CONTEXT for request, _ in generated)
    new = None if unlimited else sum(_most(request, room) * request.samples for request, room in generated)
    return Asked(
        documents=len(rows),
        of=len(leaf.task.task_docs),
        requests=round(len(requests) * factor),
        answers=round(sum(request.samples for request, _ in generated) * factor),
        prompt_tokens=None if renderer is None else round(tokens * factor),
        max_new_tokens=None if new is None else round(new * factor),
        exact=step == 1,
    )


def _prompt_tokens(leaf: Leaf, request: Request, renderer: Renderer) -> int | None:
    """Count the tokens of a prompt as the model receives it. Raises UsageError where the chat template refuses it."""
    try:
        return renderer.sent(request).prompt_tokens
    except OlmesError as error:
        raise UsageError(f"{leaf.name} document {request.doc_id}: {error}") from error


def _most(request: Request, room: int | None) -> int:
    """Return the largest number of tokens of an answer: the request's limit, or the room that the context leaves."""
    limit = request.max_tokens or 0
    return limit if room is None else min(limit, room)


def _times(tasks: Mapping[str, Asked], plans: Sequence[TaskPlan], options: Options) -> tuple[str, ...]:
    """Estimate the time of each task from the latest run of the model, on the same backend, that has it."""
    from olmes_suite.runs.schema import read_manifest, read_results
    from olmes_suite.runs.store import finished

    missing = {plan.name for plan in plans if plan.error is None and plan.documents}
    basis: list[str] = []
    found: list[tuple[float, Path, Manifest]] = []
    for path in finished(options.runs) if options.runs.is_dir() else ():
        try:
            manifest = read_manifest(path)
        except OlmesError:
            continue
        if _same_model(manifest, options) and manifest.time is not None and manifest.time.seconds:
            found.append((manifest.time.started or 0.0, path, manifest))
    for _, path, manifest in sorted(found, key=lambda one: one[0], reverse=True):
        if not missing:
            break
        try:
            per_document = _seconds_per_document(manifest, read_results(path))
        except OlmesError:
            continue
        for name in sorted(missing & per_document.keys()):
            tasks[name].seconds = per_document[name] * tasks[name].documents
            missing.discard(name)
            if path.name not in basis:
                basis.append(path.name)
    return tuple(basis)


def _same_model(manifest: Manifest, options: Options) -> bool:
    if manifest.imported or manifest.sample != options.source.sample:
        return False
    recorded, asked = manifest.model.path or "", options.model
    same = recorded == asked or (
        bool(recorded and asked) and (Path(manifest.folder) / recorded).resolve() == Path(asked).resolve()
    )
    backend = manifest.engine.backend
    return same and (backend == options.backend or (options.backend == "auto" and backend in ("hf", "vllm")))


def _seconds_per_document(manifest: Manifest, results: Results) -> dict[str, float]:
    """Share a run's time between its tasks: in proportion to the tokens of their answers, or to their documents."""
    assert manifest.time is not None
    entries = {name: entry for name, entry in results.top_tasks.items() if entry.error is None and entry.n}
    work = {
        name: entry.n + (entry.answers.n * entry.tokens.total if entry.answers and entry.tokens else 0.0)
        for name, entry in entries.items()
    }
    total = sum(work.values())
    seconds = manifest.time.seconds or 0.0
    return {name: seconds * work[name] / total / entry.n for name, entry in entries.items()} if total else {}
