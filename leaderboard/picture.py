"""Pictures of a page, made by a browser that is installed on the machine, through its command line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from olmes_suite.errors import BrowserFailed, UsageError
from olmes_suite.files import storage

VARIABLE = "OLMES_BROWSER"
"""Environment variable that names the browser to use."""
BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "brave",
)
"""Programs that take pictures from the command line, looked for on PATH in this order."""
SCALE = 2
"""Pixels of the picture for each pixel of the page."""
LARGEST = 8000
"""Largest width and height of a page, in its pixels; browsers limit the size of a picture."""
SECONDS = 90
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_WAIT = 8000
"""Milliseconds that a page has for its scripts, which the browser does not wait for in real time."""


def find_browser(environment: Mapping[str, str] | None = None) -> str:
    """Return the path of the browser. Raises UsageError where none is installed, or the named one is not there."""
    environment = os.environ if environment is None else environment
    if named := environment.get(VARIABLE):
        if found := shutil.which(named):
            return found
        raise UsageError(f"${VARIABLE} names no program: {named}")
    for name in BROWSERS:
        if found := shutil.which(name, path=environment.get("PATH")):
            return found
    raise UsageError(
        f"--png needs a browser, and none of {', '.join(BROWSERS[:3])} is on PATH: install chromium, or name a "
        f"Chromium-like browser in ${VARIABLE}"
    )


def share_picture(page: Path, out: Path, browser: str) -> None:
    """Write the table of a page as a picture that fits it. Raises BrowserFailed where the browser makes none."""
    with tempfile.TemporaryDirectory(prefix="olmes-picture-") as profile:
        dom = _run(browser, profile, page, "share=1", "--window-size=4000,4000", "--dump-dom")
    found = re.search(rb'data-size="(\d+)x(\d+)"', dom)
    if found is None:
        raise BrowserFailed(f"{browser} did not show the page; is it a version of the last two years?")
    size = (min(int(found[1]), LARGEST), min(int(found[2]), LARGEST))
    picture(page, out, browser, size, "share=1")


def picture(page: Path, out: Path, browser: str, size: tuple[int, int], view: str = "", dark: bool = False) -> None:
    """Write a picture of the upper left of a page, `size` pixels wide and high; `view` is the part after `#`.

    The file appears whole or not at all. Raises BrowserFailed where the browser makes no picture.
    """
    with storage(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="olmes-picture-") as folder:
        made = Path(folder) / "picture.png"
        options = [f"--window-size={size[0]},{size[1]}", f"--force-device-scale-factor={SCALE}", f"--screenshot={made}"]
        options += ["--blink-settings=preferredColorScheme=0"] if dark else []
        _run(browser, str(Path(folder) / "profile"), page, view, *options)
        data = made.read_bytes() if made.is_file() else b""
        if not data.startswith(_SIGNATURE):
            raise BrowserFailed(f"{browser} made no picture of {page}")
        with storage(out):
            whole = out.with_name(f".{out.name}.{os.getpid()}")
            try:
                whole.write_bytes(data)
                whole.replace(out)
            finally:
                whole.unlink(missing_ok=True)


def _run(browser: str, profile: str, page: Path, view: str, *options: str) -> bytes:
    """Run the browser without a window and return its output. Raises BrowserFailed where it fails or hangs."""
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # it refuses to run as root
    command = [
        browser, "--headless", *sandbox, "--disable-gpu", "--hide-scrollbars", "--no-first-run",
        "--disable-extensions", "--disable-background-networking", "--disable-dev-shm-usage",
        f"--user-data-dir={profile}", f"--virtual-time-budget={_WAIT}", *options,
        f"file://{quote(str(page.resolve()))}" + (f"#{view}" if view else ""),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise BrowserFailed(f"{browser} took longer than {SECONDS} s to show {page}") from error
    except OSError as error:
        raise BrowserFailed(f"{browser} cannot be started: {error.strerror}") from error
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise BrowserFailed(f"{browser} failed with exit status {done.returncode}: {last[:200]}")
    return done.stdout
