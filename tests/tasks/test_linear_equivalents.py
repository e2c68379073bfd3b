"""Patterns and readers that were rewritten to take linear time give what the reference's own forms give."""

from __future__ import annotations

import re
from itertools import combinations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from olmes_suite.constraints import custom, format, format_of_text
from olmes_suite.constraints.text import ending, tokens, words
from olmes_suite.judges import wildguard
from olmes_suite.sandbox.sanitize import longest_code, parses
from olmes_suite.scoring import language_resources
from olmes_suite.scoring.patterns import between, unwrapped
from train_plugins.verifiers.task_modules import task

QUICKLY = settings(deadline=None, max_examples=300)


def made_of(pieces: str, most: int = 14) -> st.SearchStrategy[str]:
    """Texts made of pieces, which are separated by |."""
    return st.lists(st.sampled_from(pieces.split("|")), max_size=most).map("".join)


@QUICKLY
@given(made_of("<<|<|>>|>|a|\n|<<b|\r| "))
@pytest.mark.long
def test_between(text: str) -> None:
    found = [text[span.inner : span.inner_end] for span in between(re.compile("<<"), re.compile(">>"), text)]
    assert found == re.findall("<<(.*?)>>", text)
    assert unwrapped(re.compile("<<"), re.compile(">>"), text) == re.sub("<<(.*?)>>", r"\1", text)


@QUICKLY
@given(made_of("Therefore, the final answer is |THEREFORE, the final answer is |. I hope it is correct.|"
               "! I hope it is correct!|7|\n| |.|x"))  # fmt: skip
@pytest.mark.long
def test_deepmind_phrases(text: str) -> None:
    module = task("deepmind_math")
    for hope, dot in ((module._HOPE_V0, "."), (module._HOPE_V3, r"\.")):
        found = re.findall(rf"(?i)Therefore, the final answer is (.*?){dot} I hope it is correct.", text)
        assert [text[span.inner : span.inner_end] for span in between(module._PHRASE, hope, text)] == found


@QUICKLY
@given(made_of("I hope it is correct| |\n|\t|.|7|x|\u00a0|I hope"))
@pytest.mark.long
def test_deepmind_closing_words(text: str) -> None:
    assert task("deepmind_math")._without_hope(text) == re.sub(r"\s*\.?\s*I hope it is correct.*", "", text)


@QUICKLY
@given(made_of("#### |####|1|,|$|.|\n| |x"))
@pytest.mark.long
def test_gsm8k_comparison(text: str) -> None:
    expected = text
    for pattern in (",", "\\$", "(?s).*#### ", "\\.$"):
        expected = re.sub(pattern, "", expected)
    assert task("gsm8k").compared(text) == expected


@QUICKLY
@given(made_of("harmful:|: | yes|no|n/a|\n|Response refusal:|\r|x"))
@pytest.mark.long
def test_wildguard_lines(text: str) -> None:
    match = re.match(r".*:(.*)\n.*:(.*)\n.*:(.*)", text)
    said = [part.strip().lower() for part in match.groups()] if match else []
    verdict = wildguard.parse(text)
    read = {"yes": True, "no": False}
    expected = [read.get(answer) for answer in said] or [None] * 3
    assert [verdict.harmful_request, verdict.refusal, verdict.harmful_response] == expected


# MATH ---------------------------------------------------------------------------------------------------------------


def normalized(answer: str) -> str:
    """Minerva's normalisation in its own patterns."""
    module = task("math")
    text = answer.rpartition("=")[2]
    for before, after in module._minerva().SUBSTITUTIONS:
        text = text.replace(before, after)
    for unit in module._minerva().REMOVED_EXPRESSIONS:
        text = text.replace(unit, "")
    text = re.sub(r"(.*?)(\$)(.*?)(\$)(.*)", "$\\3$", text)
    for command in ("text", "textbf", "overline"):
        text = re.sub(rf"\\{command}\{{(.*?)\}}", r"\1", text)
    text = re.sub(r"\\boxed\{(.*)\}", r"\1", text)
    text = re.sub(r"frac([^{])(.)", r"frac{\1}{\2}", text)
    text = re.sub(r"sqrt([^{])", r"sqrt{\1}", text).replace("$", "")
    return text.replace(",", "") if text.replace(",", "").isdigit() else text


@QUICKLY
@given(made_of("$|\\text{|\\textbf{|\\overline{|\\boxed{|}|{|7|x|\n|,|=|\\frac|\\sqrt| |.|\r"))
@pytest.mark.long
def test_minerva_normalisation(text: str) -> None:
    assert task("math").normalize(text) == normalized(text)


@QUICKLY
@given(made_of("Final Answer: The final answer is|. I hope it is correct.|, I hope it is correct!|$7$|\n| |x|."))
@pytest.mark.long
def test_minerva_sentence(text: str) -> None:
    found = re.search(r"Final Answer: The final answer is(.*?). I hope it is correct.", text + "I hope it is correct.")
    expected = normalized(found.group(1).strip() if found else "[invalidanswer]")
    assert task("math").final_answer(text) == expected


GOLDS = ("12", "x", "\\frac{1}{2}", "2x+1", "0", "ab", "-3", "x^2")
LATEX = made_of("1|2|12|0|x|ab|d|+|-|*|/|^|_|(|)|{|}|[|]|,|.|. |;|'|!|:|\\frac{1}{2}|\\sqrt{4}|\\frac|\\left(|\\right)|"
                "\\,|\\text|\\cdot|\\pi|\\%|<|\\|||\n|é|wehave|\\sin|~|?", 8)  # fmt: skip


def by_sympy_alone(answer: str, gold: str) -> bool:
    import sympy
    from sympy.parsing.latex import parse_latex

    try:
        difference = parse_latex(answer) - parse_latex(gold)
        return bool(difference == 0 or sympy.simplify(difference) == 0)
    except Exception:
        return False


@settings(deadline=None, max_examples=150)
@given(answer=LATEX, gold=st.sampled_from(GOLDS), right=st.booleans())
@pytest.mark.long
def test_sympy_reads_the_same(answer: str, gold: str, right: bool) -> None:
    """Half of the answers begin with the gold one, and go on as prose does."""
    text = f"{gold}{answer}" if right else answer
    assume(text.count("!") + ("^" in text) < 2)  # SymPy alone would compute 12!!! until the memory is full
    assert task("math").same_by_sympy(text, gold) == by_sympy_alone(text, gold)


@pytest.mark.long
@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("12. So the answer is twelve", "12", False),
        ("12, so the answer is twelve", "12", True),
        ("x. So the answer is x", "x", True),
        ("12,3", "12", True),
        ("12) and more", "12", True),
        ("(12, 3)", "12", False),
        ("12 é", "12", False),
        ("wehavetofindthesumofthetwointegersandthenwedivideitbythree. 12", "12", False),
        ("abcefghijklmnopqrstuvwxyzabcefghijklmnopqrstuvwxyz0", "0", True),  # a product with 0
        ("ababababababababababababababababababababababababababababab", "a^{29}b^{29}", True),
        ("wehavetwo-digitnumbersandthesumofallofthosenumbersisthenumber", "w", False),
        ("w+wehavetwodigitnumbersandthesumofthem-wehavetwodigitnumbersandthesumofthem", "w", True),
        ("-abababababababababababababababababababababababababababab+c", "c-a^{28}b^{28}", True),
        ("-abababababababababababababababababababababababababababab+c", "c-a^{28}b^{29}", False),
        ("-ababababababababababababababababababababababababababab+c", "c-a^{27}b^{27}", True),
    ],
)
def test_what_stands_behind_an_expression_is_not_read(answer: str, gold: str, same: bool) -> None:
    assert task("math").same_by_sympy(answer, gold) is same is by_sympy_alone(answer, gold)


# IFEval and the constraints -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def splitter() -> None:
    if language_resources.missing("punkt_tab"):
        pytest.skip("NLTK's punkt_tab is not on this machine")


IFEVAL = {
    "detectable_content:number_placeholders": ({"num_placeholders": 1}, {"num_placeholders": 2}),
    "detectable_content:postscript": ({"postscript_marker": "P.S."}, {"postscript_marker": "P.P.S"},
                                      {"postscript_marker": "PS:"}),
    "detectable_format:number_bullet_lists": ({"num_bullets": 1}, {"num_bullets": 2}, {"num_bullets": 3}),
    "detectable_format:title": ({},),
    "change_case:capital_word_frequency": ({"capital_frequency": 2, "capital_relation": "less than"},
                                           {"capital_frequency": 2, "capital_relation": "at least"}),
}  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(text=made_of("*|-|\n| |\t|a|[|]|<<|>>|<|>|P.S.|P.P.S| p. s|PS:|YES|No.|** |\r"))
@pytest.mark.parametrize("name", IFEVAL)
def test_ifeval_checkers(name: str, text: str, splitter: None) -> None:
    module = task("ifeval")
    for arguments in IFEVAL[name]:
        checker = module._checker(name, arguments, "")
        assert module._follows(checker, text) == bool(checker.check_following(text)), arguments
    assert set(module._linear().CHECKS) == set(IFEVAL)


@settings(deadline=None, max_examples=100)
@given(text=made_of("He said so. |Dr. No|It's 3.5!|\"Yes.\" |\n|word |Word. |? |U.S. |'tis |..."))
@pytest.mark.long
def test_tokens(text: str, splitter: None) -> None:
    import nltk

    assert tokens(text) == nltk.word_tokenize(text)


FIELD = made_of('"|a|!| |\n|_|1')


@QUICKLY
@given(FIELD)
@pytest.mark.long
def test_quoted_fields(field: str) -> None:
    special = re.compile(r'".*[^\d\w\s].*"')
    assert custom._special(field) == bool(special.match(field))
    assert custom._quoted(field.strip()) == bool(re.fullmatch(r'\s*"[^"]*\w[^"]*"\s*', field))
    text = field.strip()
    assert (custom._special(text) and text.endswith('"') and "\n" not in text) == bool(special.fullmatch(text))


@QUICKLY
@given(made_of("1. |- |Chad|_|é|!|.| |2"))
@pytest.mark.long
def test_names_and_endings(line: str) -> None:
    assert custom._bare_name(line) == re.sub(r"^[\W\d_]+|[\W_]+$", "", line)
    assert ending(line + '" ) ') == re.sub(r"[\s\"'”’»)\]}*_~`]+$", "", line + '" ) ')[-1:]


def walked(lines: list[str]) -> list[str]:
    for line in lines:
        if not line.strip():
            lines.remove(line)
    return lines


@QUICKLY
@given(st.lists(st.sampled_from(["", " ", "\t", "a", " b"]), max_size=12))
@pytest.mark.long
def test_blank_lines_that_a_walk_removes(lines: list[str]) -> None:
    assert format._without_blank_lines(lines) == walked([*lines])


@QUICKLY
@given(made_of("\n|# A|<h1>b</h1>|**c**|:|<i>d</i>| e| |\t|##|text"))
@pytest.mark.long
def test_headings(text: str) -> None:
    old = re.compile(r"^\s*(?:#{1,6}\s.*|<h[1-6]\b.*?</h[1-6]>|\*\*[^*]+\*\*:?)\s*$", re.MULTILINE | re.IGNORECASE)
    parts = [
        [part.strip() for part in pattern.split(text) if part.strip()] for pattern in (old, format_of_text._HEADING)
    ]
    assert parts[0] == parts[1]


@QUICKLY
@given(made_of("Question 1|Question 2:|Question|\n|a) b|A. c|text| |."))
@pytest.mark.long
def test_questions(text: str) -> None:
    old = re.compile(r"\n*(?:Question \d+[\.|\):;]?\s*)")
    parts = [[part.strip() for part in pattern.split(text) if part.strip()] for pattern in (old, custom._QUESTION)]
    assert parts[0] == parts[1]


def nested(text: str) -> bool:
    """`quotes_nested` with the words of every quote looked for."""
    text = re.sub(r"(?<=\w)['’](?=\w)", "", text)
    stack: list[tuple[str, int, int]] = []
    for place, character in enumerate(text):
        if stack and character == stack[-1][0]:
            _, start, inner = stack.pop()
            depth = inner + 1 if words(text[start:place]) else 0
            if depth >= 3:
                return True
            if stack:
                mark, start, known = stack[-1]
                stack[-1] = (mark, start, max(known, depth))
        elif character in "\"'":
            stack.append((character, place, 0))
    return False


@QUICKLY
@given(made_of("\"|'| |a|_|.|\"'", 20))
@pytest.mark.long
def test_nested_quotes(text: str) -> None:
    assert format.quotes_nested(text) == nested(text)


# BigCodeBench -------------------------------------------------------------------------------------------------------

LINES = (
    "", "  ", "def f(x):", "    return x", "    if x:", "        y = 1", "the cat sat", "```python", "```", "x = 1",
    "x = (", "1)", "'''", '"""', "x = 'a\\", "b'", "y = 2 \\", "# c", "import os", "class A:", "\u00a0", "Word: it",
    "else:", "@d", "\f", "a\r", "\tz", "try:", "{", "}", "\\", "\0",
)  # fmt: skip


def longest_of_all_runs(text: str) -> str:
    """Every run of two or more lines is parsed, those with the most lines that are not blank first."""
    lines = text.split("\n")
    if len(lines) > 1 and lines[0].strip() and lines[-1].strip() and parses(text):
        return text
    runs = [(i, j) for i, j in combinations(range(len(lines)), 2) if any(line.strip() for line in lines[i : j + 1])]
    runs.sort(key=lambda run: (-sum(bool(line.strip()) for line in lines[run[0] : run[1] + 1]), run))
    return next((code for i, j in runs if parses(code := "\n".join(lines[i : j + 1]))), lines[0])


@QUICKLY
@given(st.lists(st.sampled_from(LINES), max_size=12).map("\n".join))
@pytest.mark.long
def test_longest_code(text: str) -> None:
    assert longest_code(text) == longest_of_all_runs(text)


def test_a_solution_among_looping_prose_is_found() -> None:
    program = "import re\n\ndef task_func(x):\n    return re.sub('a', '', x)"
    prose = "So the function (see above) does what it should.\n" * 2000
    assert longest_code(f"{prose}```python\n{program}\n```\n{prose}") == program
    assert longest_code(f"{program}{chr(10) * 6000}").strip() == program
