"""What texts are left out: the language of prompts with formulas and code, refusals, and what only resembles them."""

from __future__ import annotations

import pytest

pytest.importorskip("langdetect")
from train_plugins.data.curation.text_filters import TextFilters, fault, language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (
            "Given that $\\tan \\alpha = \\frac{\\sin \\beta}{\\cos \\gamma}$, what is the value of $\\sin \\alpha$?",
            "en",
        ),
        ("\\[\\cosh x = \\frac{1}{\\sqrt{\\tan x}}\\] Which real numbers make this equation true?", "en"),
        ("Sort the list that follows without a library.\n```python\ndef sorteer(lijst): return lijst\n```", "en"),
        ("Bestimme alle reellen Zahlen $x$, für die $\\frac{x}{2} > 3$ gilt, und begründe die Antwort.", "de"),
        ("Simplify $\\frac{\\sec x}{\\sin x} - \\frac{\\sin x}{\\cos x}$.", None),
        ("The ticket costs $5 and the book costs $12 more than the ticket in the old town.", "en"),
    ],
)
def test_the_language_is_that_of_the_words(text: str, language: str | None) -> None:
    assert language_of(text) == language


PLAIN = TextFilters(language="en")


@pytest.mark.parametrize(
    "text",
    [
        "def f(s, l):\n    return s.ljust(l, '=').rpartition('=')[0]",
        "import pandas as pd\nfrom datetime import datetime\ndef read(file):\n    return pd.read_csv(file)",
        "for (const file of files) {\n  if (file.done) return file;\n}",
        "\\begin{align*} \n\\cos x + \\cos y &= \\text{donc} \\\\ 1 &= \\text{alors}\n\\end{align*} We have this.",
        "Which point is it? [asy] draw((0,0)--(5,5)--(0,5)--cycle); label(A, (0,0), dir(90)); [/asy]",
        "Suppose 3*v + 3*k - 30 = 0, 3*v - 8*v = 4*k - 48. Suppose -28 = -2*h - v. Let o = -20 + 29. Does o = h?",
        "Simplify ((sqrt(378) - (sqrt(378) + -4*sqrt(378)*-2)) + 1*sqrt(378)*6)/(5*sqrt(6)*-3).",
    ],
)
def test_code_and_formulas_without_marks_are_of_no_language(text: str) -> None:
    assert fault(text, PLAIN) is None


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Die Funktion f(x) = 3x + 2 ist **linear**; bestimme ihre Nullstelle.", "de"),
        ("¿Cuántas manzanas quedan en la cesta?", "es"),
        ("澳大利亚的首都是哪里？请用一句话回答这个问题，并说明你是怎么知道的。", "zh"),
        ("ऑस्ट्रेलिया की राजधानी क्या है? एक वाक्य में उत्तर दें।", "hi"),
        ("Schreibe eine Funktion.\n```python\nfor name in names:\n    print(name)\n```\nSie druckt jeden Namen.", "de"),
    ],
)
def test_other_languages_are_still_left_out(text: str, language: str) -> None:
    assert (language_of(text), fault(text, PLAIN)) == (language, "language")


@pytest.mark.parametrize(
    "text",
    [
        "I can't wait to describe this lamp to you.",
        "I can't help but admire how well the old bridge was built.",
        "I cannot help wondering who built it.",
        "Write a message to my landlord saying I'm unable to pay the rent before the fifth of May.",
        "I'm not able to log in to my account since Monday. What should I try first?",
        "I'm sorry, it was my mistake: the sum is twelve.",
        "Dear Ms Brook,\n\nI'm sorry, but I cannot attend on Friday.",
        "Subject: Friday\n\nHello Anna,\nI am sorry, but I have a cold.",
        "HTTP response: 200 means that all went well.",
        "with urllib.request.urlopen(url) as response:\n    text = response.read()",
        "How do I split my training data by customer without a leak?",
        "BERT is used as a language model in many of these systems.",
        "I was trained by the navy as a diver. How deep may I go without a stop?",
        "In this story the user wants to sort a list by date.",
        "```js\n" + "switch (day) {\n" + "  case 1: open();\n    break;\n" * 11 + "}\n```",
        "| day | hours |\n" + "|---|---|\n" * 11,
    ],
)
def test_what_only_resembles_a_refusal_is_kept(text: str) -> None:
    assert fault(text, TextFilters()) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("I’m sorry, but I can't help with that.", "refusal"),
        ("Hello! I cannot help you with this request.", "refusal"),
        ("Unfortunately I can't provide instructions for that.", "refusal"),
        ("I understand that you are angry, but I am unable to assist.", "refusal"),
        ("I will not be able to help with that.", "refusal"),
        ("As an assistant, I'm not able to write such a text.", "refusal"),
        ("**I cannot assist with that.**", "refusal"),
        ("Response:\nThe lamp is lit.", "meta"),
        ("The user wants a poem about a lamp. I should write one.", "meta"),
        ("As a language model, I have no lamp.", "meta"),
        ("I have no lamp: I was trained by DeepSeek, not built by a smith.", "meta"),
        ("The bridge is old. " * 10, "repetition"),
    ],
)
def test_refusals_and_answers_about_the_answer_are_left_out(text: str, name: str) -> None:
    assert fault(text, TextFilters()) == name
