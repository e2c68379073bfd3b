"""olmes doctor: what is there, what is missing, what gets it, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from olmes_suite import extras
from olmes_suite.cli import doctor
from olmes_suite.cli.main import run
from olmes_suite.scoring import language_resources


@pytest.fixture(autouse=True)
def no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLMES_DATA_DIR", raising=False)
    monkeypatch.setattr(doctor, "_sandbox", lambda: doctor.Check("sandbox", True, "landlock", "code", needed=True))


def lack(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these modules and packages of NLTK's data be missing, and all others be there."""
    monkeypatch.setattr(extras, "installed", lambda module: module not in names)
    monkeypatch.setattr(language_resources, "nltk_has", lambda name: name not in names)


def test_every_extra_says_what_it_enables() -> None:
    assert set(doctor.ENABLES) == set(extras.MODULES)


def test_a_missing_extra_is_named_with_its_command_and_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lack(monkeypatch, "ray")
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "pip install 'olmes-suite[ray]'" in out and "olmes-suite[train]" not in out
    assert "What the suites need is here." in out
    assert all(len(line) <= 80 for line in out.splitlines() if "$" not in line and "export" not in line)


def test_missing_data_of_nltk_gives_status_1_and_the_command_for_what_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lack(monkeypatch, "stopwords")
    assert run(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    found = {check["name"]: check for check in report["checks"]}
    assert found["NLTK data"]["get"] == "python -m nltk.downloader stopwords" and not report["ok"]
    assert report["scorers"]["stopwords"].startswith("NLTK's stopwords is not on this machine: python -m nltk.")
    assert run(["doctor"]) == 1
    assert "The suites need: NLTK data." in capsys.readouterr().out


def test_a_mirror_that_lacks_data_is_not_all_that_the_suites_need(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lack(monkeypatch)
    assert run(["doctor", "--data-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "What the suites need is here, but for data." in out and "olmes data verify --suite NAME" in out


def test_a_folder_with_the_name_of_a_package_is_not_that_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "olmes_nowhere").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not extras.installed("olmes_nowhere")
    (tmp_path / "olmes_somewhere.py").touch()
    assert extras.installed("olmes_somewhere")
