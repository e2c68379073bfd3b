"""olmes prompts: print the requests of a task, with a model also as the model receives them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from olmes_suite.cli.options import Data, DataDirs, GenKwargs, IncludePath, Profile, Samples, System, TemplateArgs

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def prompts(
    task: Annotated[str, typer.Option("--task", help="A task or group, with or without `tulu3_`.")],
    doc_ids: Annotated[
        str | None,
        typer.Option(
            "--doc-ids", help="Rows of the split from 0: 0,17,…; for a group, of every sub-task that has the row."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", help="Documents of each task or sub-task, chosen as by `olmes eval --limit`; by default all."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed for --limit.")] = 1234,
    data_dir: DataDirs = None,
    data: Data = None,
    include_path: IncludePath = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Checkpoint or Hub id: also print the text after its chat template."),
    ] = None,
    chat_template: Annotated[
        Path | None, typer.Option("--chat-template", help="Jinja file that replaces the tokenizer's chat template.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Revision of a Hub model; by default main.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", min=2, help="Context length in tokens; by default the model's.")
    ] = None,
    profile: Profile = None,
    gen_kwargs: GenKwargs = None,
    samples: Samples = None,
    system: System = None,
    chat_template_args: TemplateArgs = None,
    as_text: Annotated[bool, typer.Option("--text", help="Print readable text instead of JSON lines.")] = False,
) -> int:
    """Print the requests of a task, one JSON line each.

    Without --model they are printed as they are before any chat template. With --model each line also has the rendered
    text and the number of its token ids; only the model's tokenizer is loaded.
    """
    from olmes_suite import api

    rows = _numbers(doc_ids) if doc_ids is not None else None
    for request in api.prompts(
        task, doc_ids=rows, limit=limit, seed=seed, data_dir=data_dir, data=data, include_path=include_path,
        model=model, chat_template=chat_template, revision=revision, max_length=max_length, profile=profile,
        gen_kwargs=gen_kwargs, samples=samples, system=system, chat_template_args=chat_template_args,
    ):  # fmt: skip
        print("\n".join(_readable(request)) if as_text else json.dumps(request, ensure_ascii=False))
    return 0


def _readable(request: Mapping[str, Any]) -> list[str]:
    """Return the lines of one request: where it comes from, what the model reads, and what it is to answer."""
    place = [request["task"], f"document {request['doc_id']}"]
    if "rendered" in request:
        cut = ", cut on the left to fit the context" if request["truncated"] else ""
        place.append(f"{_tokens(request['prompt_tokens'])}{cut}")
        lines = [request["rendered"]]
    else:
        turns = request.get("messages") or [{"role": "text", "content": request.get("text") or ""}]
        lines = [f"[{turn['role']}] {turn['content']}" for turn in turns]
        lines += [f"[assistant starts] {request['prefix']}"] if request["prefix"] else []
    if request["continuation"] is not None:
        count = f" ({_tokens(request['continuation_tokens'])})" if "continuation_tokens" in request else ""
        lines.append(f"[continuation{count}] {request['continuation']}")
    else:
        stop = f", stop at {request['stop']}" if request["stop"] else ""
        lines.append(f"[limits] at most {request['max_tokens']} tokens{stop}")
    return [f"=== {' · '.join(place)}", *lines, f"[reference] {request['reference']}", ""]


def _tokens(count: int) -> str:
    return f"{count:,} token{'' if count == 1 else 's'}"


def _numbers(text: str) -> list[int]:
    from olmes_suite.errors import UsageError

    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"--doc-ids takes comma-separated integers, not {text!r}") from error
