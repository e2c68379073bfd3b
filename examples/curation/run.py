"""Data made on a laptop: a small model is served, writes prompts, answers them and rates its answers.

    python examples/curation/run.py MODEL [--out curation] [--port 8000] [--count 24]

MODEL is a small instruction-tuned checkpoint, such as demo/smollm2, which `make demo` makes of SmolLM2-135M-Instruct
(Apache-2.0). Each step is a command of `olmes data`; the preferences are killed once on the way and resumed.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = "examples/curation"


def check_free(port: int) -> None:
    """Stop where something listens at the port already, which would answer in place of the model."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as error:
            raise SystemExit(f"port {port} cannot be used ({error.strerror}): choose another with --port") from None


def wait_for(url: str, server: subprocess.Popen[bytes], seconds: float = 300) -> None:
    """Wait until the server lists its model."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/models", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("the server did not start")


def command(step: str, out: Path, changes: Sequence[str]) -> list[str]:
    """Return the command of one step; it continues an unfinished one."""
    words = [sys.executable, "-m", "olmes_suite.cli.main", "data", step, f"{EXAMPLES}/{step}.yaml", "--resume"]
    return [*words, "--out", str(out / step), *(part for change in changes for part in ("--set", change))]


def run(words: Sequence[str], kill_after: Path | None = None, may_be_empty: Path | None = None) -> None:
    """Run a command; with `kill_after`, kill it when its journal has grown, and say so.

    `may_be_empty`: the folder of a data set whose rows may all be left out, which ends the command with status 1.
    """
    print(f"\n== olmes {' '.join(words[3:])}", flush=True)
    with subprocess.Popen(words, cwd=ROOT) as process:
        while process.poll() is None:
            time.sleep(0.2)
            if kill_after is not None and kill_after.is_file() and kill_after.stat().st_size > 40_000:
                process.kill()
                print("== killed on the way; the same command resumes it", flush=True)
                return
    if kill_after is not None and process.returncode in (0, 1):
        print("== it was done before it could be killed", flush=True)
    if process.returncode == 1 and may_be_empty is not None and (may_be_empty / "rejected.jsonl").is_file():
        print("== no row is left of so few prompts: a larger --count or model leaves some", flush=True)
        return
    if process.returncode:
        raise SystemExit(f"olmes data ended with status {process.returncode}")


def main() -> None:
    """Serve the model and run the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--out", type=Path, default=Path("curation"))
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--count", type=int, default=24, help="prompts of each skill")
    chosen = parser.parse_args()
    out, url = chosen.out.resolve(), f"http://127.0.0.1:{chosen.port}/v1"
    check_free(chosen.port)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    served = [sys.executable, f"{EXAMPLES}/serve.py", chosen.model, "--port", str(chosen.port)]
    with subprocess.Popen(served, cwd=ROOT) as server:
        try:
            wait_for(url, server)
            counts = [f"skills.{number}.count={chosen.count}" for number in (0, 1)]
            run(command("prompts", out, [f"generator.base_url={url}", *counts]))
            prompts = f"prompts.0.path={out / 'prompts'}"
            run(command("responses", out, [f"models.0.base_url={url}", prompts]), may_be_empty=out / "responses")
            pairs = command("preferences", out, [f"policy.base_url={url}", f"judge.base_url={url}", prompts])
            made = out / "preferences"
            if not made.exists():
                journal = out / ".preferences.unfinished" / "state" / "responses-1.sqlite-wal"
                run(pairs, kill_after=journal, may_be_empty=made)
            run(pairs, may_be_empty=made)
        finally:
            server.terminate()
    print(f"\nPrompts, responses and pairs, each with a card, are in {out}.")


if __name__ == "__main__":
    main()
