"""Generation of texts in rows with shared prefixes, where a new text takes the place of each finished row."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from olmes_suite.models.hf.decoding import Choosing, RowPenalties, RowSampler, RowStop, checked, generator
from olmes_suite.models.hf.prefix_tree import Node, release
from olmes_suite.models.hf.reuse import SharedModel
from olmes_suite.models.hf.shared_attention import Layers, Pass, Prefix
from olmes_suite.models.local.jobs import Generation

GROWTH = 64
"""The smallest number of tokens by which the rows' store grows."""


@dataclass(slots=True)
class Task:
    """A text to generate, with the node of its prompt's shared prefix."""

    job: Generation
    node: Node | None

    @property
    def prompt(self) -> tuple[int, ...]:
        """The part of the prompt after the shared prefix."""
        return self.job.prompt[self.node.end if self.node else 0 :]


@dataclass(slots=True)
class _Row:
    task: Task
    stop: RowStop
    source: int | torch.Generator
    choosing: Choosing
    penalties: RowPenalties | None
    stored: int
    """Tokens after the shared prefix whose keys and values are stored."""


class Decoder:
    """A decoder of a list of texts, `most` rows at a time. Another decoder can continue with unfinished tasks."""

    def __init__(
        self, model: SharedModel, tasks: Sequence[Task], stop: Callable[[Generation], RowStop], most: int, tokens: int,
        *, repetition: float = 1.0,
    ) -> None:  # fmt: skip
        """Prepare the tasks. `stop` makes the end of a row; `tokens` is the limit of tokens in one forward pass.

        `repetition` is the checkpoint's repetition penalty, for requests without their own.
        """
        self.model, self.make_stop, self.most, self.tokens = model, stop, most, tokens
        self.repetition = repetition
        self.waiting = deque(tasks)
        self.rows: list[_Row] = []
        self.finished: list[tuple[Generation, RowStop]] = []
        self._store: Layers = []
        self._prefixes: list[Prefix] | None = None
        self._sampler: RowSampler | None = None

    @property
    def left(self) -> list[Task]:
        """The unfinished tasks, those of the current rows first."""
        return [*(row.task for row in self.rows), *self.waiting]

    def take_finished(self) -> list[tuple[Generation, RowStop]]:
        """Remove and return the finished texts."""
        finished, self.finished = self.finished, []
        return finished

    def advance(self) -> bool:
        """Generate until a text is added to `finished` or no task is left. Returns True."""
        with self.model.active():
            while not self.finished and (self.rows or self.waiting):
                free = self.most - len(self.rows)
                if self.waiting and (free >= max(1, self.most // 4) or not self.rows):
                    self._fill()
                else:
                    self._step()
        return True

    # new rows ------------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Start tasks until all rows are in use."""
        while self.waiting and (free := self.most - len(self.rows)):
            self._admit(free)

    def _admit(self, number: int) -> None:
        """Start up to `number` tasks: encode their prompts, equal ones once, and take their first tokens."""
        batch: dict[tuple[int, tuple[int, ...]], list[Task]] = {}
        widest = 0
        while number and self.waiting:
            task = self.waiting[0]
            key = (id(task.node), task.prompt)
            wider = max(widest, len(task.prompt))
            if batch and key not in batch and (len(batch) + 1) * wider > self.tokens:
                break
            batch.setdefault(key, []).append(self.waiting.popleft())
            widest, number = wider, number - 1
        groups = list(batch.values())
        first = len(self.rows)
        for task in (task for group in groups for task in group):  # in `left` as current rows if memory runs out
            source = generator(task.job.seed, self.model.device) if task.job.request.temperature else 0
            choosing = Choosing.of(task.job.request, self.repetition)
            penalties = RowPenalties(choosing, task.job.prompt) if choosing.penalised else None
            self.rows.append(_Row(task, self.make_stop(task.job), source, choosing, penalties, len(task.prompt)))
        logits = self._encode([group[0] for group in groups], [len(group) for group in groups], first, widest)
        self._prefixes = self._sampler = None
        self._take(logits, first)

    def _encode(self, tasks: Sequence[Task], times: Sequence[int], first: int, width: int) -> torch.Tensor:
        """Return the [rows, vocabulary] logits of the prompts' last tokens, each row repeated as in `times`."""
        device = self.model.device
        ids = torch.tensor([[*task.prompt, *[0] * (width - len(task.prompt))] for task in tasks], device=device)
        starts = torch.tensor([[task.node.end if task.node else 0] for task in tasks], device=device)
        positions = starts + torch.arange(width, device=device)
        picks = torch.tensor([[len(task.prompt) - 1] for task in tasks], device=device)
        longest = max(len(task.job.prompt) + task.job.budget for task in tasks)
        positions = positions.clamp_max(longest)  # of the padding, whose positions do not matter
        state = Pass(positions, self.model.prefixes([task.node for task in tasks]), record=True)
        logits = self.model.logits(ids, state, picks)[:, -1]
        copies = torch.repeat_interleave(torch.tensor(times, device=device))
        self._widen(width + 1, state.recorded)
        for (keys, values), (new_keys, new_values) in zip(self._store, state.recorded, strict=True):
            keys[first : first + len(copies), :, :width] = new_keys[copies]
            values[first : first + len(copies), :, :width] = new_values[copies]
        return logits[copies]

    def _widen(self, width: int, like: Layers | None = None) -> None:
        """Make the store at least `width` tokens wide."""
        current = self._store[0][0].shape[2] if self._store else 0
        if width <= current:
            return
        wide = max(width, current + max(GROWTH, current // 4))
        if not self._store:
            assert like is not None
            for keys, values in like:
                shape = (self.most, keys.shape[1], wide)
                self._store.append((keys.new_empty(*shape, keys.shape[3]), values.new_empty(*shape, values.shape[3])))
                for tensor in self._store[-1]:
                    tensor.zero_()  # masked values are multiplied by 0 and must be finite
            return
        for number, pair in enumerate(self._store):
            self._store[number] = (_widened(pair[0], wide), _widened(pair[1], wide))

    # next tokens ---------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        device, rows = self.model.device, self.rows
        if self._prefixes is None:
            self._prefixes = self.model.prefixes([row.task.node for row in rows])
        stored = torch.tensor([[row.stored] for row in rows], device=device)
        starts = torch.tensor([[row.task.node.end if row.task.node else 0] for row in rows], device=device)
        width = max(row.stored for row in rows) + 1
        self._widen(width)
        state = Pass(
            starts + stored,
            self._prefixes,
            visible=(torch.arange(width, device=device) <= stored)[:, None],
            store=self._store,
            places=stored,
            starts=starts,
            width=width,
        )
        last = torch.tensor([[row.stop.tokens[-1]] for row in rows], device=device)
        logits = self.model.logits(last, state, torch.zeros_like(last))[:, -1]
        for row in rows:
            row.stored += 1
        self._take(logits, 0)

    def _take(self, logits: torch.Tensor, first: int) -> None:
        """Add a token to each row from `first` on, remove rows that end, and move the last rows into their places."""
        logits = logits.float()
        tokens = checked(self._drawn(logits, first).argmax(dim=-1), logits)
        for row, token in zip(self.rows[first:], tokens.tolist(), strict=True):
            row.stop.add(token)
            if row.penalties is not None and row.stop.reason is None:
                row.penalties.add(token)
        for place in range(len(self.rows) - 1, first - 1, -1):
            row = self.rows[place]
            if row.stop.reason is None:
                continue
            self.finished.append((row.task.job, row.stop))
            release(row.task.node)
            last = len(self.rows) - 1
            self.rows[place] = self.rows[last]
            for tensor in (tensor for pair in self._store for tensor in pair):
                if place < last:
                    tensor[place] = tensor[last]
                tensor[last].zero_()  # a NaN would reach the next row here, since masked values are multiplied by 0
            self.rows.pop()
            self._prefixes = self._sampler = None

    def _drawn(self, logits: torch.Tensor, first: int) -> torch.Tensor:
        """Return the logits with penalties, and all but the drawn token of sampled rows at minus infinity."""
        rows = self.rows[first:]
        if all(row.choosing.plain for row in rows):
            return logits
        if any(row.penalties for row in rows):
            logits = logits.clone()  # the caller looks for logits that are not finite in its own
            for place, row in enumerate(rows):
                if row.penalties is not None:
                    logits[place] = row.penalties.apply(logits[place])
        if not any(row.choosing.temperature for row in rows):
            return logits
        if self._sampler is None or first:
            self._sampler = RowSampler([row.choosing for row in rows], [row.source for row in rows], self.model.device)
        sampler = self._sampler
        if first:
            self._sampler = None
        return sampler(torch.empty(0), logits)


def _widened(tensor: torch.Tensor, width: int) -> torch.Tensor:
    rows, heads, current, size = tensor.shape
    wide = tensor.new_zeros(rows, heads, width, size)
    wide[:, :, :current] = tensor
    return wide
