"""The files behind the sources of a mix: local ones, those of a mirror, or those that `datasets` fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from olmes_suite.errors import UsageError, one_line
from olmes_suite.tasks.documents import DataSource
from olmes_suite.yaml_files import Place
from train_plugins.data.curation import inputs
from train_plugins.data.curation.mix.keys import Mix, Source
from train_plugins.data.curation.output import Input


@dataclass(frozen=True, slots=True)
class Located:
    """A source with its files."""

    name: str
    keys: Source
    files: tuple[Path, ...]
    hashes: tuple[str, ...]
    """SHA-256 of each file."""

    @property
    def as_input(self) -> Input:
        """The source, as the manifest names it."""
        return Input(self.keys.place, inputs.joined(self.hashes))


def locate(mix: Mix, names: Sequence[str], place: Place) -> tuple[Located, ...]:
    """Find and hash the files of all sources. Raises UsageError that names the source."""
    data_dirs = mix.decontam.data_dir if mix.decontam else ()
    mirrors = DataSource.from_environment(data_dirs).mirrors
    found = []
    for number, (source, name) in enumerate(zip(mix.sources, names, strict=True)):
        where = place.inside("sources", number, named=f"source {name!r}")
        if source.file is not None:
            files = inputs.files_of(source.file, source.split, where.line(("path",)))
        else:
            files = _of_hub(source, mirrors, where.line(("hub",)))
        found.append(Located(name, source, tuple(files), tuple(map(inputs.file_digest, files))))
    return tuple(found)


def _of_hub(source: Source, mirrors: Sequence[Path], place: Place) -> list[Path]:
    for mirror in mirrors:
        if (mirror / str(source.hub)).is_dir():
            return _of_mirror(mirror / str(source.hub), source, place)
    import datasets

    files = []
    try:
        for config in source.config or (None,):
            loaded = datasets.load_dataset(source.hub, config, split=source.split, revision=source.revision)
            files += [Path(entry["filename"]) for entry in loaded.cache_files]
    except Exception as error:  # the Hub's client raises many types of errors
        raise UsageError(
            f"{place}: {source.hub} ({source.split}) is in no mirror and cannot be loaded from the Hub "
            f"({one_line(error)}); give a local `path`, or set $OLMES_DATA_DIR to a mirror"
        ) from None
    return files


def _of_mirror(folder: Path, source: Source, place: Place) -> list[Path]:
    configs = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("_"))
    chosen = source.config or (tuple(configs) if len(configs) == 1 else ("default",) if "default" in configs else ())
    if not chosen:
        raise UsageError(f"{place}: {source.hub} has the configurations {', '.join(configs)}; name some with `config`")
    files: list[Path] = []
    for config in chosen:
        here = [
            path for path in sorted((folder / config).glob(f"{source.split}*"))
            if path.is_file() and path.name.partition(".")[0].partition("-")[0] == source.split
        ]  # fmt: skip
        if not here:
            raise UsageError(f"{place}: {folder / config} holds no split {source.split!r}")
        files += here
    return files
