"""The family `custom`: eleven prompts, each with a checker of its own."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from datetime import date
from itertools import pairwise

from olmes_suite.constraints.places import countries_of
from olmes_suite.constraints.registry import constraint
from olmes_suite.constraints.text import PUNCTUATION, ascii_only, bare, lines, listed, ruled_sentences, sentences, words


@constraint("custom:character_reverse", profile="reference")
def eagle_backwards(response: str) -> bool:
    """The response contains "bald eagle" backwards."""
    return "elgae dlab" in response.lower()


@constraint("custom:character_reverse", profile="repaired")
def sentence_backwards(response: str) -> bool:
    """The response contains "bald eagle" backwards, not forwards, and has more than these two words."""
    text = response.lower()
    return "elgae dlab" in text and "bald eagle" not in text and len(words(response)) > 2


@constraint("custom:word_reverse", profile="reference")
def eagle_by_words(response: str) -> bool:
    """The words in reverse contain "bald eagle"; they are one sentence, since all punctuation is removed."""
    return "bald eagle" in " ".join(bare(response.lower()).split()[::-1])


@constraint("custom:word_reverse", profile="repaired")
def sentence_by_words(response: str) -> bool:
    """The words in reverse contain "bald eagle", forwards they do not, and there are more than three of them."""
    forwards = words(response.lower())
    return "bald eagle" in " ".join(forwards[::-1]) and "bald eagle" not in " ".join(forwards) and len(forwards) > 3


_CAPITALS = listed("capitals")
"""The reference's list, which lacks Kyiv."""


@constraint("custom:european_capitals_sort", profile="reference")
def capitals_without_kyiv(response: str) -> bool:
    """The 27 capitals of the reference's list, which lacks Kyiv, in order."""
    return [city.strip() for city in ascii_only(response).split(",") if city.strip()] == [*_CAPITALS]


@constraint("custom:european_capitals_sort", profile="repaired")
def capitals(response: str) -> bool:
    """The 28 capitals north of 45 degrees, Kyiv (50.45) between Brussels and Prague. A final full stop is allowed."""
    kyiv = _CAPITALS.index("Prague")
    cities = [city.strip().lower() for city in ascii_only(response).strip().rstrip(".").split(",")]
    spelled = ["kyiv" if city == "kiev" else city for city in cities]
    return spelled == [city.lower() for city in (*_CAPITALS[:kyiv], "Kyiv", *_CAPITALS[kyiv:])]


def _header(names: str, between: str) -> re.Pattern[str]:
    return re.compile(between.join(f'({name}|"{name}")' for name in names.split()) + "$")


_PRODUCTS = _header("ProductID Category Brand Price Stock", r",[ \t]*")
_STUDENTS = _header("StudentID Subject Grade Semester Score", r"\t *")
_CITY = ["ID", "Country", "City", "Year", "Count"]


def _rows(text: str, delimiter: str = ",", keep_quotes: bool = False) -> list[list[str]]:
    """Parse the rows of a CSV. With `keep_quotes`, quotation marks stay in the fields."""
    return list(csv.reader(io.StringIO(text.replace('"', '"""') if keep_quotes else text), delimiter=delimiter))


def _unfenced(response: str) -> str:
    """Strip the code fence around the text, and white space at both ends."""
    fenced = re.fullmatch(r"```\w*\n(.*?)\n?```", response.strip(), re.DOTALL)
    return (fenced[1] if fenced else response).strip()


@constraint("custom:csv_city", profile="reference")
def city_rows(response: str) -> bool:
    """Eight rows of five fields; the first row is exactly the header."""
    rows = _rows(response)
    return len(rows) == 8 and rows[0] == _CITY and all(len(row) == 5 for row in rows)


@constraint("custom:csv_city", profile="repaired")
def filled_city_rows(response: str) -> bool:
    """Eight rows of five non-empty fields, the first the header. A code fence and space around fields are allowed."""
    rows = [[field.strip() for field in row] for row in _rows(_unfenced(response))]
    return len(rows) == 8 and rows[0] == _CITY and all(len(row) == 5 and all(row) for row in rows)


_SPECIAL = re.compile(r"[^\d\w\s]")


def _special(text: str) -> bool:
    r"""A double quote, a special character and a double quote on one line: it matches `".*[^\d\w\s].*"`."""
    line = text.split("\n", 1)[0]
    return line.startswith('"') and _SPECIAL.search(line, 1, max(line.rfind('"'), 1)) is not None


@constraint("custom:csv_special_character", profile="reference")
def special_field_somewhere(response: str) -> bool:
    """Fifteen rows with the header, and a quoted field with a special character; later rows are not checked."""
    if not _PRODUCTS.match(response.split("\n")[0].strip()):
        return False
    rows = _rows(response, keep_quotes=True)
    if len(rows) != 15:
        return False
    for row in rows[1:]:
        if len(row) != 5:
            return False
        if any(map(_special, row)):
            return True
    return False


@constraint("custom:csv_special_character", profile="repaired")
def special_field(response: str) -> bool:
    """Fifteen rows of five fields with the header, and a quoted field with a special character."""
    text = _unfenced(response)
    rows = _rows(text, keep_quotes=True)
    shaped = bool(_PRODUCTS.match(text.split("\n")[0].strip())) and [len(row) for row in rows] == [5] * 15
    fields = [field.strip() for row in rows[1:] for field in row] if shaped else []
    return any(_special(field) and field.endswith('"') and "\n" not in field for field in fields)


@constraint("custom:csv_quotes", profile="reference")
def quoted_fields(response: str) -> bool:
    """Four rows of five tab-delimited fields, all quoted.

    Raises IndexError for an empty field, as the reference does.
    """
    if not _STUDENTS.match(response.split("\n")[0].strip()):
        return False
    rows = _rows(response, delimiter="\t", keep_quotes=True)
    return len(rows) == 4 and all(
        len(row) == 5 and all(field.strip()[0] == '"' == field.strip()[-1] for field in row) for row in rows
    )


@constraint("custom:csv_quotes", profile="repaired")
def quoted_and_filled_fields(response: str) -> bool:
    """Four rows of five tab-delimited fields with the header, all quoted and non-empty. A code fence is allowed."""
    text = _unfenced(response)
    rows = _rows(text, delimiter="\t", keep_quotes=True)
    return (
        bool(_STUDENTS.match(text.split("\n")[0].strip()))
        and [len(row) for row in rows] == [5] * 4
        and all(_quoted(field.strip()) for row in rows for field in row)
    )


def _quoted(field: str) -> bool:
    """The field is one quoted text that holds a word."""
    inner = field[1:-1]
    return len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner and re.search(r"\w", inner) is not None


_DAYS = {1: 31, 2: 29, 3: 31, 4: 30, 5: 31, 6: 30, 7: 31, 8: 31, 9: 30, 10: 31, 11: 30, 12: 31}


@constraint("custom:date_format_list", profile="reference")
def dates_by_shape(response: str) -> bool:
    """Items of the form YYYY-MM-DD from 1769 to 1821; month 00, day 00 and a single date pass."""
    return all(map(_is_date, response.strip().split(",")))


def _is_date(item: str) -> bool:
    if not re.match(r"\d{4}-\d{2}-\d{2}$", item.strip()):
        return False
    year, month, day = map(int, item.strip().split("-"))
    return 1769 <= year <= 1821 and month <= 12 and day <= _DAYS.get(month, 99)


@constraint("custom:date_format_list", profile="repaired")
def dates(response: str) -> bool:
    """At least two calendar days, written YYYY-MM-DD, within Napoleon's life. A final full stop is allowed."""
    items = [item.strip() for item in response.strip().rstrip(".").split(",")]
    if not all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", item) for item in items):
        return False
    try:
        days = {date.fromisoformat(item) for item in items}
    except ValueError:
        return False
    return len(days) > 1 and date(1769, 8, 15) <= min(days) and max(days) <= date(1821, 5, 5)


@constraint("custom:multiples")
def multiples(response: str) -> bool:
    """The numbers in the response are the multiples of 7 from 14 to 49."""
    return [int(number) for number in re.findall(r"\d+", response)] == list(range(14, 50, 7))


_QUESTION = re.compile(r"Question \d+[\.|\):;]?\s*")
_CHOICE = re.compile(r"([A-Ea-e])[\.|\)]\s*\w+")


def _longer_and_longer(questions: list[str], valid_choices: Callable[[list[str]], bool]) -> bool:
    """Return whether four questions have valid choices and the text before the choices grows from one to the next."""
    lengths = []
    for question in questions:
        stripped = [line.strip() for line in question.split("\n")]
        letters = [match[1] for line in stripped if (match := _CHOICE.match(line))]
        if not valid_choices(letters):
            return False
        first = next(i for i, line in enumerate(stripped) if _CHOICE.match(line))
        lengths.append(len(" ".join(stripped[:first]).strip()))
    return len(lengths) == 4 and all(one < other for one, other in pairwise(lengths))


@constraint("custom:mcq_count_length", profile="reference")
def questions_by_count(response: str) -> bool:
    """Four "Question N", each longer than the one before, with five lines that begin like choices of any letter."""
    if not response.startswith("Question"):
        # The reference compares with the text from the first "Question" on; without one, with the last character.
        return False
    pieces = [piece.strip() for piece in _QUESTION.split(response)]
    return _longer_and_longer([piece for piece in pieces if piece], lambda letters: len(letters) == 5)


@constraint("custom:mcq_count_length", profile="repaired")
def questions_with_choices(response: str) -> bool:
    """Four questions that begin with "Question", each longer than the one before, with choices A to E in order.

    Numbers after "Question" are optional.
    """
    text = response.strip().replace("**", "")
    pieces = re.split(r"^Question\b[ \d]*[.):;]?\s*", text, flags=re.MULTILINE)
    if pieces[0].strip():
        return False
    return _longer_and_longer(pieces[1:], lambda letters: "".join(letters).upper() == "ABCDE")


@constraint("custom:reverse_newline", profile="reference")
def lines_down_from_zimbabwe(response: str) -> bool:
    """At least 52 lines in reverse order from the first line with "Zimbabwe" on, whatever the lines are."""
    ends = PUNCTUATION + " "
    stripped = [ascii_only(line.strip(ends)) for line in response.split("\n") if line.strip(ends)]
    start = next((place for place, line in enumerate(stripped) if "Zimbabwe" in line), len(stripped))
    return len(stripped) - start >= 52 and stripped[start:] == sorted(stripped[start:], reverse=True)


_AFRICA = frozenset(listed("africa"))


@constraint("custom:reverse_newline", profile="repaired")
def africa_reversed(response: str) -> bool:
    """The 54 countries of Africa, one a line, in reverse order of the names that the response uses.

    Numbers and bullets before a name are allowed; a line that is not a country, such as a preamble, is not.
    """
    names = [_bare_name(ascii_only(line)).lower() for line in lines(response)]
    names = [name.removeprefix("the ") for name in names]
    known = countries_of()
    countries = [known.get(name.replace(".", "")) for name in names]
    optional = {"western sahara", "sahrawi arab democratic republic"}
    required = [country for country, name in zip(countries, names, strict=True) if name not in optional]
    return len(required) == len(_AFRICA) and set(required) == _AFRICA and names == sorted(names, reverse=True)


def _bare_name(line: str) -> str:
    r"""The line without what stands around a name: `re.sub(r"^[\W\d_]+|[\W_]+$", "", line)`."""
    line = re.sub(r"^[\W\d_]+", "", line)
    end = len(line)
    while end and not line[end - 1].isalnum():
        end -= 1
    return line[:end]


_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@constraint("custom:sentence_alphabet", profile="reference", version=2)
def sentences_from_a_to_z(response: str) -> bool:
    """26 sentences that begin with the letters a to z; a quotation mark before the letter fails."""
    return "".join(sentence.lstrip()[0].lower() for sentence in ruled_sentences(response)) == _LETTERS


@constraint("custom:sentence_alphabet", profile="repaired", needs=("punkt_tab",))
def words_from_a_to_z(response: str) -> bool:
    """26 sentences whose first words begin with the letters a to z; marks before a word are allowed."""
    word_lists = [words(sentence.lower()) for sentence in sentences(response)]
    return "".join(in_sentence[0][0] for in_sentence in word_lists if in_sentence) == _LETTERS
