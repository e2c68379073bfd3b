"""Documents of RULER, made by lm-eval's generators for a tokenizer, as splits of a mirror.

lm-eval makes 500 documents for each task and length; the first of them are kept.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from olmes_suite.errors import DataError, UsageError, first_line
from olmes_suite.files import storage
from olmes_suite.scoring.scorers import lm_eval_task_file
from olmes_suite.tasks.mirror import Verdict

TASKS = {
    "niah_single_1": "niah_single_1", "niah_single_2": "niah_single_2", "niah_single_3": "niah_single_3",
    "niah_multikey_1": "niah_multikey_1", "niah_multikey_2": "niah_multikey_2", "niah_multikey_3": "niah_multikey_3",
    "niah_multiquery": "niah_multiquery", "niah_multivalue": "niah_multivalue", "vt": "vt", "cwe": "cwe", "fwe": "fwe",
    "qa_squad": "qa_squad", "qa_hotpot": "qa_hotpot",
}  # fmt: skip
"""Our name of a task to the name of its file in lm-eval."""
LENGTHS = {"4k": 4096, "8k": 8192, "16k": 16384, "32k": 32768, "64k": 65536, "128k": 131072}
"""Name of a length to its tokens."""
PATH = "ruler"
COLUMNS = ("input", "outputs", "gen_prefix")
NEEDED = ("nltk", "wonderwords")
"""Modules that lm-eval's generators import."""


def make(tokenizer: str, lengths: Iterable[str], out: Path, documents: int) -> Iterator[Verdict]:
    """Make the documents of all tasks at some lengths. Files that exist are kept.

    Raises UsageError for an unknown length, and for packages or a tokenizer that are missing.
    """
    lengths = list(lengths)
    if unknown := [name for name in lengths if name not in LENGTHS]:
        raise UsageError(f"--length: unknown length {unknown[0]!r}; known: {', '.join(LENGTHS)}")
    if documents < 1 or documents > 500:
        raise UsageError(f"--documents must be from 1 to 500, not {documents}")
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UsageError(f"RULER's generators need {', '.join(missing)}: pip install 'lm_eval[ruler]'")
    _check_tokenizer(tokenizer)
    tokenizer = str(Path(tokenizer).resolve()) if Path(tokenizer).exists() else tokenizer
    out = out.resolve()
    for length in lengths:
        for task in TASKS:
            target = out / PATH / f"{task}_{length}" / "test.parquet"
            place = str(target.relative_to(out))
            if target.is_file():
                yield Verdict(place, "kept")
                continue
            try:
                rows = _rows(task, LENGTHS[length], tokenizer)[:documents]
                if not all(row["outputs"] for row in rows):
                    raise DataError("documents without an answer; texts of this tokenizer are too short at this length")
            except Exception as error:  # the network's, the Hub client's and the generators' own
                yield Verdict(place, "missing", f"the generator failed: {first_line(error)}")
                continue
            _write(rows, target)
            yield Verdict(place, "pulled", f"{len(rows)} rows")


def _check_tokenizer(name: str) -> None:
    from transformers import AutoTokenizer

    try:
        AutoTokenizer.from_pretrained(name)
    except Exception as error:  # transformers raises unrelated types
        raise UsageError(f"--tokenizer {name}: cannot be loaded ({first_line(error)})") from error


def _rows(task: str, tokens: int, tokenizer: str) -> list[dict[str, Any]]:
    """Call lm-eval's generator, which prints its progress and may write into the current folder."""
    from olmes_suite.lm_eval_api import load_yaml

    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with quiet[0], quiet[1], TemporaryDirectory() as folder, contextlib.chdir(folder):
        config = load_yaml(lm_eval_task_file(f"ruler/{TASKS[task]}.yaml"), resolve_func=True)
        found = config["custom_dataset"](max_seq_lengths=[tokens], tokenizer=tokenizer)["test"]
    return [{name: row[name] for name in COLUMNS} for row in found]


def _write(rows: list[dict[str, Any]], target: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    with storage(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), partial)
        partial.replace(target)
