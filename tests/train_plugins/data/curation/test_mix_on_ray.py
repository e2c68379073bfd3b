"""A mix on a Ray cluster has the same bytes as one made on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import olmes

pytest.importorskip("ray", reason="the extra `ray` is not installed: pip install 'olmes-suite[ray]'")
pytestmark = pytest.mark.xdist_group("decontam on ray")


@pytest.mark.long
def test_a_mix_on_ray_equals_one_made_here(tmp_path: Path) -> None:
    for name in "ab":
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"What is {name} {n}?"},
                    {"role": "assistant", "content": f"{n} {name}s"},
                ]
            }
            for n in range(30)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "items.jsonl").write_text(json.dumps({"task": "own", "doc_id": 1, "text": "What is a 7?"}) + "\n")
    recipe = tmp_path / "mix.yaml"
    recipe.write_text(
        f"sources: [{{path: {tmp_path / 'a.jsonl'}}}, {{path: {tmp_path / 'b.jsonl'}}}]\n"
        f"decontam: {{file: {tmp_path / 'items.jsonl'}}}\nformat: jsonl\n"
    )
    for name, options in (("here", ["--workers", "1"]), ("ray", ["--ray", "local"])):
        (tmp_path / name).mkdir()
        done = olmes("data", "mix", recipe, "--out", tmp_path / name / "out", *options, tmp=tmp_path / name)
        assert done.returncode == 0, done.stderr
    files = sorted(path for path in (tmp_path / "here" / "out").rglob("*") if path.is_file())
    for file in files:
        other = tmp_path / "ray" / "out" / file.relative_to(tmp_path / "here" / "out")
        assert file.read_bytes() == other.read_bytes(), file.name
