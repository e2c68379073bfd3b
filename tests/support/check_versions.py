"""Run the representative tests with the oldest or the newest releases that `pyproject.toml` allows.

    python tests/support/check_versions.py oldest
    python tests/support/check_versions.py newest --python python3.13
    python tests/support/check_versions.py resolve

`oldest` takes the lower bound of every direct dependency, `newest` the newest release of everything, each in an
environment of its own below `.venv-versions`, made by uv. `resolve` installs nothing: it checks that all extras
together have a solution at both ends on every Python that we support, and so has each of them.

An interpreter that is not on this machine is left out with a line, and so is torch's CPU build for one that has none.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-versions"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENDS = {"oldest": "lowest-direct", "newest": "highest"}
"""End to uv's name for it."""
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
TESTED_TORCH = "torch==2.13.0"
"""Taken where PyTorch's index of CPU builds cannot be reached; see the Makefile."""
WHEELS = (
    "blis", "llvmlite", "lxml", "numba", "numpy", "pandas", "pyarrow", "pydantic-core", "regex", "safetensors",
    "scikit-learn", "scipy", "spacy", "statsmodels", "thinc", "tokenizers", "tree-sitter", "tree-sitter-python",
)  # fmt: skip
"""Packages that are not compiled here: their lower bound is the first release with a wheel for the interpreter."""
TESTS = (
    "tests/packaging/test_imports.py",
    "tests/packaging/test_dependencies.py",
    "tests/test_lm_eval_api.py",
    "tests/tasks/test_lm_eval.py",
    "tests/tasks/test_external_tasks.py",
    "tests/tasks/test_gsm8k.py",
    "tests/tasks/test_ifeval.py",
    "tests/models/test_hf.py",
    "tests/models/test_capped_attention.py",
    "tests/models/test_encoding.py",
    "tests/models/test_reuse.py::TestAnswers::test_it_says_where_nothing_can_be_shared",
    "tests/models/test_reuse.py::TestAnswers::test_greedy_answers",
    "tests/train_plugins/data/test_turn_end.py",
    "tests/train_plugins/stages/test_sft.py::test_the_sum_loss_is_the_sum_for_every_split",
    "tests/train_plugins/stages/test_sft.py::test_the_template_marks_answers_and_ends_of_turns",
    "tests/train_plugins/stages/test_dpo.py::test_our_loss_is_trls_sigmoid_norm",
    "tests/train_plugins/stages/test_dpo.py::test_a_reward_model_scores_at_the_last_token",
    "tests/train_plugins/stages/test_lora.py",
    "tests/train_plugins/stages/test_rlvr.py::test_ppo_is_its_formula",
    "tests/train_plugins/stages/test_rlvr.py::test_grpo_and_rloo_are_their_formulas",
    "tests/train_plugins/rl/test_async_grpo.py",
    "tests/decontam/test_scan.py",
    "tests/comparison/test_paired_tests.py",
    "tests/leaderboard/test_leaderboard.py::test_cells_hold_the_scores_of_results_json",
    "tests/leaderboard/test_leaderboard.py::test_json_output",
)
"""What touches the dependencies: every module, a task and a model of each kind, templates, a step of every stage."""


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 if all tests pass at the end that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("end", choices=(*ENDS, "resolve"))
    parser.add_argument("--python", default=sys.executable, help="the interpreter (default: this one)")
    parser.add_argument("--torch-index", default="", help="index of torch's CPU builds; empty: the default index")
    options = parser.parse_args(argv)
    if options.end == "resolve":
        return resolve(uv())
    python = shutil.which(options.python)
    if python is None or subprocess.run([python, "-c", ""], capture_output=True).returncode:
        print(f"{options.python}: not on this machine, left out")
        return 0
    environment = install(options.end, python, options.torch_index)
    if environment is None:
        return 0
    pytest = ("-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", "--durations=10", "--durations-min=1")
    return run(environment / "bin/python", *pytest, "-m", "not slow and not gpu and not vllm", *TESTS).returncode


def run(*command: str | Path, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command in the checkout; its output is returned if `quiet`, else printed."""
    return subprocess.run([str(part) for part in command], cwd=ROOT, text=True, capture_output=quiet)


def uv() -> Path:
    """Return uv, installed from the package index on first use."""
    place = FOLDER / "uv"
    if not (place / "bin/uv").is_file():
        run(sys.executable, "-m", "venv", place).check_returncode()
        run(place / "bin/python", "-m", "pip", "install", "-q", "uv").check_returncode()
    return place / "bin/uv"


def resolve(tool: Path) -> int:
    """Check that all extras together have a solution at both ends. Return the number of ends that have none."""
    failed = 0
    for python in PYTHONS:
        for end, strategy in ENDS.items():
            for extra in ("all", "dev"):
                found = run(
                    tool, "pip", "compile", "-q", "--no-header", "--no-annotate", "--python-version", python,
                    "--python-platform", "x86_64-manylinux_2_28", "--resolution", strategy, "--extra", extra,
                    "pyproject.toml", quiet=True,
                )  # fmt: skip
                if found.returncode:
                    failed += 1
                    print(f"Python {python}, {end}, [{extra}]: no solution\n{found.stderr.strip()}")
                elif extra == "all":
                    print(f"Python {python}, {end}: {versions(found.stdout)}")
    return failed


def versions(lines: str) -> str:
    """Return the releases of the packages that matter most, of uv's or pip's list."""
    shown = ("vllm", "transformers", "trl", "torch", "lm-eval", "datasets", "numpy", "pandas", "pyarrow", "peft")
    found = dict(re.findall(r"^([\w.-]+)==(\S+)", lines, re.MULTILINE))
    found = {name.lower().replace("_", "-"): version for name, version in found.items()}
    return ", ".join(f"{name} {found[name]}" for name in shown if name in found)


def install(end: str, python: str, torch_index: str) -> Path | None:
    """Return the environment of an end and an interpreter, made anew where pyproject.toml or the end has changed.

    Returns None where torch has no build for the interpreter that fits onto this machine.
    """
    asked = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = run(python, "-c", asked, quiet=True).stdout.strip()
    environment = FOLDER / f"{end}-{version}"
    done, state = environment / ".done", hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if done.is_file() and done.read_text() == state:
        return environment
    shutil.rmtree(environment, ignore_errors=True)
    run(python, "-m", "venv", environment).check_returncode()
    own = environment / "bin/python"
    if not install_torch(own, end, torch_index):
        print(f"Python {version}: torch has no CPU build here, left out (TORCH_INDEX= takes the CUDA build)")
        return None
    wheels = [part for name in WHEELS for part in ("--only-binary", name)]
    run(
        uv(), "pip", "install", "-q", "--python", own, "--resolution", ENDS[end], *wheels, "-e", ".[dev]"
    ).check_returncode()
    done.write_text(state)
    print(f"Python {version}, {end}: {versions(run(uv(), 'pip', 'freeze', '--python', own, quiet=True).stdout)}")
    return environment


def install_torch(python: Path, end: str, index: str) -> bool:
    """Install torch's CPU build at the given end, or the tested one where its index cannot be reached."""
    pip = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check")
    bounds = [line for line in PROJECT["optional-dependencies"]["eval"] if line.startswith("torch>=")]
    wanted = bounds[0].replace(">=", "==") if end == "oldest" else "torch"
    if index:
        if not run(*pip, "--retries", "0", "--timeout", "10", "--index-url", index, wanted, quiet=True).returncode:
            return True
        print(f"{index} cannot be reached: taking {TESTED_TORCH} from the default index")
        wanted = TESTED_TORCH
    return not run(*pip, wanted).returncode


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
