"""Take a picture of the leaderboard page in a real browser, as the README has one.

    python docs/picture.py RUNS OUT.png [--view "compact=on"] [--size 1280x720] [--dark] [--published]

RUNS is a folder of runs, or a page that `olmes leaderboard` wrote. `--view` is the part of the page's address after
`#`. The browser is chromium, or the one in $OLMES_BROWSER.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from leaderboard.build import build
from leaderboard.picture import find_browser, picture, share_picture
from olmes_suite.errors import OlmesError, UsageError


def main() -> int:
    """Build the page where a folder of runs is given, and take its picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--view", default="", help="the part of the address after #; share=1 shows the table alone")
    parser.add_argument("--size", default="1280x720", help="width and height in pixels, or table for the table alone")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--published", action="store_true", help="with the papers' scores as reference rows")
    options = parser.parse_args()
    try:
        take(options)
    except OlmesError as error:
        print(f"picture.py: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def take(options: argparse.Namespace) -> None:
    """Take the picture. Raises OlmesError."""
    browser = find_browser()
    with tempfile.TemporaryDirectory() as folder:
        page = options.runs
        if page.is_dir():
            page = build(
                options.runs, Path(folder) / f"{options.runs.resolve().name}.html", None, options.published
            ).path
        elif not page.is_file():
            raise UsageError(f"{page}: no such folder or page")
        if options.size == "table":
            share_picture(page, options.out, browser)
            return
        wide, _, high = options.size.partition("x")
        if not (wide.isdigit() and high.isdigit() and 100 <= int(wide) <= 8000 and 100 <= int(high) <= 8000):
            raise UsageError(
                f"--size {options.size}: give width and height from 100 to 8000, such as 1280x720, or table"
            )
        picture(page, options.out, browser, (int(wide), int(high)), options.view, options.dark)


if __name__ == "__main__":
    sys.exit(main())
