"""Take the README's picture: `python docs/picture.py demo/leaderboard.html` writes docs/images/leaderboard.png.

It takes any page that `olmes leaderboard` wrote, and needs a Chromium-like browser on PATH or in $OLMES_BROWSER.
`--view` is what a link has after `#`: `compare=BASELINE,CANDIDATE`, `open=RUN/TASK`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
OUT = Path(__file__).parent / "images" / "leaderboard.png"


def main() -> None:
    """Read the command line; take the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--view", default="", help="part of the address after #")
    parser.add_argument("--size", default="1280x760", help="width x height of the window, in pixels")
    chosen = parser.parse_args()
    browser = os.environ.get("OLMES_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"picture: no browser on PATH ({', '.join(BROWSERS)}); name one in $OLMES_BROWSER")
    if not chosen.page.is_file():
        raise SystemExit(f"picture: {chosen.page}: no such file; `olmes leaderboard` writes the page")
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    take(browser, chosen.page.resolve().as_uri() + (f"#{chosen.view}" if chosen.view else ""), chosen.out, chosen.size)
    print(f"{chosen.out}: {chosen.out.stat().st_size / 1e3:.0f} kB")


def take(browser: str, address: str, out: Path, size: str) -> None:
    """Let the browser write the picture; exits where it makes none."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}",
            f"--window-size={size.replace('x', ',')}", "--virtual-time-budget=5000", f"--screenshot={out.resolve()}",
            address,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode or not out.is_file():
        raise SystemExit(f"picture: {browser} made no picture: {done.stderr.strip().splitlines()[-1:]}")


if __name__ == "__main__":
    main()
