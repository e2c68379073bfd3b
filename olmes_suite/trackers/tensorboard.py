"""TensorBoard: event files in the folder of the run, or in $TENSORBOARD_LOGGING_DIR/NAME."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text import metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

from olmes_suite.trackers.base import Cell, Table, TrackedRun, Tracker

FOLDER = "TENSORBOARD_LOGGING_DIR"
"""The variable that transformers reads too."""


class Tensorboard(Tracker):
    """Event files. The writer of the tensorboard package is used, which needs neither torch nor tensorflow."""

    name: ClassVar[str] = "tensorboard"

    def __init__(self) -> None:
        self.folder = Path()
        self.writer: Any = None

    def start(self, run: TrackedRun, known: Mapping[str, str]) -> Mapping[str, str]:
        """Start another event file in the run's folder; TensorBoard shows the files of a folder as one run."""
        parent = os.environ.get(FOLDER)
        usual = Path(parent, run.name) if parent else run.folder
        self.folder = Path(known.get("folder") or usual).absolute()
        self.writer = EventFileWriter(str(self.folder))
        self.log_facts({name: str(value) for name, value in run.config.items()})
        return {"folder": str(self.folder)}

    def log_scores(self, scores: Mapping[str, float], step: int) -> None:
        """Record numbers at a step."""
        self._write([Summary.Value(tag=name, simple_value=value) for name, value in scores.items()], step)

    def log_facts(self, facts: Mapping[str, str]) -> None:
        """Record texts."""
        self._write([_text(f"run/{name}", _quoted(text)) for name, text in facts.items()], 0)

    def log_table(self, table: Table, step: int) -> None:
        """Record a table as text: each row as its columns below each other, which long texts are readable in."""
        rows = (
            "\n\n".join(f"**{column}**\n\n{_quoted(cell)}" for column, cell in zip(table.columns, row, strict=True))
            for row in table.rows
        )
        self._write([_text(table.name, "\n\n---\n\n".join(rows) or "no rows")], step)

    def _write(self, values: list[Any], step: int) -> None:
        self.writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def finish(self) -> str:
        """Write what is left and return the command that shows it."""
        self.writer.close()
        return f"tensorboard --logdir {self.folder}"


def _text(tag: str, text: str) -> Any:
    tensor = make_tensor_proto([text.encode()])
    return Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(None, None), tensor=tensor)


def _quoted(cell: Cell) -> str:
    """Return the text as a block of code, in which markdown has no links, images or other markup."""
    return "\n".join(f"    {line}" for line in str("–" if cell is None else cell).splitlines() or ("",))
