"""The shared base of `olmes data`: recipes, and the output folder that is complete or absent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from olmes_suite.errors import DataError, NothingLeft, UsageError
from train_plugins.data.curation import recipe as recipes
from train_plugins.data.curation.output import Input, Output, Rejected, finished, first_change, unfinished
from train_plugins.data.curation.recipe import Curation, Loaded
from train_plugins.data.curation.rows_file import rows_file
from train_plugins.data_cli.options import Command, Options, make


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys(Curation):
    rows: int
    fail_at: int | None = None


def loaded(folder: Path, text: str = "rows: 3\nformat: jsonl\n", **more: Any) -> Loaded[Keys]:
    file = folder / "recipe.yaml"
    file.write_text(text)
    return recipes.load(file, "count", Keys, output=folder / "out", **more)


def write(recipe: Loaded[Keys], output: Output) -> Mapping[str, Any]:
    (output.state / "progress").write_text("kept")
    with output.rejected() as rejected, rows_file(output.work, recipe.keys.format) as rows:
        for number in range(recipe.keys.rows):
            if number == recipe.keys.fail_at:
                raise DataError(f"row {number} is wrong")
            if number % 2:
                rejected.add(Rejected("numbers", number, "odd"))
            else:
                rows.add({"n": number})
    return output.finish({"read": recipe.keys.rows, "written": (recipe.keys.rows + 1) // 2}, "# Card\n")


def test_the_folder_holds_rows_card_rejected_rows_and_manifest(tmp_path: Path) -> None:
    recipe = loaded(tmp_path)
    with Output(recipe, (Input("numbers", "ab"),)) as output:
        write(recipe, output)
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["card.md", "data.jsonl", "manifest.json", "rejected.jsonl"]
    assert json.loads((out / "rejected.jsonl").read_text()) == {"source": "numbers", "row": 1, "reason": "odd"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["counts"] == {"read": 3, "written": 2, "rejected": {"odd": 1}}
    assert manifest["recipe"] == {"seed": 42, "format": "jsonl", "rows": 3}
    assert manifest["inputs"] == [{"name": "numbers", "sha256": "ab"}]
    assert not unfinished(out).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "recipe.yaml"]


def test_an_error_leaves_nothing_and_a_kill_what_resume_needs(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, changes=["fail_at=1"])
    with pytest.raises(DataError), Output(recipe, ()) as output:
        write(recipe, output)
    assert not unfinished(recipe.output).exists() and not recipe.output.exists()
    with pytest.raises(KeyboardInterrupt), Output(loaded(tmp_path), ()) as output:
        (output.state / "progress").write_text("kept")
        raise KeyboardInterrupt
    with pytest.raises(UsageError, match="add --resume"), Output(loaded(tmp_path), ()):
        pass
    with pytest.raises(UsageError, match="recipe: rows has changed"):
        with Output(loaded(tmp_path, changes=["rows=4"]), (), resume=True):
            pass
    with pytest.raises(UsageError, match="inputs: a has changed"), Output(loaded(tmp_path), (Input("a", ""),), True):
        pass
    with Output(loaded(tmp_path), (), resume=True) as output:
        assert output.resumed and (output.state / "progress").read_text() == "kept"
        write(loaded(tmp_path), output)
    assert recipe.output.is_dir()


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("place", ["train_plugins.data.curation.output.write_json", "pathlib.Path.replace"])
def test_a_kill_at_the_end_changes_no_byte_and_loses_no_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The manifest, or a part of it, is there already when the last steps are repeated."""

    def killed(*_: Any) -> None:
        (unfinished(tmp_path / "out") / ".manifest.json.1.part").write_text("{")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Output(loaded(tmp_path), ()) as output, monkeypatch.context() as patch:
        patch.setattr(place, killed)
        write(loaded(tmp_path), output)
    with Output(loaded(tmp_path), (), resume=True) as output:
        assert (output.state / "progress").read_text() == "kept"
        write(loaded(tmp_path), output)
    (tmp_path / "calm").mkdir()
    with Output(loaded(tmp_path / "calm"), ()) as output:
        write(loaded(tmp_path / "calm"), output)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "calm" / "out")


def test_a_kill_after_the_folder_has_its_name_leaves_a_finished_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Output(loaded(tmp_path), ()) as output, monkeypatch.context() as patch:
        patch.setattr("train_plugins.data.curation.output._remove_state", killed)
        write(loaded(tmp_path), output)
    (tmp_path / ".out.lock").write_text("process 1 on a machine")  # whose process has been killed
    assert finished(loaded(tmp_path), ()) is not None
    assert not (tmp_path / "out" / "state").exists() and not (tmp_path / ".out.lock").exists()


def test_a_command_may_be_resumed_at_another_speed() -> None:
    then = {"recipe": {"seed": 1, "models": [{"model": "a", "concurrency": 64, "tries": 7}], "workers": 2}}
    now = {"recipe": {"seed": 1, "models": [{"model": "a", "concurrency": 4, "tries": 9}], "workers": 1}}
    assert first_change(then, now) == ""
    now["recipe"]["models"][0]["model"] = "b"  # type: ignore[index]
    assert first_change(then, now) == "recipe: models[0]: model"
    assert first_change(then, {"recipe": {**then["recipe"], "models": []}}) == "recipe: models"


def test_a_command_may_be_resumed_with_a_server_elsewhere_but_not_with_another_engine() -> None:
    def at(url: str | None) -> dict[str, Any]:
        return {"recipe": {"generator": {"model": "a", **({} if url is None else {"base_url": url})}}}

    assert first_change(at("http://one:8000/v1"), at("http://two:8001/v1")) == ""
    assert first_change(at("http://one:8000/v1"), at(None)) == "recipe: generator: base_url"
    assert first_change(at(None), at("http://one:8000/v1")) == "recipe: generator: base_url"


def test_rows_that_are_neither_written_nor_rejected_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 rows are neither"), Output(loaded(tmp_path), ()) as output:
        output.finish({"read": 3, "written": 1}, "")
    assert not (tmp_path / "out").exists()


def test_a_finished_folder_is_found_again_and_never_overwritten(tmp_path: Path) -> None:
    recipe = loaded(tmp_path)
    with Output(recipe, (Input("a", "1"),)) as output:
        manifest = write(recipe, output)
    assert finished(recipe, (Input("a", "1"),)) == json.loads(json.dumps(manifest))
    assert finished(recipe, (Input("a", "2"),)) is None
    with pytest.raises(UsageError, match="not empty"), Output(recipe, (), resume=True):
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: 3\nrow: 1\n", "recipe.yaml, line 2: unknown key 'row', did you mean 'rows'?"),
        ("rows: three\n", "recipe.yaml, line 1: rows: expected a whole number"),
        ("seed: 1\n", "the key 'rows' is missing"),
        ("- rows\n", "expected a mapping"),
    ],
)
def test_mistakes_in_a_recipe_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        loaded(tmp_path, text)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_folder_that_one_is_in_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = loaded(tmp_path)
    recipe.output.mkdir()
    monkeypatch.chdir(recipe.output)
    with pytest.raises(UsageError, match="out: is the folder that you are in; name one inside it"):
        Output(recipe, ()).__enter__()
    assert not unfinished(recipe.output).exists()


def test_a_mount_point_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = loaded(tmp_path)
    recipe.output.mkdir()
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path) == recipe.output)
    with pytest.raises(UsageError, match="out: is a mount point, which cannot be replaced; name a folder inside it"):
        Output(recipe, ()).__enter__()


def test_no_output_folder_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("rows: 1")
    with pytest.raises(UsageError, match="give --out DIR"):
        recipes.load(tmp_path / "r.yaml", "count", Keys)
    with pytest.raises(UsageError, match="no such file; shipped recipes of `olmes data count`: none"):
        recipes.load(tmp_path / "s.yaml", "count", Keys)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ({"cut": 2}, "no row is left: 2 of 2 are left out as cut; {out}/rejected.jsonl lists each"),
        ({"a": 1, "b": 3}, "no row is left: 3 of 4 are left out as b, 1 as a; {out}/rejected.jsonl lists each"),
        (
            {"a": 4, "b": 3, "c": 2, "d": 1},
            "no row is left: 4 of 10 are left out as a, 3 as b, 2 as c, and 1 other reason; {out}/rejected.jsonl",
        ),
        (
            {"a": 1, "b": 1, "c": 3, "d": 1, "e": 1},
            "no row is left: 3 of 7 are left out as c, 1 as a, 1 as b, and 2 other reasons; {out}/rejected.jsonl",
        ),
    ],
)  # fmt: skip
def test_a_data_set_without_rows_ends_with_the_reason(tmp_path: Path, lost: dict[str, int], said: str) -> None:
    loaded(tmp_path)
    out = tmp_path / "out"

    def nothing(recipe: Loaded[Keys], output: Output) -> Mapping[str, Any]:
        with output.rejected() as rejected:
            for reason, number in lost.items():
                for row in range(number):
                    rejected.add(Rejected("numbers", row, reason))
        return output.finish({"read": sum(lost.values()), "written": 0}, "card")

    count = Command("count", Keys, lambda recipe: [], lambda recipe, inputs: {}, nothing, lambda manifest: ["summary"])
    for options in (Options(out), Options(out, resume=True)):  # a finished one is only read
        with pytest.raises(NothingLeft) as error:
            make(count, tmp_path / "recipe.yaml", options)
        assert str(error.value).startswith(said.format(out=out)) and error.value.exit_code == 1
    assert len((out / "rejected.jsonl").read_text().splitlines()) == sum(lost.values())


def test_a_command_prints_plan_json_or_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded(tmp_path)
    count = Command(
        "count", Keys, lambda recipe: [Input("numbers", "ab")], lambda recipe, inputs: {"rows": recipe.keys.rows},
        write, lambda manifest: [f"{manifest['counts']['written']} rows"],
    )  # fmt: skip
    out = tmp_path / "out"
    assert make(count, tmp_path / "recipe.yaml", Options(out, dry_run=True)) == 0
    assert capsys.readouterr().out == "rows: 3\n" and not out.exists()
    assert make(count, tmp_path / "recipe.yaml", Options(out)) == 0
    assert capsys.readouterr().out == f"2 rows\nwritten to {out}\n"
    assert make(count, tmp_path / "recipe.yaml", Options(out, resume=True, as_json=True)) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["written"] == 2
