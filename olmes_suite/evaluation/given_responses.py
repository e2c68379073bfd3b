"""Responses from a file, or rows of the same form, read one by one: long responses are not held in memory."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from olmes_suite.errors import UsageError
from olmes_suite.models.stops import cut_at_stop
from olmes_suite.records import Response
from olmes_suite.tasks import index
from olmes_suite.thinking import (
    Parts,
    Reader,
    Thoughts,
    Unclosed,
    built_in,
    check_unclosed,
    choice_of,
    names,
    recorded_reader,
)

ALWAYS_READ = "olmo3_"
"""Start of the names of tasks whose reference reads the thoughts of every response, also of one without marks, but for
those of CRUXEval."""


@dataclass(frozen=True, slots=True)
class GivenThoughts:
    """How the thoughts of given responses are read."""

    thoughts: Thoughts | None
    """None: responses are scored as they are."""
    auto: bool = False
    """Leave a response without a closing mark as it is, since nothing is known of the model."""

    def read(self, response: str | Mapping[str, Any], task: str) -> Parts:
        """Return the parts of a response: a text, or {"text", "thinking"} where the thought came apart from it."""
        if isinstance(response, str):
            content, thinking = response, None
        else:
            content, thinking = response["text"], response.get("thinking")
        if self.thoughts is None:
            return Parts(content or "")
        if thinking is not None:
            return self.thoughts.read_channel(content, thinking)
        always = task.startswith(ALWAYS_READ) and "cruxeval" not in task
        return self.thoughts.read(content, closed_only=self.auto and not always)

    def unread(self, answer: str) -> list[str]:
        """Return the shipped readers whose thoughts an answer contains, where no reader was named."""
        if not self.auto:
            return []
        others = (built_in(name) for name in names() if name != "think")
        return [other.name for other in others if other.open in answer and other.last_close(answer)[0] >= 0]

    def read_again(self, response: Response, task: str, stops: Sequence[str]) -> Response:
        """Return a recorded response, read from what the model said."""
        whole = response.raw if response.raw is not None else response.text or ""
        apart = response.raw is None and not response.unclosed  # a thought in the text would have left a `raw`
        if response.thinking is not None and (apart or response.thinking not in whole):  # a separate channel
            content = None if response.unclosed else cut_at_stop(whole, stops)
            parts = self.read({"text": content, "thinking": response.thinking}, task)
        elif self.thoughts is None:
            parts = Parts(cut_at_stop(whole, stops))
        else:
            opened = True if response.unclosed else None
            parts = self.thoughts.read(cut_at_stop(whole, stops), opened=opened, closed_only=self.auto)
        return replace(response, text=parts.answer, thinking=parts.thinking, unclosed=parts.unclosed)


def given_thoughts(thinking: str | Reader | None = None, unclosed: str | None = None) -> GivenThoughts:
    """Return the reading that `--thinking` and `--unclosed` describe; by default `think`. Raises UsageError."""
    policy, choice = check_unclosed(unclosed), choice_of(thinking)
    if choice == "none":
        return GivenThoughts(None)
    if isinstance(choice, Reader):
        return GivenThoughts(Thoughts(choice, policy))
    return GivenThoughts(Thoughts(built_in("think"), policy), auto=True)


@dataclass(frozen=True, slots=True)
class Reading:
    """The options by which the thoughts of a recorded run are read again; None: as the run read them."""

    thinking: str | None = None
    unclosed: str | None = None

    def policy(self, engine: Mapping[str, Any]) -> Unclosed:
        """Return the policy for unclosed thoughts, given the engine's settings of the manifest. Raises UsageError."""
        return check_unclosed(self.unclosed or engine.get("unclosed"))

    def thoughts(self, engine: Mapping[str, Any]) -> GivenThoughts | None:
        """Return how thoughts are read; None where nothing changes. Raises UsageError."""
        if self.thinking is None and self.unclosed is None:
            return None
        recorded = engine.get("thinking")
        if self.thinking is None and isinstance(recorded, Mapping):
            return GivenThoughts(Thoughts(recorded_reader(recorded), self.policy(engine)))
        return given_thoughts(self.thinking, self.policy(engine))

    def recorded(self, engine: Mapping[str, Any]) -> dict[str, Any]:
        """Return the engine's settings of the manifest after the run was read again."""
        reading = self.thoughts(engine)
        if reading is None:
            return dict(engine)
        others = {name: value for name, value in engine.items() if name not in ("thinking", "unclosed")}
        policy = self.policy(engine)
        if reading.thoughts is not None and not reading.auto:
            others["thinking"] = reading.thoughts.settings()
        return others | ({"unclosed": policy} if policy != "reference" else {})


@dataclass(frozen=True, slots=True)
class ResponseLine:
    """A line of a responses file."""

    task: str
    doc_id: int
    responses: list[str] | None
    """The answers, without the thoughts."""
    loglikelihoods: list[float] | None
    is_greedy: list[bool] | None = None
    """Whether each continuation is the model's greedy answer."""
    unclosed: bool = False
    """Whether a response ends inside a thought."""
    unread: tuple[str, ...] = ()
    """The readers of thoughts, by name, whose marks the responses contain and that were not asked for."""


class GivenResponses:
    """The responses of a file or of rows. Every line is checked at once, and read again when it is scored.

    Raises UsageError naming the line that is not as documented.
    """

    def __init__(
        self, source: Path | Sequence[Mapping[str, Any]], entry: index.TaskEntry, thoughts: GivenThoughts
    ) -> None:
        self.name = str(source) if isinstance(source, Path) else "responses"
        self.entry, self.thoughts = entry, thoughts
        self._source = source
        pipe = isinstance(source, Path) and source.exists() and not source.is_file() and not source.is_dir()
        self._lines = list(self._texts()) if pipe else None  # a pipe can be read only once
        places: set[tuple[str, int]] = set()
        self.unread: Counter[str] = Counter()
        """Number of responses that contain the marks of a reader which does not read them, by its name."""
        for number, item in self._numbered():
            if (item.task, item.doc_id) in places:
                raise UsageError(f"{self.name}, line {number}: doc_id {item.doc_id} of {item.task} is given twice")
            places.add((item.task, item.doc_id))
            self.unread.update(item.unread)
        if not places:
            raise UsageError(f"responses file {self.name} has no responses")
        self.tasks = {task for task, _ in places}
        """The leaf tasks that have responses."""

    def __iter__(self) -> Iterator[ResponseLine]:
        for _, item in self._numbered():
            yield item

    def _numbered(self) -> Iterator[tuple[int, ResponseLine]]:
        for number, line in enumerate(self._texts() if self._lines is None else self._lines, 1):
            if line.strip():
                yield number, _parse_line(line, f"{self.name}, line {number}", self.entry, self.thoughts)

    def _texts(self) -> Iterable[str]:
        if isinstance(self._source, Path):
            return self._from_file(self._source)
        return (json.dumps(dict(row)) for row in self._source)

    def _from_file(self, path: Path) -> Iterator[str]:
        try:
            with path.open(encoding="utf-8", errors="surrogatepass") as handle:
                yield from handle
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"responses file {path} cannot be read: {error}") from error


def _parse_line(line: str, where: str, entry: index.TaskEntry, thoughts: GivenThoughts) -> ResponseLine:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{where}: not JSON ({error})") from error
    if not isinstance(data, dict) or isinstance(data.get("doc_id"), bool) or not isinstance(data.get("doc_id"), int):
        raise UsageError(f"{where}: expected an object with an integer doc_id")
    task = index.full_name(data["task"]) if isinstance(data.get("task"), str) else None
    if task is None and not entry.members:
        task = entry.name
    if task not in entry.leaves:
        sub_tasks = [leaf.removeprefix(index.PREFIX) for leaf in entry.leaves]
        raise UsageError(
            f"{where}: `task` must name a sub-task of {entry.name}{index.nearest(str(data.get('task')), sub_tasks)}"
        )
    texts, loglikelihoods = data.get("responses"), data.get("loglikelihoods")
    ranked = index.index()[task].output in ("multiple_choice", "loglikelihood")
    if ranked and not (
        isinstance(loglikelihoods, list)
        and loglikelihoods
        and all(isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x) for x in loglikelihoods)
    ):
        raise UsageError(
            f"{where}: {task} is scored by log-likelihood and needs `loglikelihoods`, a list of finite numbers"
        )
    if not ranked and not (isinstance(texts, list) and texts):
        raise UsageError(f"{where}: `responses` must be a list of at least one string")
    greedy = data.get("is_greedy")
    if greedy is not None and not (
        loglikelihoods
        and isinstance(greedy, list)
        and len(greedy) == len(loglikelihoods)
        and all(isinstance(x, bool) for x in greedy)
    ):
        raise UsageError(f"{where}: `is_greedy` must be a list of true or false, one for each of `loglikelihoods`")
    if not ranked:
        parts = [thoughts.read(_checked(response, where), task) for response in texts or ()]
        answers = [part.answer for part in parts]
        unread = tuple(name for answer in answers for name in thoughts.unread(answer))
        unclosed = any(part.unclosed for part in parts)
        return ResponseLine(task, data["doc_id"], answers, None, unclosed=unclosed, unread=unread)
    return ResponseLine(task, data["doc_id"], None, [float(x) for x in loglikelihoods or ()], greedy)


def _checked(response: object, where: str) -> str | Mapping[str, Any]:
    """Return a response that is a text, or an object with a text and a thought, of which one may be null."""
    if isinstance(response, str):
        return response
    if not isinstance(response, dict):
        raise UsageError(f'{where}: `responses` must be a list of strings or of {{"text", "thinking"}}')
    text, thinking = response.get("text", ...), response.get("thinking")
    if not (text is None or isinstance(text, str)) or not (thinking is None or isinstance(thinking, str)):
        raise UsageError(f'{where}: a response as an object needs "text" and may have "thinking", both strings or null')
    if text is None and thinking is None:
        raise UsageError(f'{where}: a response has neither "text" nor "thinking"')
    return response
