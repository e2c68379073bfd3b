"""What differs between two runs of a checkpoint, by their manifests."""

from __future__ import annotations

import pytest

from olmes_suite.runs.differences import checkpoint, differing, facts
from olmes_suite.runs.schema import Manifest


def manifest(**more: object) -> Manifest:
    engine = {"backend": "hf", "chat": True, "chat_template": "a" * 64, "dtype": "float32", "fingerprint": "f"}
    engine |= more.pop("engine", {})
    return Manifest.from_json({"tasks": {}, "plan": [], "engine": engine, "seed": 1234, "folder": "/home/user", **more})


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {}),
        ({"engine": {"fingerprint": "g", "device_name": "H100"}}, {}),
        ({"limit": 100}, {"limit": ("all", "100")}),
        ({"sample": True}, {"documents": ("full", "sample")}),
        ({"engine": {"dtype": "bfloat16"}}, {"dtype": ("float32", "bfloat16")}),
        ({"engine": {"chat": False}}, {"chat template": ("aaaaaaaa", "none")}),
        (
            {"settings": {"system": "Be\nbrief.", "samples": 4}},
            {"system": ("none", "Be brief."), "samples": ("none", "4")},
        ),
        ({"packages": {"vllm": "0.9.1"}}, {"vllm": ("none", "0.9.1")}),
        ({"judge": {"judge": {"model": "gpt"}}}, {"judge": ("none", "gpt")}),
    ],
    ids=str,
)
def test_settings_that_differ(more, expected):
    assert differing(facts(manifest()), facts(manifest(**more))) == expected


def test_imported_scores_have_no_settings():
    assert differing(facts(manifest()), facts(manifest(imported=True))) == {}


def test_one_checkpoint_by_its_place():
    one = manifest(model={"path": "ckpt/a"})
    assert checkpoint(one) == checkpoint(manifest(model={"path": "ckpt/a"}))
    assert checkpoint(manifest(model={"path": "./ckpt/a"})) == "/home/user/ckpt/a"
    assert checkpoint(manifest(model={"path": "o/a", "revision": "v2"})) == "o/a@v2"
