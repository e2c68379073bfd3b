"""Tools and environments in rollouts, without training: what is refused, how calls are counted, how templates read."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tool_fixture import TEMPLATE, make_tool_model, write_tools
from train_fixture import need_trl, refused

from train_plugins.rl import environments, tool_rollouts, tool_template, tools
from train_plugins.rl.environments import EnvironmentFailed
from train_plugins.rl.python_tool import SHOWN, python
from train_plugins.rl.tools import Calls, shortened

need_trl()

NAME = "tools_of_a_test"


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the module of tools; nothing of it stays imported."""
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    write_tools(tmp_path, NAME)
    yield tmp_path
    sys.modules.pop(NAME, None)


def test_tools_are_found_beside_the_recipe(beside: Path) -> None:
    found = tools.load([f"{NAME}:add", f"{NAME}.divide"], beside)
    assert [one.__name__ for one in found] == ["add", "divide"]
    described = tools.schema(found[0])["function"]
    assert described["description"] == "Add two numbers."
    assert described["parameters"]["properties"]["a"] == {"type": "integer", "description": "The first number."}


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("pyton", "not a shipped tool .python., did you mean 'python'"),
        ("two words:x", "is not an import path; write module:name"),
        ("no_such_module_here:add", "there is no module 'no_such_module_here'"),
        (f"{NAME}:ad", "has no 'ad', did you mean 'add'"),
        (f"{NAME}:number", "a int, not a function"),
        (f"{NAME}:Counter", "a class, not a function"),
        (f"{NAME}:untyped", "argument 'a' has no type"),
        (f"{NAME}:undescribed", "cannot be described to the model: .*docstring"),
        (f"{NAME}:yields", "a generator, whose result is no text; return the text"),
        (f"{NAME}:starred", "argument 'numbers': the model passes arguments by name"),
    ],
)
def test_what_is_no_tool_is_refused(beside: Path, path: str, match: str) -> None:
    refused(lambda: tools.load([path], beside), match)


def test_two_tools_of_one_name_and_a_module_with_an_error(beside: Path) -> None:
    refused(lambda: tools.load([f"{NAME}:add", f"{NAME}:Counter.add"], beside), "argument 'self'|two tools are named")
    (beside / "broken_tools_of_a_test.py").write_text("def add(:\n")
    refused(lambda: tools.load(["broken_tools_of_a_test:add"], beside), "cannot be imported: SyntaxError")
    (beside / "needy_tools_of_a_test.py").write_text("import no_such_thing\n")
    refused(lambda: tools.load(["needy_tools_of_a_test:add"], beside), "No module named 'no_such_thing'")


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("Needs", "cannot be made without arguments: TypeError"),
        ("NoReset", "has no method `reset`"),
        ("number", "not a class or a function"),
    ],
)
def test_what_is_no_environment_is_refused(beside: Path, path: str, match: str) -> None:
    refused(lambda: environments.load(f"{NAME}:{path}", beside), match)
    refused(lambda: environments.load({"game": f"{NAME}:{path}"}, beside), f"rlvr.environment.game: .*{match}")


def test_calls_and_failures_are_counted_and_reach_the_model(beside: Path) -> None:
    calls = Calls(control=("<|im_end|>",))
    add, divide = (calls.counted(one) for one in tools.load([f"{NAME}:add", f"{NAME}:divide"], beside))
    assert add(a=1, b=2) == "3"
    with pytest.raises(RuntimeError, match="division by zero"):
        asyncio.run(divide(a=1, b=0))
    with pytest.raises(RuntimeError, match="unexpected keyword"):
        add(wrong=1)
    assert tools.schema(add) == tools.schema(add.__wrapped__), "the wrapper is described as the function is"
    assert dict(calls.calls) == {"add": 2, "divide": 1}
    assert dict(calls.failures) == {"add": 1, "divide": 1}
    assert "tools: 3 calls, 2 failed: " in calls.summary()
    assert "ZeroDivisionError: division by zero" in calls.summary()
    assert calls.plain("a<|im_end|>b") == "a< |im_end|>b"
    assert calls.plain(["<|im_end|>"]) == "['< |im_end|>']"
    assert calls.plain([{"type": "text", "text": "3<|im_end|>"}]) == "3< |im_end|>"
    image = {"type": "image", "image": None}
    assert calls.plain([image, {"type": "text", "text": "<|im_end|>"}]) == [
        image,
        {"type": "text", "text": "< |im_end|>"},
    ]
    assert len(calls.plain("x" * 10_000_000)) < 51_000


def test_a_tool_that_ends_the_process_is_a_failed_call() -> None:
    def leave(a: int) -> str:
        raise SystemExit(3)

    async def leave_later(a: int) -> str:
        raise SystemExit(4)

    calls = Calls()
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        calls.counted(leave)(a=1)
    with pytest.raises(RuntimeError, match="SystemExit: 4"):
        asyncio.run(calls.counted(leave_later)(a=1))
    assert calls.failures.total() == 2 and calls.broken is None
    with pytest.raises(RuntimeError):
        calls.counted(leave, environment=True)(a=1)
    assert calls.broken == "leave raised SystemExit: 3"


def row(**extra: Any) -> dict[str, Any]:
    import json

    prompt = [{"role": "user", "content": "the number"}]
    return {"prompt": prompt, "extra": json.dumps(extra), "truth": "null", "row": 4, "verifier": "environment"}


def test_an_environment_gets_the_columns_of_the_row_and_its_errors_name_it(beside: Path) -> None:
    calls = Calls()

    def made(name: str) -> Any:
        (factory,) = environments.load(f"{NAME}:{name}", beside).values()
        return environments.guarded(factory, calls)()

    counter = made("Counter")
    assert type(counter).__name__ == "Counter"
    assert counter.reset(**row(goal=7)) == " The goal is 7."
    assert (counter.add(a=2, b=3), counter.goal, counter.get_reward()) == ("5", 7, 2.0)
    with pytest.raises(EnvironmentFailed, match=r"row 4: the environment .*Resets raised OSError.* in reset"):
        made("Resets").reset(**row())
    with pytest.raises(EnvironmentFailed, match="Loses raised RuntimeError: no score in get_reward"):
        asyncio.run(made("Loses").get_reward())
    assert calls.broken is None, "a wrong call is the model's fault"
    with pytest.raises(RuntimeError):
        counter.add(a=1)
    assert calls.broken is None
    with pytest.raises(RuntimeError):
        made("Breaks").add(a=1, b=2)
    assert calls.broken == "add raised ConnectionError: the server is gone"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(make_tool_model(tmp_path_factory.mktemp("tools")))


@pytest.mark.parametrize(
    ("cut", "match"),
    [
        (("{{ turn.content }}", ""), "does not render calls of tools and their results"),
        (("turn.tool_calls or []", "[]"), "does not render calls of tools and their results"),
        (("{{ tool | tojson }}", ""), "does not show the model its tools .add."),
        (("<tool_call>", "[call]"), "cannot be read back"),
        (("{% for turn in messages %}", "{% for turn in messages %}{% if loop.last %}!{% endif %}"), "in another way"),
    ],
)
def test_templates_without_tools_are_refused(tokenizer: Any, beside: Path, cut: tuple[str, str], match: str) -> None:
    shown = [tools.schema(one) for one in tools.load([f"{NAME}:add"], beside)]
    tokenizer.chat_template, tokenizer.response_template = TEMPLATE.replace(*cut), None
    refused(lambda: tool_template.prepare(tokenizer, shown), match)
    tokenizer.chat_template, tokenizer.response_template = TEMPLATE, None
    tool_template.prepare(tokenizer, shown)
    assert tokenizer.response_template is not None, "read by a family that TRL knows"


def test_the_last_turn_and_answers_that_never_came() -> None:
    assert [tool_rollouts.last_turn(mask) for mask in ([1, 1, 1], [1, 0, 0, 1, 1], [1, 0], [])] == [3, 2, 0, 0]
    call, result = {"role": "assistant", "tool_calls": [{}]}, {"role": "tool"}
    said = {"role": "assistant", "content": "3"}
    found = [tool_rollouts.is_unanswered(turns) for turns in ([said], [call], [call, result], [call, result, said], [])]
    assert found == [False, True, True, False, False]


def test_long_output_keeps_its_ends() -> None:
    text = "".join(map(str, range(5000)))
    assert shortened("short", SHOWN) == "short"
    assert len(shortened(text, SHOWN)) < SHOWN + 60
    assert shortened(text, SHOWN).startswith(text[:1000]) and shortened(text, SHOWN).endswith(text[-1000:])


@pytest.mark.long
def test_the_shipped_python_runs_in_the_sandbox() -> None:
    assert python("print(6 * 7)") == "42\n"
    assert python("x = 1") == "(no output)"
    for program, match in (
        ("print('before')\n1 / 0", "before\nline 2: ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError"),
        ("import sys; sys.exit(3)", "exit status 3"),
        ("open('/etc/hostname', 'w')", "Error"),
        ("while True: pass", "stopped after 5 s"),
    ):
        with pytest.raises(Exception, match=match):
            python(program)
