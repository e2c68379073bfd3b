"""The fingerprint of a checkpoint: what it depends on, and what is hashed once."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models_fixture import (
    CHAT_TEMPLATE,
    one_line,
)

from olmes_suite.errors import ModelError
from olmes_suite.models.local import fingerprint as fingerprints
from olmes_suite.models.local.fingerprint import fingerprint_of, hub_commit


class TestFingerprint:
    """Stable for equal contents, different for any change."""

    def test_stable_and_independent_of_the_place(self, tiny_checkpoint: Path, checkpoint_copy: Path) -> None:
        assert (
            fingerprint_of(tiny_checkpoint).digest
            == fingerprint_of(tiny_checkpoint).digest
            == fingerprint_of(checkpoint_copy).digest
        )

    @pytest.mark.parametrize(
        "change",
        [
            lambda f: _flip_last_byte(f / "model.safetensors"),
            lambda f: (f / "chat_template.jinja").write_text(CHAT_TEMPLATE + " "),
            lambda f: (f / "config.json").write_text((f / "config.json").read_text() + "\n"),
            lambda f: (f / "tokenizer_config.json").write_text((f / "tokenizer_config.json").read_text() + "\n"),
        ],
        ids=["weight", "template", "config", "tokenizer"],
    )
    def test_any_change_shows(self, checkpoint_copy: Path, change: Callable[[Path], Any]) -> None:
        before = fingerprint_of(checkpoint_copy).digest
        change(checkpoint_copy)
        assert fingerprint_of(checkpoint_copy).digest != before

    def test_files_that_decide_nothing_are_left_out(self, checkpoint_copy: Path) -> None:
        before = fingerprint_of(checkpoint_copy).digest
        for name in ("optimizer.pt", "training_args.bin", "README.md", "olmes_lineage.json"):
            (checkpoint_copy / name).write_text("x")
        assert fingerprint_of(checkpoint_copy).digest == before

    def test_settings_and_template_count(self, tiny_checkpoint: Path) -> None:
        plain = fingerprint_of(tiny_checkpoint).digest
        assert (
            len(
                {
                    plain,
                    fingerprint_of(tiny_checkpoint, chat_template="x").digest,
                    fingerprint_of(tiny_checkpoint, settings={"a": 1}).digest,
                }
            )
            == 3
        )

    def test_settled_files_are_hashed_once(self, checkpoint_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hashed: list[str] = []
        real = fingerprints._hash_file

        def counted(file: Path) -> Any:
            hashed.append(file.name)
            return real(file)

        monkeypatch.setattr(fingerprints, "_hash_file", counted)
        old = time.time() - 60
        for file in checkpoint_copy.iterdir():
            os.utime(file, (old, old))
        first = fingerprint_of(checkpoint_copy).digest
        count = len(hashed)
        assert fingerprint_of(checkpoint_copy).digest == first
        assert len(hashed) == count > 3
        _flip_last_byte(checkpoint_copy / "model.safetensors")
        assert fingerprint_of(checkpoint_copy).digest != first
        assert hashed[count:] == ["model.safetensors"]

    @pytest.mark.parametrize("kind", ["file", "garbage", "unwritable"])
    def test_a_cache_that_cannot_be_used_does_no_harm(self, tiny_checkpoint: Path, hash_cache: Path, kind: str) -> None:
        expected = fingerprint_of(tiny_checkpoint).digest
        shutil.rmtree(hash_cache, ignore_errors=True)
        if kind == "file":
            hash_cache.write_text("in the way")
        else:
            hash_cache.mkdir()
            (hash_cache / "hashes.sqlite").write_text("not a database " * 100)
            hash_cache.chmod(0o555 if kind == "unwritable" else 0o755)
        assert fingerprint_of(tiny_checkpoint).digest == expected
        if hash_cache.is_dir():
            hash_cache.chmod(0o755)

    def test_a_hub_checkpoint_is_its_commit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        place = tmp_path / "snapshots" / ("a" * 40) / "config.json"
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: str(place))
        assert fingerprint_of("org/model").commit == "a" * 40
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: None)
        one_line(lambda: fingerprint_of("org/model"), "commit", ModelError)
        assert hub_commit("org/model", "b" * 40) == "b" * 40


def _flip_last_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
