"""`olmes data ablate`: the mixes of an experiment and the pipeline that trains on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import olmes_here


def experiment(tmp: Path, *options: str, **changes: Any) -> Any:
    sources = [{"path": f"{name}.jsonl", "licence": "MIT"} for name in "abc"]
    recipe = {
        "mix": {"sources": sources, "format": "jsonl", "seed": 3},
        "train": {"model": "org/model", "trainer": {"max_steps": 3}, "eval": {"suite": "dev", "limit": 10}},
        **changes,
    }
    file = tmp / "ablation.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return olmes_here("data", "ablate", file, "--out", tmp / "out", *options, tmp=tmp)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def names(mix: Any) -> list[str]:
    return [one["name"] for one in mix["sources"]]


def test_mixes_and_pipeline(tmp_path: Path) -> None:
    done = experiment(tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    found = {path.stem: names(read(path)) for path in (out / "mixes").glob("*.yaml")}
    assert found == {
        "full": ["a", "b", "c"], "without_a": ["b", "c"], "without_b": ["a", "c"], "without_c": ["a", "b"],
        "base": ["a"],
    }  # fmt: skip
    assert read(out / "manifest.json")["same"] == {"with_b": "without_c", "with_c": "without_b"}
    for text in (done.stdout, (out / "card.md").read_text()):
        assert "with_b is without_c, which is trained on once" in text
    pipeline = read(out / "pipeline.yaml")
    stages = {one["name"]: one for one in pipeline["stages"]}
    assert next(iter(stages)) == "full" and stages.keys() == found.keys()
    one = stages["without_b"]
    assert one["recipe"]["model"] == "org/model" and one["kind"] == "sft"
    assert one["recipe"]["data"] == [{"path": str(out / "data" / "without_b" / "data.jsonl")}]
    assert one["prepare"]["makes"] == [str(out / "data" / "without_b" / "data.jsonl")]
    assert one["prepare"]["command"][5] == str(out / "mixes" / "without_b.yaml")
    assert str(out / "pipeline.yaml") in (out / "card.md").read_text()


def test_seed_and_format_are_those_of_mixes_without_their_own(tmp_path: Path) -> None:
    sources = [{"path": "a.jsonl"}, {"path": "b.jsonl"}]
    assert experiment(tmp_path, mix={"sources": sources, "seed": 3}, seed=7, format="jsonl").returncode == 0
    mix = read(tmp_path / "out" / "mixes" / "full.yaml")
    assert (mix["seed"], mix["format"]) == (3, "jsonl")
    stage = read(tmp_path / "out" / "pipeline.yaml")["stages"][0]
    assert stage["recipe"]["data"][0]["path"].endswith("data.jsonl")


def test_no_mix_is_trained_on_twice(tmp_path: Path) -> None:
    done = experiment(tmp_path, mix={"sources": [{"path": "a.jsonl"}, {"path": "b.jsonl"}]})
    assert done.returncode == 0, done.stderr
    stages = read(tmp_path / "out" / "pipeline.yaml")["stages"]
    assert [one["name"] for one in stages] == ["full", "without_a", "without_b"]
    assert read(tmp_path / "out" / "manifest.json")["same"] == {"base": "without_b", "with_b": "full"}


def test_names_that_differ_in_a_sign_only_stay_apart(tmp_path: Path) -> None:
    sources = [{"path": f"{name}.jsonl", "name": name} for name in ("a b", "a/b", "c")]
    done = experiment(tmp_path, mix={"sources": sources}, ways=["leave_one_out"])
    assert done.returncode == 0, done.stderr
    found = {path.stem: names(read(path)) for path in (tmp_path / "out" / "mixes").iterdir()}
    assert found["without_a_b"] == ["a/b", "c"] and found["without_a_b-2"] == ["a b", "c"]


def test_a_mix_of_shares_keeps_its_size(tmp_path: Path) -> None:
    sources = [{"path": f"{name}.jsonl", "share": share} for name, share in (("a", 0.5), ("b", 0.3), ("c", 0.2))]
    done = experiment(tmp_path, mix={"sources": sources, "rows": 100}, only=["b"], ways=["leave_one_out"])
    assert done.returncode == 0, done.stderr
    assert sorted(path.stem for path in (tmp_path / "out" / "mixes").iterdir()) == ["full", "without_b"]
    shares = [one["share"] for one in read(tmp_path / "out" / "mixes" / "without_b.yaml")["sources"]]
    assert shares == pytest.approx([0.5 / 0.7, 0.2 / 0.7])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": ["d"]}, "base: the mix has no source 'd'; it has a, b, c"),
        ({"mix": {"sources": [{"path": "a.jsonl"}]}}, "needs at least two"),
        ({"mix": "missing.yaml"}, "recipe missing.yaml: no such file"),
        ({"mix": {"sources": [{"path": "a.jsonl", "amuont": 1}, {"path": "b.jsonl"}]}}, "unknown key 'amuont'"),
        ({"train": {"model": "org/m"}}, "the key 'eval' is missing: what the mixes are compared by"),
        ({"train": {"eval": {"suite": "dev"}}}, "the key 'model' is missing"),
        ({"train": {"model": "org/m", "eval": {"suite": "dve"}}}, "dve"),
        ({"train": {"model": "org/m", "eval": {"suite": "dev"}, "trainr": {}}}, "unknown key 'trainr'"),
        ({"ways": ["one_by_one"]}, "none of leave_one_out, add_one"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    done = experiment(tmp_path, **changes)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "out").exists()


def test_dry_run_and_a_comparison_without_runs(tmp_path: Path) -> None:
    done = experiment(tmp_path, "--dry-run", "--json")
    planned = json.loads(done.stdout)
    assert len(planned["mixes"]) == 5 and len(planned["equal mixes"]) == 2 and not (tmp_path / "out").exists()
    done = olmes_here("data", "ablate", "--compare", tmp_path, tmp=tmp_path)
    assert done.returncode == 2 and "run `olmes train run" in done.stderr
    assert olmes_here("data", "ablate", tmp=tmp_path).returncode == 2
