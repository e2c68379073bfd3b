"""The class of tasks that are a file of questions and answers, its documents and its scoring."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any
from uuid import uuid4

import datasets

from olmes_suite.errors import DataError, UsageError, one_line
from olmes_suite.records import Scored
from olmes_suite.scoring.answer_metrics import best, last_number, stated_letter
from olmes_suite.scoring.multiple_choice import another, dotted
from olmes_suite.scoring.scorers import Scorer
from olmes_suite.tasks.documents import column
from olmes_suite.tasks.question_file import ACC, Columns, Keys, columns, data_file
from olmes_suite.tasks.task import ROW, SuiteTask
from olmes_suite.training_rows.reading import Unreadable, rows_of

Doc = Mapping[str, Any]
TEXT, ANSWERS, OPTIONS, RIGHT = "_text", "_answers", "_options", "_right"
"""Columns of the documents beside those of the file: the prompt, the accepted answers, the choices, the right one."""


class QuestionTask(SuiteTask):
    """A task whose documents are the rows of one file; it does not use mirrors or the Hub."""

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Read the file. Raises DataError naming the row that cannot be used."""
        self.dataset: Any = {"test": self.read()}

    @staticmethod
    def read() -> datasets.Dataset:
        """Read the documents; the class of each task file has its own."""
        raise NotImplementedError


def functions(path: Path, keys: Keys, metrics: Sequence[str]) -> dict[str, Any]:
    """Return the keys of an ordinary task file that are code."""
    file = data_file(path, keys.data)
    found = columns(path, keys, file)
    read = _Reader(path, keys, found, metrics)
    config: dict[str, Any] = {
        "class": type("QuestionTask", (QuestionTask,), {"read": staticmethod(lambda: read.documents(file))}),
        "doc_to_text": _text,
        "process_results": Scorer(_scoring(metrics, found), isolated=False, timeout=60.0, version=1),
        "gold": _gold(metrics),
        "corrupt": _corrupt(metrics),
    }  # fmt: skip
    if metrics[0] == ACC:
        config |= {"doc_to_choice": _letters, "doc_to_target": _right, "target_delimiter": " "}
    else:
        config["doc_to_target"] = _first_answer
    if keys.examples is not None:
        shown = read.rows(data_file(path, keys.examples))[: keys.num_fewshot]
        if keys.num_fewshot is not None and len(shown) < keys.num_fewshot:
            raise UsageError(f"{path}: num_fewshot: {keys.examples} has only {len(shown)} of {keys.num_fewshot} rows")
        config |= {"num_fewshot": len(shown), "fewshot": lambda task: shown, "fewshot_config": {"sampler": "first_n"}}
    return config


class _Reader:
    """Turns the rows of a file into documents."""

    def __init__(self, path: Path, keys: Keys, found: Columns, metrics: Sequence[str]) -> None:
        self.path, self.columns, self.metrics = path, found, metrics
        self.letter = bool(found.choices) and metrics[0] != ACC
        self.template = _template(path, keys.prompt)

    def documents(self, file: Path) -> datasets.Dataset:
        """Read a file as a data set."""
        import pyarrow as pa

        rows = self.rows(file)
        table = pa.table({name: column([row.get(name) for row in rows]) for name in _names(rows)})
        return datasets.Dataset(table, fingerprint=uuid4().hex)

    def rows(self, file: Path) -> list[dict[str, Any]]:
        """Read the rows of a file as documents. Raises DataError naming the row, UsageError for a missing column."""
        documents = []
        for number, row in enumerate(rows_of(file)):
            if isinstance(row, Unreadable):
                raise DataError(f"{file}: {'' if row.why.startswith('line ') else f'row {number}: '}{row.why}")
            try:
                documents.append(self._document(row))
            except ValueError as error:
                raise DataError(f"{file}: row {number}: {error}") from None
        if not documents:
            raise DataError(f"{file}: has no rows")
        return documents

    def _document(self, row: dict[str, Any]) -> dict[str, Any]:
        options = self._options(row)
        question = _string(row, self.columns.question)
        document = {**{name: value for name, value in row.items() if name != ROW}, OPTIONS: options}
        if options:
            right = _right_choice(row.get(self.columns.answer), options, self.columns.answer)
            document |= {RIGHT: right, ANSWERS: [ascii_uppercase[right]]}
        else:
            document |= {RIGHT: -1, ANSWERS: self._answers(row)}
        if self.template is not None:
            document[TEXT] = self.template({**row, "question": question, "choices": options})
        else:
            context = _string(row, self.columns.context) + "\n\n" if self.columns.context else ""
            document[TEXT] = context + self._prompt(question, options)
        return document

    def _prompt(self, question: str, options: Sequence[str]) -> str:
        if not options:
            return question
        if self.letter:
            return f"{question}\n\n{dotted(options)}\nAnswer with the letter of the right choice."
        return f"Question: {question}\n{dotted(options)}Answer:"

    def _options(self, row: Doc) -> list[str]:
        names = self.columns.choices
        if not names:
            return []
        # A row may have fewer choices than there are columns.
        several = [one for name in names if (one := row.get(name)) not in (None, "")]
        value: Any = several if len(names) > 1 else row.get(names[0])
        if isinstance(value, str):
            value = _json(value, names[0])
        if isinstance(value, Mapping):  # {"text": […], "label": […]} or {"A": …, "B": …}
            value = value.get("text", list(value.values()))
        if not isinstance(value, list) or len(value) < 2:
            raise ValueError(f"{names[0]}: expected a list of at least two choices, not {value!r}")
        if len(value) > len(ascii_uppercase):
            raise ValueError(f"{names[0]}: {len(value)} choices, and there are {len(ascii_uppercase)} letters")
        return [str(one) for one in value]

    def _answers(self, row: Doc) -> list[str]:
        name = self.columns.answer
        value = row.get(name)
        listed = value if isinstance(value, list) else [value]
        if wrong := next((one for one in listed if isinstance(one, (list, Mapping))), None):
            raise ValueError(f"{name}: expected a text, a number or a list of them, not {str(wrong)[:60]}")
        answers = [str(one).strip() for one in listed if one is not None and one == one]  # NaN: an empty cell
        if not any(answers):
            raise ValueError(f"{name}: has no answer")
        answers = [answer for answer in answers if answer]
        if "number" in self.metrics and not any(last_number(answer) is not None for answer in answers):
            raise ValueError(f"{name}: {answers[0]!r} has no number, which the metric `number` compares")
        return answers


def _names(rows: Sequence[Doc]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _string(row: Doc, name: str) -> str:
    value = row.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"{name}: is empty")
    if isinstance(value, (list, Mapping)):
        raise ValueError(f"{name}: expected a text, not {one_line(ValueError(json.dumps(value, default=str)), 60)}")
    return str(value)


def _json(text: str, name: str) -> Any:
    """Read a list in a text column, in JSON's form or in Python's."""
    import ast

    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    raise ValueError(f'{name}: expected a list of choices, such as ["red", "blue"], not {text[:60]!r}')


def _right_choice(answer: Any, options: Sequence[str], name: str) -> int:
    """Return the index of the right choice, which is given as its text, its letter, or its index from 0."""
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    letters = ascii_uppercase[: len(options)]
    if isinstance(answer, int) and not isinstance(answer, bool):
        if 0 <= answer < len(options):
            return answer
        raise ValueError(f"{name}: {answer} is not the index of a choice, which is 0 to {len(options) - 1}")
    text = str(answer).strip() if answer is not None else ""
    if text in options and options.count(text) == 1:
        return options.index(text)
    if len(letter := text.strip("().: ").upper()) == 1 and letter in letters:
        return letters.index(letter)
    if text.isdigit() and int(text) < len(options):
        return int(text)
    raise ValueError(f"{name}: {text!r} is none of the choices, a letter from A to {letters[-1]} or an index from 0")


def _template(path: Path, prompt: str | None) -> Callable[[Doc], str] | None:
    """Compile the template of a prompt. Raises UsageError for one that is not valid."""
    if prompt is None:
        return None
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    try:
        template = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(prompt)
    except TemplateError as error:
        raise UsageError(f"{path}: prompt: {one_line(error)}") from None

    def render(row: Doc) -> str:
        try:
            return template.render(**row)
        except TemplateError as error:
            raise UsageError(f"{path}: prompt: {one_line(error)}; columns are {', '.join(row)}") from None

    return render


def _text(doc: Doc) -> str:
    return str(doc[TEXT])


def _letters(doc: Doc) -> list[str]:
    return list(ascii_uppercase[: len(doc[OPTIONS])])


def _right(doc: Doc) -> int:
    return int(doc[RIGHT])


def _first_answer(doc: Doc) -> str:
    return str(doc[ANSWERS][0])


def _scoring(metrics: Sequence[str], found: Columns) -> Callable[[Doc, Any], Scored]:
    def ranked(doc: Doc, loglikelihoods: Sequence[float]) -> Scored:
        best_choice = max(range(len(loglikelihoods)), key=loglikelihoods.__getitem__)
        return Scored({ACC: float(best_choice == doc[RIGHT])}, ascii_uppercase[best_choice])

    def chosen(doc: Doc, response: str) -> Scored:
        letter = stated_letter(response, ascii_uppercase[: len(doc[OPTIONS])])
        return Scored({"exact_match": float(letter == doc[ANSWERS][0])}, letter, failed=not letter)

    def generated(doc: Doc, response: str) -> Scored:
        found_number = last_number(response) if metrics[0] == "number" else None
        read = response.strip() if metrics[0] != "number" else "" if found_number is None else str(found_number)
        return Scored({name: best(name, response, doc[ANSWERS]) for name in metrics}, read, failed=not read)

    return ranked if metrics[0] == ACC else chosen if found.choices else generated


def _gold(metrics: Sequence[str]) -> Callable[[Doc], Any]:
    def gold(doc: Doc) -> Any:
        if metrics[0] == ACC:
            return [0.0 if choice == doc[RIGHT] else -1.0 for choice in range(len(doc[OPTIONS]))]
        return doc[ANSWERS][0]

    return gold


def _corrupt(metrics: Sequence[str]) -> Callable[[Doc], Any]:
    def corrupt(doc: Doc) -> Any:
        if metrics[0] == ACC:
            return [-1.0 if choice == doc[RIGHT] else 0.0 for choice in range(len(doc[OPTIONS]))]
        return another(doc[ANSWERS][0], len(doc[OPTIONS])) if doc[OPTIONS] else "~"

    return corrupt
