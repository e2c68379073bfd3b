"""The package without its extras: what reads runs works, everything else is one line with the extra to install."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT, environment, olmes, one_line_error

from olmes_suite import extras

Olmes = Callable[..., subprocess.CompletedProcess[str]]
NEEDS = {
    "eval --backend mock --task gsm8k --data sample": "eval",
    "prompts --task gsm8k --data sample": "eval",
    "score --task gsm8k --responses r.jsonl": "eval",
    "score runs/RUN": "eval",
    "tasks show gsm8k": "eval",
    "tasks check gsm8k": "eval",
    "data pull --out mirror": "eval",
    "data verify": "eval",
    "eval --model m --suite dev --judge j": "eval",
    "train sft r.yaml": "train",
    "train run p.yaml --dry-run": "train",
    "decontam scan --train t.jsonl": "decontam",
    "decontam report": "decontam",
    "eval": "eval",
}
"""Command to the extra that it asks for."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs that the full installation has recorded, and scores to import."""
    folder = tmp_path_factory.mktemp("recorded")
    common = ("--task", "gsm8k", "--data", "sample", "--runs", folder / "runs")
    for backend in ("oracle", "mock"):
        done = olmes("eval", "--backend", backend, *common, tmp=folder)
        assert done.returncode == 0, done.stderr
    for number in (0, 1):
        lines = [{"task": "own", "doc_id": i, "score": float(i > number)} for i in range(9)]
        (folder / f"{number}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def read_everything(olmes: Olmes, folder: Path, out: Path) -> None:
    """Run every command that needs the core alone."""
    names = sorted(path.name for path in (folder / "runs").iterdir() if (path / "results.json").is_file())
    mock, oracle = (next(name for name in names if name.startswith(kind)) for kind in ("mock", "oracle"))
    store = ("--runs", folder / "runs")

    def good(*args: str | Path, status: int = 0) -> str:
        done = olmes(*args)
        assert done.returncode == status, (args, done.stdout, done.stderr)
        return done.stdout

    gated = json.loads(good("gate", "--baseline", oracle, "--candidate", mock, *store, "--json", status=1))
    assert gated["verdict"] == "fail" and gated["tasks"][0]["baseline"] == 1.0
    compared = json.loads(good("compare", oracle, mock, *store, "--flips", "2", "--json"))
    assert compared["tasks"][0]["delta"] == -1.0 and compared["flips"]
    assert "gsm8k" in good("compare", oracle, mock, *store, "--markdown")
    good("baseline", "save", oracle, out / "baseline.json", *store)
    good("gate", "--baseline", out / "baseline.json", "--candidate", oracle, *store, status=3)
    for name in ("a", "b"):
        good("import", "scores", folder / f"{int(name == 'b')}.jsonl", "--name", name, "--runs", out / "imported")
    good("compare", "a", "b", "--runs", out / "imported")
    assert "documents" in good("power", "--task", "gsm8k", "--delta", "2")
    good("power", "--gate")
    good("leaderboard", *store, "--out", out / "page.html")
    assert (out / "page.html").stat().st_size > 10_000
    assert "gsm8k" in good("tasks") and "mmlu" in good("tasks", "--suite", "dev", "--json")
    assert "pip install 'olmes-suite[eval]'" in good("doctor", status=1)
    assert "--backend" in good("eval", "--help")
    assert "no such task" not in good("--version")


@pytest.fixture
def without(tmp_path: Path) -> Callable[..., Olmes]:
    """The command line of this installation, in which the modules of extras cannot be imported."""

    def blocked(*names: str, what: str = "olmes_suite.cli.main") -> Olmes:
        modules = [module for name in names for module in extras.MODULES[name]]
        program = (
            f"import sys; sys.modules.update(dict.fromkeys({modules}))\n"
            f"from {what} import main; sys.argv[0] = 'olmes'; main()"
        )

        def call(*args: str | Path) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-c", program, *map(str, args)]
            return subprocess.run(command, capture_output=True, text=True, env=environment(tmp_path), cwd=tmp_path)

        return call

    return blocked


@pytest.mark.long
def test_what_reads_runs_works_without_the_extras(without: Callable[..., Olmes], runs: Path, tmp_path: Path) -> None:
    read_everything(without(*extras.MODULES), runs, tmp_path)


@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=pytest.mark.long) if at % 4 else name for at, name in enumerate(NEEDS)]
)
def test_other_commands_name_their_extra(without: Callable[..., Olmes], command: str) -> None:
    line = one_line_error(without(*extras.MODULES)(*command.split()))
    assert line.endswith(f"pip install 'olmes-suite[{NEEDS[command]}]'") and len(line) < 160


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("eval --backend mock --task gsm8k --data sample --ray local", "ray"),
        ("decontam scan --train t.jsonl --ray local", "ray"),
        pytest.param("eval --backend vllm --model org/name --task gsm8k --data sample", "vllm", marks=pytest.mark.long),
        ("train sft r.yaml", "train"),
        ("decontam scan --train t.jsonl", "decontam"),
    ],
)
def test_an_extra_beside_eval_is_named_before_anything_starts(
    without: Callable[..., Olmes], command: str, extra: str
) -> None:
    assert one_line_error(without(extra)(*command.split())).endswith(f"pip install 'olmes-suite[{extra}]'")


def test_a_module_that_is_imported_late_names_its_extra(without: Callable[..., Olmes], tmp_path: Path) -> None:
    command = "import typer\napp = typer.Typer()\n@app.command()\ndef late(): import trl.nothing\n"
    (tmp_path / "late.py").write_text(command)
    program = (
        "import sys; sys.modules['trl'] = None\n"
        "from olmes_suite.cli import main\nmain.COMMANDS['late'] = ('late', '')\nsys.exit(main.run(['late']))"
    )
    env = environment(tmp_path, PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env)
    assert one_line_error(done) == "olmes: this needs the package trl: pip install 'olmes-suite[train]'"


def build_wheel(source: Path, out: Path) -> Path:
    """Build the wheel of a source folder in `out`/dist."""
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out / "dist"), str(source)]
    made = subprocess.run(build, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
    return next((out / "dist").glob("*.whl"))


def files_of_the_image(out: Path) -> Path:
    """Copy the tracked files that .dockerignore lets into the image."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", *allowed]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, out / name)
    return out


@pytest.mark.slow
def test_the_wheel_runs_the_quick_start_outside_the_checkout(tmp_path: Path) -> None:
    """Builds the wheel from the image's files, and runs it on this environment's packages."""
    wheel = build_wheel(files_of_the_image(tmp_path / "image"), tmp_path)
    checked = subprocess.run(
        [sys.executable, ROOT / "tests/support/check_wheel.py", wheel], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin/python"
    installed = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)]
    got = subprocess.run(installed, capture_output=True, text=True)
    assert got.returncode == 0, got.stderr[-2000:]
    below = [path for path in sys.path if path.endswith("site-packages")]
    next(home.glob("lib/*/site-packages")).joinpath("below.pth").write_text("\n".join(below) + "\n")
    env = {key: value for key, value in environment(tmp_path).items() if key != "PYTHONPATH"}

    def call(*args: str, status: int = 0) -> str:
        command = [str(home / "bin/olmes"), *args]
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
        assert done.returncode == status and "Traceback" not in done.stderr, (args, done.stdout, done.stderr)
        return done.stdout

    where = [python, "-c", "import olmes_suite; print(olmes_suite.__file__)"]
    assert str(home) in subprocess.run(where, capture_output=True, text=True, env=env, cwd=tmp_path).stdout
    quick = ("--task", "gsm8k", "--task", "popqa", "--data", "sample")
    assert "gsm8k" in call("eval", "--backend", "oracle", *quick)
    call("eval", "--backend", "mock", *quick)
    assert "popqa" in call("compare", "oracle-", "mock-")
    assert "fail" in call("gate", "--baseline", "oracle-", "--candidate", "mock-", status=1)
    call("leaderboard", "--out", "page.html")
    assert (tmp_path / "page.html").stat().st_size > 10_000


@pytest.mark.long
def test_what_is_installed_agrees() -> None:
    """pip's own check of the environment that the tests run in."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_wheel_alone_reads_runs(runs: Path, tmp_path: Path) -> None:
    """Builds the wheel, and installs it from the package index into a fresh environment."""
    wheel = build_wheel(ROOT, tmp_path)
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin/python"
    got = subprocess.run([python, "-m", "pip", "install", "-q", str(wheel)], capture_output=True, text=True)
    assert got.returncode == 0, got.stderr[-2000:]
    env = {key: value for key, value in environment(tmp_path).items() if key != "PYTHONPATH"}

    def call(*args: str | Path) -> subprocess.CompletedProcess[str]:
        command = [str(home / "bin/olmes"), *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)

    listed = json.loads(
        subprocess.run([python, "-m", "pip", "list", "--format", "json"], capture_output=True, text=True).stdout
    )
    assert not {"torch", "transformers", "lm_eval", "datasets"} & {entry["name"] for entry in listed}
    read_everything(call, runs, tmp_path)
    for command, extra in NEEDS.items():
        assert one_line_error(call(*command.split())).endswith(f"pip install 'olmes-suite[{extra}]'")
