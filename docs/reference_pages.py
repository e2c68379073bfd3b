"""Reference pages, made from the code: `python docs/reference_pages.py FOLDER` writes them as Markdown files.

The documentation site makes them when it is built (`make docs`), so that they cannot be out of date.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import reference_tasks
from typer.main import get_command

from olmes_suite.cli.main import COMMANDS
from olmes_suite.runs.schema import json_schema
from olmes_suite.yaml_files import INNER, Between

COMMANDS_PAGE = "reference/commands.md"
RECIPES_PAGE = "reference/recipes.md"
FILES_PAGE = "reference/records.md"
FLAGS_PAGE = "reference/flags.md"
Row = tuple[str, ...]


def pages() -> dict[str, str]:
    """Make all reference pages: path below `docs/` to Markdown."""
    return {
        COMMANDS_PAGE: commands_page(),
        RECIPES_PAGE: recipes_page(),
        FILES_PAGE: records_page(),
        FLAGS_PAGE: flags_page(),
        **reference_tasks.pages(),
    }


def table(head: Row, rows: Iterable[Row]) -> str:
    """Make a Markdown table; empty without rows."""
    lines = ["| " + " | ".join(_cell(text) for text in row) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines]) + "\n"


def _cell(text: str) -> str:
    """Escape what would end a table's cell or be read as an HTML tag."""
    text = re.sub(r"\s+", " ", text).strip().replace("|", "\\|")
    return re.sub(r"<(?=[a-zA-Z/])", "&lt;", text) if "`" not in text else text


# Commands -------------------------------------------------------------------------------------------------------------


@cache
def commands() -> dict[str, Any]:
    """Load all commands and sub-commands: the words after `olmes` to the click command."""
    found: dict[str, Any] = {}
    for name, (module, _) in COMMANDS.items():
        command = get_command(importlib.import_module(module).app)
        found[name] = command
        found.update(_below(name, command))
    found["train merge"] = get_command(importlib.import_module("train_plugins.cli").merge_app)
    return dict(sorted(found.items(), key=lambda one: [*COMMANDS].index(one[0].split()[0])))


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield the sub-commands of a group, those that are imported when they are called among them."""
    if not hasattr(command, "list_commands"):
        return
    context = command.context_class(command, info_name=name)
    for sub in command.list_commands(context):
        if (one := command.get_command(context, sub)) is not None:
            yield f"{name} {sub}", one
            yield from _below(f"{name} {sub}", one)


def commands_page() -> str:
    """Describe every command with its arguments and options."""
    parts = [
        "# Commands\n",
        "Made from the command line itself. `olmes COMMAND --help` prints the same. Exit status 2 means a mistake in "
        "the command, with one line on standard error that says what to do.\n",
    ]
    for name, command in commands().items():
        parts.append(f"{'#' * min(4, 1 + len(name.split()))} olmes {name}\n")
        parts.append(_help(command.help or COMMANDS.get(name, ("", ""))[1]))
        if usage := _usage(name, command):
            parts.append(f"```sh\n{usage}\n```\n")
        parts.append(table(("option", "value", "default", "meaning"), _options(command)))
    return "\n".join(part for part in parts if part)


def _help(text: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", text.replace("\f", "")).strip() + "\n"


def _usage(name: str, command: Any) -> str:
    shown = [one for one in command.params if one.param_type_name == "argument"]
    names = [_argument(one) + (" …" if one.nargs == -1 else "") for one in shown]
    words = [name if one.required else f"[{name}]" for name, one in zip(names, shown, strict=True)]
    inner = ["COMMAND"] if hasattr(command, "list_commands") else []
    return " ".join(["olmes", name, *inner, *words, "[OPTIONS]"])


def _argument(one: Any) -> str:
    return str(one.metavar or one.name.upper())


def _options(command: Any) -> Iterator[Row]:
    """Yield names, value, default and meaning of each option, from its line of the help."""
    context = command.context_class(command)
    for one in command.params:
        if getattr(one, "hidden", False) or one.name in ("help", "install_completion", "show_completion"):
            continue
        shown, words = one.get_help_record(context) or ("", "")
        is_option = one.param_type_name == "option"
        names = [*one.opts, *one.secondary_opts] if is_option else [_argument(one)]
        value = _value(re.sub(r"--?[\w-]+|[,/]\s", " ", shown).strip().lower()) if is_option else ""
        notes = re.search(r"\s*\[((?:default|required|env)[^\]]*)\]$", words)
        default = notes[1].removeprefix("default: ") if notes else ""
        repeated = "repeatable" if getattr(one, "multiple", False) and "repeatable" not in words else ""
        yield (
            ", ".join(f"`{name}`" for name in names),
            ", ".join(filter(None, (value, repeated))),
            "required" if one.required else default,
            words[: notes.start()] if notes else words,
        )


def _value(shown: str) -> str:
    """Say the type of an option's value."""
    kind = re.sub(r"^<(?:list\[)?([\w ]+)\]?>$", r"\1", shown)
    return {"str": "text", "int": "number", "int range": "number", "float": "number", "float range": "number"}.get(
        kind, kind
    )


# Recipes and other YAML files -----------------------------------------------------------------------------------------


def recipe_classes() -> dict[str, type]:
    """Return the dataclasses of users' YAML files by heading: the file's keys first, then what stands inside them."""
    from olmes_suite.comparison import gate_rules
    from olmes_suite.tasks import suites
    from train_plugins.config.recipe import Recipe
    from train_plugins.data.curation.make_passrate import PassRateKeys
    from train_plugins.data.curation.make_prompts import PromptKeys
    from train_plugins.data.curation.make_responses import ResponseKeys
    from train_plugins.data.curation.mix.ablate import Ablation
    from train_plugins.data.curation.mix.keys import Mix
    from train_plugins.data.curation.preference_keys import PreferenceKeys
    from train_plugins.running.pipeline_file import Document
    from train_plugins.stages import registry

    stages = {f"The key `{name}`": registry.find(name).own for name in registry.BUILT_IN}
    return {
        "Recipe of a training stage": Recipe,
        **stages,
        "Pipeline": Document,
        "Gate rules (`gate.yaml`)": gate_rules._Keys,
        "Suite": suites._Keys,
        "Mix (`olmes data mix`)": Mix,
        "Ablation (`olmes data ablate`)": Ablation,
        "Prompts (`olmes data prompts`)": PromptKeys,
        "Responses (`olmes data responses`)": ResponseKeys,
        "Pass rates (`olmes data passrate`)": PassRateKeys,
        "Preferences (`olmes data preferences`)": PreferenceKeys,
    }


def recipes_page() -> str:
    """Describe the keys of recipes and of the other YAML files, and every argument under `trainer`."""
    parts = [
        "# Recipe keys\n",
        "Every key of the YAML files that commands read, with its type and default. Unknown keys are refused, with "
        "the nearest known one. [Training](../training.md) explains recipes with examples.\n",
    ]
    seen: set[type] = set()
    for title, kind in recipe_classes().items():
        parts += _class_section(f"## {title}", kind, seen)
    parts.append("## Arguments under `trainer`\n")
    parts.append(
        "Arguments of TRL's and transformers' trainers, by stage; in `rlvr`, by algorithm. ✓ changes the weights, "
        "○ changes only how the training runs. Others are refused, with the key or option to use instead.\n"
    )
    parts.append(_trainer_table())
    return "\n".join(parts)


def _class_section(heading: str, kind: type, seen: set[type]) -> list[str]:
    """Describe a dataclass, then those in its fields that were not described before."""
    if kind in seen:
        return []
    seen.add(kind)
    inner: list[type] = []
    rows = list(_keys(kind, inner))
    parts = [f"{heading}\n", (kind.__doc__ or "").strip().split("\n\n")[0] + "\n"]
    parts.append(table(("key", "type", "default", "meaning"), rows))
    for one in inner:
        parts += _class_section(f"### {_spoken(one)}", one, seen)
    return parts


def _keys(kind: type, inner: list[type]) -> Iterator[Row]:
    words = json_schema.descriptions(kind)
    hints = typing.get_type_hints(kind, include_extras=True)
    for one in fields(kind):
        if one.metadata.get(INNER):
            continue
        default = "" if one.default is MISSING else _yaml(_as_written(one.default, hints[one.name]))
        if one.default is MISSING and one.default_factory is MISSING:
            default = "required"
        meaning = re.sub(r"\bNone:", "unset:", words.get(one.name) or _inner_words(hints[one.name]))
        yield f"`{one.name}`", _type(hints[one.name], inner), default, meaning


def _as_written(value: Any, hint: Any) -> Any:
    """Return a default as a file would give it: a fraction that is given in points, in points."""
    units = [one.per for one in getattr(hint, "__metadata__", ()) if isinstance(one, Between)]
    return value * units[0] if units and units[0] != 1 and value is not None else value


def _inner_words(hint: Any) -> str:
    """Return the first sentence of the docstring of a dataclass that is the key's value."""
    kinds = [one for one in (hint, *typing.get_args(hint)) if isinstance(one, type) and is_dataclass(one)]
    words = (kinds[0].__doc__ or "").strip().split("\n\n")[0] if kinds else ""
    return re.sub(r"^Keys (of|under) [^:;]*[:;.]\s*", "", words)


def _yaml(value: Any) -> str:
    if is_dataclass(value) or value in (None, (), ""):
        return ""
    return f"`{json.dumps(value, ensure_ascii=False, default=str)}`"


def _spoken(kind: type) -> str:
    return kind.__name__.strip("_")


def _type(hint: Any, inner: list[type]) -> str:
    """Say a type in words, and collect the dataclasses in it."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        between = next((one for one in inside[1:] if isinstance(one, Between)), None)
        bounds = f", {between.low:g} to {between.high:g} {between.unit}".rstrip() if between else ""
        return _type(inside[0], inner) + bounds
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in inside)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(one, inner) for one in inside if one is not types.NoneType)
    if isinstance(hint, type) and is_dataclass(hint):
        inner.append(hint)
        return f"[{_spoken(hint)}](#{_spoken(hint).lower()})"
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping of {_type(inside[1], inner)}"
    if origin in (list, tuple) or (isinstance(origin, type) and issubclass(origin, Iterable)):
        return "list of " + _type(inside[0], inner)
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything", Path: "path"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _trainer_table() -> str:
    from train_plugins.config.trainer_fields import TABLES, Role

    signs = {Role.TRAINS: "✓", Role.RUNS: "○"}
    names = sorted({name for known in TABLES.values() for name in known})
    rows = []
    for name in names:
        marks = [signs.get(known[name].role, "") if name in known else "" for known in TABLES.values()]
        refused = next((known[name].instead for known in TABLES.values() if name in known and known[name].instead), "")
        rows.append((f"`{name}`", *marks, refused))
    return table(("argument", *TABLES, "otherwise"), rows)


# Recorded files and flags ---------------------------------------------------------------------------------------------


def records_page() -> str:
    """Describe every key of the recorded files, from their JSON Schemas."""
    parts = [
        "# Keys of recorded files\n",
        "Made from the types that write and read the files. [Recorded files](../files.md) says where each file is; "
        "[`docs/schemas`](../files.md) holds the same as JSON Schema.\n",
    ]
    for name, kind in json_schema.FILES.items():
        schema = json_schema.json_schema(kind)
        parts += [f"## {name}\n", f"{schema['description']}\n", _properties(schema)]
        for part, inside in schema["$defs"].items():
            parts += [f"### {part} in {name}\n", f"{inside['description']}\n", _properties(inside)]
    return "\n".join(parts)


def _properties(schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = (
        (f"`{key}`", _said(one), "yes" if key in required else "", one.get("description", ""))
        for key, one in schema["properties"].items()
    )
    return table(("key", "type", "required", "meaning"), rows)


def _said(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[1]
    if "anyOf" in schema:
        return " or ".join(_said(one) for one in schema["anyOf"])
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"array of {_said(schema['items'])}" if "items" in schema else "array"
    if kind == "object" and isinstance(inside := schema.get("additionalProperties"), Mapping):
        return f"object of {_said(inside)}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def flags_page() -> str:
    """List the flags of scores and the leaderboard's marks."""
    from leaderboard.marks import SIGNS, TROUBLES
    from olmes_suite.comparison.gate_rules import HEALTH

    rows = (
        (f"`{flag}`", text, SIGNS.get(flag, ""), "yes" if flag in HEALTH or flag == "request_errors" else "")
        for flag, text in TROUBLES.items()
    )
    return "\n".join(
        [
            "# Flags\n",
            "Flags are counted beside each score, in `results.json` and in every table. A flagged document still has "
            "a score unless the meaning says otherwise. The gate limits some of them: see "
            "[CI](../ci.md).\n",
            table(("flag", "counts", "sign on the leaderboard", "limited by the gate"), rows),
            "The leaderboard has [more marks](../leaderboard.md#marks), for contamination, limits, plans and floors.\n",
        ]
    )


def write(folder: Path) -> list[Path]:
    """Write all pages below a folder; returns the files."""
    written = []
    for name, text in pages().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python docs/reference_pages.py FOLDER")
    print(f"{len(write(Path(sys.argv[1])))} pages in {sys.argv[1]}/reference")
