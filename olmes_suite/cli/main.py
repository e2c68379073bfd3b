"""The `olmes` command. A subcommand is imported when it is called; listing them imports nothing heavy."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

os.environ.setdefault("TYPER_USE_RICH", "0")  # importing rich for the help costs more than the rest of the start

import typer
from typer.core import TyperGroup
from typer.main import get_command

from olmes_suite import __version__
from olmes_suite.errors import OlmesError, nearest
from olmes_suite.plugins import Plugins

COMMANDS: dict[str, tuple[str, str]] = {
    "eval": (
        "olmes_suite.cli.eval",
        "Evaluate a model on a suite or on single tasks; runs are recorded and resumable.",
    ),
    "tasks": (
        "olmes_suite.cli.tasks",
        "List tasks, show one (`show`), or check that golds score 1 and corrupted golds 0 (`check`).",
    ),
    "prompts": ("olmes_suite.cli.prompts", "Print the requests of a task as JSON lines."),
    "score": ("olmes_suite.cli.score", "Score responses from a file, or score a recorded run again."),
    "runs": ("olmes_suite.cli.runs", "List the recorded runs: date, tasks, score, and what they leave out."),
    "show": ("olmes_suite.cli.show", "Show a run's scores again, or documents of a task with question and answer."),
    "compare": ("olmes_suite.cli.compare", "Compare runs document by document, with intervals and p-values."),
    "gate": ("olmes_suite.cli.gate", "Pass or fail a candidate against a baseline, for CI."),
    "baseline": ("olmes_suite.cli.baseline", "Name a run as a baseline (`set`), or write it to a small file (`save`)."),
    "power": ("olmes_suite.cli.power", "Plan how many documents a difference needs, or how often a gate passes."),
    "plan": ("olmes_suite.cli.plan", "Plan which documents of a suite a decision needs, at least cost."),
    "leaderboard": ("leaderboard.cli", "Write an HTML page of all runs: scores, marks, lineage, documents."),
    "import": ("olmes_suite.cli.imports", "Import logs of lm-eval, OLMES, Inspect and others, or bare `scores`."),
    "export": ("olmes_suite.cli.export", "Write a run for other tools: lm-eval, Inspect, the Hub, tables."),
    "train": (
        "train_plugins.cli",
        "Train a stage (sft, rm, dpo, rlvr) from a recipe; each checkpoint records its lineage.",
    ),
    "decontam": ("decontam.cli", "Find evaluation items in training data (`scan`) or remove them (`clean`)."),
    "cache": ("olmes_suite.cli.cache", "List (`show`) or delete (`prune`) responses cached across runs."),
    "data": (
        "olmes_suite.cli.data",
        "Create or verify an offline mirror of the benchmarks; make training data (`mix`, `prompts`, …).",
    ),
    "doctor": ("olmes_suite.cli.doctor", "Report what this installation and machine can run."),
}
"""Built-in commands: module and help line. Other packages add commands as entry points of `olmes.commands`."""


class LazyGroup(TyperGroup):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List the built-in commands."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a built-in command or, for another name, an installed plugin; None for an unknown name."""
        if cmd_name in COMMANDS:
            app = importlib.import_module(COMMANDS[cmd_name][0]).app
        else:
            installed = Plugins("command", "olmes.commands")
            if cmd_name not in installed:
                return None
            app = installed.load(cmd_name)
        return get_command(app) if isinstance(app, typer.Typer) else app

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Resolve a command. Raises OlmesError naming the nearest command for an unknown name."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            raise OlmesError(f"unknown command {name!r}{nearest(name, COMMANDS)}; `olmes --help` lists them")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


root = typer.Typer(
    cls=LazyGroup, name="olmes", rich_markup_mode=None, no_args_is_help=True, pretty_exceptions_enable=False
)


def _version(requested: bool) -> None:
    if requested:
        print(f"olmes-suite {__version__}")
        raise typer.Exit


@root.callback()
def callback(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
) -> None:
    """Evaluate, compare, gate and train post-trained language models.

    Use the suites `dev` as often as you like, and `unseen` at the end.
    """


def fail(message: str, code: int) -> int:
    """Print an error as one line to stderr and return the exit status."""
    print("olmes: " + " ".join(message.split()), file=sys.stderr)
    return code


def _lm_eval_option(error: Exception) -> str | None:
    """Return what takes the place of an unknown option that lm-eval has; None for another error."""
    from olmes_suite.cli.lm_eval_options import instead

    option = getattr(error, "option_name", None)
    return instead(option) if isinstance(option, str) else None


def run(args: list[str] | None = None) -> int:
    """Run a command line and return the exit status."""
    command = get_command(root)
    try:
        outcome = command.main(args=args, prog_name="olmes", standalone_mode=False)
    except OlmesError as error:
        return fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except ModuleNotFoundError as error:
        from olmes_suite import extras

        module = (error.name or "").split(".")[0]
        extra = extras.of_module(module)
        if extra is None or extras.installed(module):
            raise
        return fail(f"this needs the package {module}: {extras.install(extra)}", 2)
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of the command line parser
            context = getattr(error, "ctx", None)
            if type(error).__name__ == "NoArgsIsHelpError":  # `olmes`, or a group without a command: its help
                print(error.format_message(), file=sys.stderr)
                return 2
            if context and context.command_path == "olmes eval" and (hint := _lm_eval_option(error)):
                return fail(hint, 2)
            where = f" ({context.command_path} --help)" if context else ""
            if where.startswith(" (olmes eval ") and "extra argument" in error.format_message():
                where = f": a model is named with --model, a task with --task, a suite with --suite{where}"
            return fail(f"{error.format_message()}{where}", 2)
        if type(error).__name__ == "Abort":
            return fail("interrupted", 130)
        raise
    if outcome == 130:  # typer catches Ctrl-C without a message
        return fail("interrupted", 130)
    return outcome if isinstance(outcome, int) else 0


def main() -> None:
    """Run the console script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    sys.exit(run())


if __name__ == "__main__":
    main()
