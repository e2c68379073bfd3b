"""The Python interpreter that programs run under, and the folders of it that a jail shows."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from olmes_suite.errors import MissingData

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""System folders, read-only in every jail; links stay links."""
SYSTEM_FILES = (
    "/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/etc/mime.types", "/etc/fonts", "/etc/ssl/openssl.cnf",
)  # fmt: skip
LIBRARIES = ("numpy", "numpy.libs", "scipy", "scipy.libs", "sympy", "mpmath", "pandas", "dateutil", "pytz", "six.py")
"""This interpreter's packages that programs may import: none could hold a benchmark."""

_ASK = (
    "import json,os,site,sys,sysconfig;p=sysconfig.get_paths();"
    "print(json.dumps([os.path.realpath(sys.executable),os.path.realpath(sys.base_prefix),"
    "[p['stdlib'],os.path.dirname(os.__file__)],sorted({p['purelib'],p['platlib']}),sys.version.split()[0]]))"
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python interpreter and the folders that it reads."""

    executable: str
    base: str
    """The folder of the installation, which holds the standard library."""
    site: tuple[str, ...]
    """The folders of the interpreter's packages."""
    version: str
    packages: tuple[str, ...] | None
    """Entries of `site` that a jail shows; None shows all."""

    @property
    def shown(self) -> list[str]:
        """The paths of the packages that a jail shows."""
        if self.packages is None:
            return list(self.site)
        return [path for folder in self.site for name in self.packages if os.path.exists(path := f"{folder}/{name}")]

    @property
    def hidden(self) -> list[str]:
        """The package folders inside shown folders that a jail hides."""
        installed = [str(path) for path in Path(self.base).glob("lib/python3*/site-packages")]
        system = [str(path) for top in ("/usr/lib", "/usr/local/lib") for path in Path(top).glob("python3*/*-packages")]
        folders = {os.path.realpath(path) for path in (*installed, *system, *self.site)}
        return sorted(path for path in folders if self.packages is not None or path not in self.site)


@functools.lru_cache(maxsize=4)
def interpreter(path: str | None = None) -> Interpreter:
    """Describe this interpreter with a few of its packages, or the interpreter at `path` with all of them.

    Raises MissingData where `path` does not run.
    """
    try:
        completed = subprocess.run(
            [path or sys.executable, "-I", "-c", _ASK], capture_output=True, text=True, timeout=60, check=True
        )
        executable, base, _, site, version = json.loads(completed.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise MissingData(
            f"{path or sys.executable} does not run as a Python interpreter ({type(error).__name__}): "
            "name another interpreter"
        ) from None
    return Interpreter(executable, base, tuple(site), version, LIBRARIES if path is None else None)
