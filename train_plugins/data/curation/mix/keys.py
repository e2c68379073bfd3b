"""The recipe of a mix."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from olmes_suite.errors import UsageError
from olmes_suite.tasks import suites
from olmes_suite.yaml_files import Place
from train_plugins.config.recipe import Form
from train_plugins.data.curation import text_filters
from train_plugins.data.curation.recipe import Curation
from train_plugins.data.curation.reward_prompts import SHOTS, Builder

Kind = Literal["sft", "preference", "rlvr"]
Wanted = Literal["any", "only", "none"]
Sample = Literal["chats", "sums"]
SAMPLES = Path(__file__).parent / "samples"
"""Shipped rows of our own writing."""
UNKNOWN = "unknown"
"""Licence of a source whose licence is not known."""
NO_LICENCE = frozenset({"", UNKNOWN, "none", "null", "n/a", "na", "tbd", "todo", "?", "-"})
"""What stands in place of a licence where none is known."""
OWN = frozenset({
    "id", "source", "row", "skill", "messages", "chosen", "rejected", "ground_truth", "dataset"
})  # fmt: skip
"""Columns of the output that `keep` cannot name."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Rows that are left out; each key counts under its name in `rejected.jsonl`.

    Tokens are those of `tokenizer`, or estimated from the length of the text.
    """

    min_turns: int | None = None
    """User and assistant turns; system and tool turns do not count."""
    max_turns: int | None = None
    min_tokens: int | None = None
    """Tokens of all turns."""
    max_tokens: int | None = None
    min_answer_tokens: int | None = None
    """Tokens of the last assistant turn, the chosen one of a pair."""
    max_answer_tokens: int | None = None
    max_length_difference: int | None = None
    """Tokens by which the answers of a pair may differ."""
    where: Mapping[str, Any] = field(default_factory=dict)
    """Columns of the source and the value, or list of values, that a row must have there."""
    match: str | None = None
    """Regular expression that must occur in the text of some turn."""
    exclude: tuple[str, ...] = ()
    """Regular expressions that must not occur."""
    thoughts: Wanted = "any"
    """Rows with thoughts (`<think>` or reasoning_content): any, only these, or none."""
    tools: Wanted = "any"
    """Rows with tools: any, only these, or none."""
    closed_thoughts: bool = False
    """Leave out rows with a `<think>` that is never closed."""
    repetition: bool = False
    """Leave out rows in which an answer repeats a sentence or paragraph 10 times, or a phrase 50 times."""
    refusal: bool = False
    """Leave out rows in which an answer refuses."""
    meta: bool = False
    """Leave out rows in which an answer is about the answer, or about the model itself."""
    language: str | None = None
    """ISO 639-1 code of the language that rows must be in, such as en; takes milliseconds a row."""
    max_chinese: float | None = None
    """Largest share of Chinese characters in the text, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Source:
    """One source: a file or folder (`path`), a data set of the Hub (`hub`), or a shipped file (`sample`)."""

    path: str | None = None
    hub: str | None = None
    sample: Sample | None = None
    """A few rows that are shipped, to try recipes with: chats, or sums with a column `level`."""
    name: str | None = None
    """Name in the output; by default that of the file, folder or data set."""
    config: tuple[str, ...] = ()
    """Configurations of a data set of the Hub."""
    split: str = "train"
    revision: str | None = None
    form: Form | None = None
    """Form of the rows; None: detected row by row."""
    licence: str | None = None
    skill: str | None = None
    about: str | None = None
    """A remark for the card, such as where a number comes from."""
    amount: int | None = None
    """Number of rows in the mix."""
    fraction: float | None = None
    """Number of rows as a multiple of the source's clean rows: 0.5 is every second one."""
    share: float | None = None
    """Number of rows as a share of the mix, whose size is the recipe's `rows`."""
    upsample: bool = False
    """Whether rows may be repeated where the source has too few."""
    bad_rows: Literal["error", "skip"] = "error"
    """Whether rows that are not of the mix's kind are an error, or left out and listed."""
    filters: Filters = field(default_factory=Filters)
    keep: tuple[str, ...] = ()
    """Columns of the source that stay in the output, besides the recipe's `keep`."""
    build: Builder | None = None
    """Build prompts with a ground truth from rows without one (rlvr): gsm8k, math, constraints."""
    shots: int = 0
    """Exemplars before a built question, as in Tülu 3's data: 8 for gsm8k, 4 for math."""
    constraints: tuple[int, ...] = (1, 3)
    """The least and the largest number of constraints that are added to a prompt."""

    @property
    def place(self) -> str:
        """The path or id, as in the recipe."""
        if self.sample is not None:
            return f"sample {self.sample}"
        return str(self.path if self.path is not None else self.hub)

    @property
    def file(self) -> Path | None:
        """The local file or folder; None for a data set of the Hub."""
        if self.sample is not None:
            return SAMPLES / f"{self.sample}.jsonl"
        return None if self.path is None else Path(self.path).expanduser()

    @property
    def known_licence(self) -> str | None:
        """The licence, unless it is said to be unknown."""
        return None if (self.licence or UNKNOWN).strip().lower() in NO_LICENCE else self.licence


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Which rows count as duplicates. The first source of the recipe keeps its rows."""

    exact: bool = True
    """Leave out rows whose text is equal but for white space."""
    near: float | None = 0.8
    """Similarity (Jaccard, of word n-grams) from which rows are near duplicates; null: not looked for."""
    shingle: int = 5
    """Words of an n-gram."""
    by: Literal["conversation", "prompt"] = "conversation"
    """What is compared: all turns, or those of the prompt."""


@dataclass(frozen=True, slots=True)
class Decontam:
    """The evaluations that the mix is compared with, and what happens to rows that contain their items."""

    suites: tuple[str, ...] = ()
    """Suites; all of them where neither suites, tasks nor a file is named."""
    tasks: tuple[str, ...] = ()
    file: str | None = None
    """A file of your own evaluation items instead, as `olmes decontam --eval` reads it."""
    data_dir: tuple[str, ...] = ()
    on_contamination: Literal["filter", "stop", "warn"] = "filter"
    """Leave the rows out; stop if a source is contaminated; or keep the rows and count them."""


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a published set that is not a source of its own."""

    name: str
    amount: int | None = None
    """Number of rows in the published set; None: not known."""
    licence: str = "unknown"
    hub: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix(Curation):
    """The keys of a mix."""

    sources: tuple[Source, ...]
    kind: Kind = "sft"
    """Conversations, pairs of answers, or prompts with a ground truth."""
    about: str | None = None
    released: str | None = None
    """Hub id of the mix as its authors published it."""
    composition: tuple[Component, ...] = ()
    """What a published set is made of; facts for the reader, which nothing is read from."""
    published: int | None = None
    """Number of rows of the published mix, where the amounts of its parts are not known; a fact for the reader."""
    rows: int | None = None
    """Size of the mix, of which the sources take their `share`."""
    filters: Filters = field(default_factory=Filters)
    """Filters of all sources; a source's own ones come on top."""
    duplicates: Duplicates = field(default_factory=Duplicates)
    decontam: Decontam | None = None
    held_out: float = 0.0
    """Share of the prompts whose rows go to the file held_out; a prompt's text decides, in every mix alike."""
    shuffle: bool = True
    """Whether rows are in an order of the seed, or in that of the sources."""
    licences: Literal["warn", "required"] = "warn"
    """Whether a source without a licence is a warning or an error."""
    keep: tuple[str, ...] = ()
    """Columns that stay in the output."""
    tokenizer: str | None = None
    """Folder or Hub id of the tokenizer that counts tokens; null: a token is estimated as four bytes of text."""
    verifiers: Mapping[str, str] = field(default_factory=dict)
    """Names of verifiers in the data, and those that they are called here (rlvr)."""


def check(mix: Mix, place: Place) -> tuple[str, ...]:
    """Check what the types cannot express and return the sources' names. Raises UsageError."""
    if not mix.sources:
        raise UsageError(f"{place}: sources: at least one is needed")
    if not 0 <= mix.held_out < 1:
        raise UsageError(f"{place.line(('held_out',))}: held_out must be from 0 to below 1, not {mix.held_out}")
    near = mix.duplicates.near
    if near is not None and not 0 < near <= 1:
        raise UsageError(f"{place}: duplicates: near must be above 0 and at most 1, not {near}")
    if mix.duplicates.shingle < 1:
        raise UsageError(f"{place}: duplicates: shingle must be at least 1, not {mix.duplicates.shingle}")
    _check_keep(mix.keep, place)
    if mix.rows is not None and mix.rows < 1:
        raise UsageError(f"{place.line(('rows',))}: rows must be at least 1, not {mix.rows}")
    _check_filters(mix.filters, mix.kind, place.inside("filters"))
    names = _names(mix.sources, place)
    for number, (source, name) in enumerate(zip(mix.sources, names, strict=True)):
        _check_source(source, mix, place.inside("sources", number, named=f"source {name!r}"))
    shares = sum(one.share or 0 for one in mix.sources)
    if shares > 1 + 1e-9:
        raise UsageError(f"{place}: the shares of the sources add up to {shares:g}, which is more than 1")
    if mix.decontam is not None:
        _check_decontam(mix.decontam, place.inside("decontam"))
    return names


def _names(sources: Sequence[Source], place: Place) -> tuple[str, ...]:
    found: list[str] = []
    for number, source in enumerate(sources):
        where = place.inside("sources", number)
        if sum(one is not None for one in (source.path, source.hub, source.sample)) != 1:
            raise UsageError(f"{where.line(())}: give either `path` or `hub` (or `sample`)")
        given = source.sample or (str(source.hub).rsplit("/", 1)[-1] if source.hub else _stem(str(source.path)))
        name = source.name or given
        if name in found and source.name is None:
            name = next(free for n in range(2, len(sources) + 2) if (free := f"{name}-{n}") not in found)
        if name in found:
            raise UsageError(f"{where.line(())}: another source has the name {name!r} too")
        found.append(name)
    return tuple(found)


def _stem(path: str) -> str:
    name = Path(path).name or Path(path).resolve().name
    return name.partition(".")[0] or name


def _check_source(source: Source, mix: Mix, place: Place) -> None:
    sizes = [name for name in ("amount", "fraction", "share") if getattr(source, name) is not None]
    if len(sizes) > 1:
        raise UsageError(f"{place.line((sizes[1],))}: give only one of {' and '.join(sizes)}")
    if source.share is not None and mix.rows is None:
        raise UsageError(f"{place.line(('share',))}: a share needs the recipe's key `rows`, the size of the mix")
    if source.share is None and mix.rows is not None:
        raise UsageError(f"{place.line(())}: the recipe has `rows`, so every source needs a `share`")
    for name, least in (("amount", 1), ("fraction", 0), ("share", 0)):
        value = getattr(source, name)
        if value is not None and (value < least or (least == 0 and not 0 < value < float("inf"))):
            raise UsageError(
                f"{place.line((name,))}: {name} must be {'at least 1' if least else 'above 0'}, not {value}"
            )
    if source.fraction is not None and source.fraction > 1 and not source.upsample:
        raise UsageError(
            f"{place.line(('fraction',))}: fraction {source.fraction:g} asks for more rows than exist; set "
            "`upsample: true` to repeat rows"
        )
    if source.hub is None and (source.config or source.revision):
        raise UsageError(f"{place.line(())}: config and revision belong to `hub`, not to `path`")
    if mix.licences == "required" and source.known_licence is None:
        raise UsageError(f"{place.line(())}: no licence, and the recipe says `licences: required`; set `licence`")
    _check_filters(source.filters, mix.kind, place.inside("filters"))
    _check_keep(source.keep, place)
    if source.build is not None:
        _check_build(source, mix.kind, place)


def _check_keep(columns: Sequence[str], place: Place) -> None:
    if own := next((name for name in columns if name in OWN), None):
        raise UsageError(
            f"{place.line(('keep',))}: keep: the mix writes a column {own!r} itself; rename that of the source, or "
            "leave it out"
        )


def _check_build(source: Source, kind: Kind, place: Place) -> None:
    assert source.build is not None
    if kind != "rlvr":
        raise UsageError(f"{place.line(('build',))}: build makes prompts with a ground truth, and this mix is {kind}")
    if not 0 <= source.shots <= (most := SHOTS[source.build]):
        raise UsageError(f"{place.line(('shots',))}: shots must be from 0 to {most} for {source.build}")
    if len(source.constraints) != 2 or not 1 <= source.constraints[0] <= source.constraints[1]:
        raise UsageError(
            f"{place.line(('constraints',))}: constraints must be the least and the largest number, such as [1, 3]"
        )


def _check_filters(filters: Filters, kind: Kind, place: Place) -> None:
    for name in ("match", "exclude"):
        given = getattr(filters, name) or ()
        for pattern in (given,) if isinstance(given, str) else given:
            try:
                re.compile(pattern)
            except re.error as error:
                raise UsageError(
                    f"{place.line((name,))}: {name}: not a regular expression: {pattern!r} ({error})"
                ) from None
    for one in fields(filters):
        value = getattr(filters, one.name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
            raise UsageError(f"{place.line((one.name,))}: {one.name} must not be negative, not {value}")
    for low, high in (
        ("min_turns", "max_turns"),
        ("min_tokens", "max_tokens"),
        ("min_answer_tokens", "max_answer_tokens"),
    ):
        least, most = getattr(filters, low), getattr(filters, high)
        if least is not None and most is not None and least > most:
            raise UsageError(f"{place.line((low,))}: {low} {least} is more than {high} {most}: no row could stay")
    if filters.language is not None:
        text_filters.check(text_filters.TextFilters(language=filters.language), place)
    if filters.max_length_difference is not None and kind != "preference":
        raise UsageError(f"{place.line(('max_length_difference',))}: only pairs have two lengths; this mix is {kind}")


def _check_decontam(decontam: Decontam, place: Place) -> None:
    if decontam.file is not None and not Path(decontam.file).expanduser().is_file():
        raise UsageError(f"{place.line(('file',))}: file {decontam.file}: no such file")
    if decontam.file is not None and (decontam.suites or decontam.tasks):
        raise UsageError(f"{place.line(('file',))}: a file is compared alone: leave out suites and tasks")
    for suite in decontam.suites:
        try:
            suites.load(suite)
        except UsageError as error:
            raise UsageError(f"{place.line(('suites',))}: {error}") from None
    for folder in decontam.data_dir:
        if not Path(folder).expanduser().is_dir():
            raise UsageError(f"{place.line(('data_dir',))}: data_dir {folder}: no such folder")
