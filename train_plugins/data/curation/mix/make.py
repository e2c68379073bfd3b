"""The course of `olmes data mix`: convert and filter, mark duplicates and contamination, choose, write."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from decontam import scan
from decontam.items.items import NothingToScan
from decontam.training_data import sources as blocks_of
from olmes_suite.errors import DataError, UsageError
from olmes_suite.files import cache_folder, remove_leftovers, storage, write_text
from olmes_suite.records import canonical_json, sha256
from olmes_suite.training_rows.files import Block
from olmes_suite.wording import count, size
from olmes_suite.yaml_files import Place
from train_plugins.data.curation.inputs import file_digest, tokenizer_digest
from train_plugins.data.curation.mix import card, deduplicate, facts, keys, parts, select, sources, write
from train_plugins.data.curation.mix import decontaminate as decontamination
from train_plugins.data.curation.mix.keys import Mix
from train_plugins.data.curation.mix.parts import Job, Part, Settings
from train_plugins.data.curation.mix.pool import Lines, Pool
from train_plugins.data.curation.mix.sources import Located
from train_plugins.data.curation.output import Input, Output
from train_plugins.data.curation.recipe import Loaded
from train_plugins.data.curation.reward_prompts import Build

Watch = Callable[[str, int, int], None]
"""Gets the step, and how much of it is done."""


@dataclass(frozen=True, slots=True)
class Machines:
    """Where parts are made and scanned."""

    make: parts.Runner
    scan: scan.Runner

    @classmethod
    def here(cls, workers: int | None = None) -> Machines:
        """Use processes of this machine, by default one for each core."""
        count = workers or len(os.sched_getaffinity(0))
        return cls(parts.in_processes(count), scan.in_processes(count))

    @classmethod
    def on_ray(cls, address: str) -> Machines:
        """Use the machines of a Ray cluster, which must see the sources and `$OLMES_CACHE` under the same paths."""
        from decontam.scan_on_ray import on_ray

        return cls(on_ray(address, parts.run_job, lambda job: parts.read(job) is not None), on_ray(address))


def located(recipe: Loaded[Mix]) -> tuple[Located, ...]:
    """Check the recipe and find its sources. Raises UsageError."""
    names = keys.check(recipe.keys, recipe.place)
    return sources.locate(recipe.keys, names, recipe.place)


def inputs(recipe: Loaded[Mix]) -> list[Input]:
    """Check the recipe and return the content hashes of its sources. Raises UsageError."""
    return _inputs(recipe, located(recipe))


def _inputs(recipe: Loaded[Mix], found_sources: Sequence[Located]) -> list[Input]:
    found = [one.as_input for one in found_sources]
    if recipe.keys.decontam and recipe.keys.decontam.file:
        file = Path(recipe.keys.decontam.file).expanduser()
        found.append(Input(recipe.keys.decontam.file, file_digest(file)))
    if (digest := _tokenizer(recipe.keys)) is not None:
        found.append(Input(str(recipe.keys.tokenizer), digest))
    return found


def _tokenizer(mix: Mix) -> str | None:
    """Return the hash of the tokenizer's files; None for one of the Hub, or none."""
    folder = Path(mix.tokenizer).expanduser() if mix.tokenizer else None
    return tokenizer_digest(folder) if folder and folder.is_dir() else None


def _check_unchanged(recipe: Loaded[Mix], output: Output, found: Sequence[Located]) -> None:
    """Raise DataError where an input is another one than when the command began. Asks no Hub."""
    try:
        now = _inputs(recipe, [replace(one, hashes=tuple(map(file_digest, one.files))) for one in found])
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read any more; repeat the command") from None
    for one, before in zip(now, output.inputs, strict=True):
        if one != before:
            raise DataError(f"{one.name}: has changed since the command began; repeat the command")


def check_evaluations(recipe: Loaded[Mix], manifest: Mapping[str, Any]) -> None:
    """Raise UsageError if a finished mix was compared with other evaluation documents than this machine has now.

    Where no documents are here now, there is nothing to check.
    """
    if recipe.keys.decontam is None:
        return
    try:
        prepared = decontamination.prepare(recipe.keys.decontam)
    except NothingToScan:
        return
    if prepared.index.key != manifest["mix"]["decontamination"]["index"]:
        raise UsageError(
            f"--resume: {recipe.output} was compared with other evaluation documents than this machine has now; "
            "remove it or name another folder"
        )


def plan(recipe: Loaded[Mix], given: Sequence[Input]) -> dict[str, Any]:
    """Return what a mix would be made of."""
    mix = recipe.keys
    entries = []
    for one in located(recipe):
        wanted = next(
            (f"{name} {value:g}" for name in ("amount", "fraction", "share") if (value := getattr(one.keys, name))),
            "all",
        )
        held = size(sum(file.stat().st_size for file in one.files))
        entries.append(
            f"{one.name}: {wanted}, {count(len(one.files), 'file')} ({held}), "
            f"licence {one.keys.licence or keys.UNKNOWN}, skill {one.keys.skill or keys.UNKNOWN}"
        )
    near = mix.duplicates.near
    return {
        "kind": mix.kind, "sources": entries,
        "duplicates": f"{'exact' if mix.duplicates.exact else ''}{f', near from {near:g}' if near else ''}".strip(", ")
        or "kept",
        "decontamination": _compared(mix), "held out": f"{100 * mix.held_out:g} %",
        "output": str(recipe.output), "notes": warnings(mix, [one.name for one in located(recipe)]),
    }  # fmt: skip


def _compared(mix: Mix) -> str:
    if mix.decontam is None:
        return "none"
    names = [*mix.decontam.suites, *mix.decontam.tasks] or [mix.decontam.file or "all suites"]
    return f"{', '.join(names)}; {mix.decontam.on_contamination}"


def warnings(mix: Mix, names: Sequence[str]) -> list[str]:
    """Return one line for each thing about a recipe that a user should know."""
    missing = [name for name, source in zip(names, mix.sources, strict=True) if source.known_licence is None]
    return [f"no licence is given for {', '.join(missing)}"] if missing else []


def make(recipe: Loaded[Mix], output: Output, machines: Machines, watch: Watch) -> Mapping[str, Any]:
    """Make the mix in the output folder and return its manifest. Raises OlmesError."""
    mix, place = recipe.keys, recipe.place
    found_sources = located(recipe)
    _check_unchanged(recipe, output, found_sources)
    names = [one.name for one in found_sources]
    prepared = decontamination.prepare(mix.decontam) if mix.decontam else None
    made = _parts(recipe, output, found_sources, machines.make, watch)
    _refuse_malformed(mix, names, made, place)
    types = write.kept_columns(mix, names, made, place)
    pool = Pool.of(names, made)
    select.check_early(mix, [int((pool.source == n).sum()) for n in range(len(names))], names, place)
    with Lines(pool) as lines:
        watch("duplicates", 0, 1)
        deduplicate.mark(pool, mix.duplicates, lines)
        report = None
        if prepared is not None and mix.decontam is not None:
            watch("decontamination", 0, 1)
            folder = output.work / decontamination.FOLDER
            report = decontamination.mark(pool, made, mix.decontam, prepared, folder, run=machines.scan)
        chosen = select.choose(pool, mix, place)
        watch("writing", 0, 1)
        write.write(mix, pool, chosen, types, output, lines)
    write.write_rejected(pool, made, report, output)
    return _finish(recipe, output, facts.of(mix, pool, made, chosen, report), names)


def _finish(recipe: Loaded[Mix], output: Output, content: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    mix = recipe.keys
    notes = warnings(mix, names)
    write_text(output.work / card.PAGE, card.page(mix.about, content, notes))
    counts = {
        "read": sum(one["read"] for one in content["sources"]),
        "added": sum(one["repeated"] for one in content["sources"]),
        "written": content["rows"],
        "held_out": content["held_out"],
    }
    return output.finish(counts, card.markdown(mix.about, content, notes), {"seed": mix.seed, "mix": content})


def _parts(
    recipe: Loaded[Mix], output: Output, found: Sequence[Located], run: parts.Runner, watch: Watch
) -> list[list[Part]]:
    """Make the parts of all sources that the cache lacks. Raises DataError."""
    folder = cache_folder() / "data" / "parts"
    jobs = [_jobs(recipe.keys, one, folder) for one in found]
    every = {job.key: job for one in jobs for job in one}
    ready = {key: part for key, job in every.items() if (part := parts.read(job)) is not None}
    missing = [job for key, job in every.items() if key not in ready]
    watch("rows", len(every) - len(missing), len(every))
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder, "*.tmp")
        try:
            for done, _ in enumerate(run(missing), len(every) - len(missing) + 1):
                watch("rows", done, len(every))
        except DataError as error:
            raise DataError(_named_source(found, str(error))) from None
    try:
        _check_unchanged(recipe, output, found)
    except DataError:
        for job in missing:  # their names tell the former content
            shutil.rmtree(job.folder, ignore_errors=True)
        raise
    ready |= {job.key: part for job in missing if (part := parts.read(job)) is not None}
    if len(ready) < len(every):
        raise DataError(f"{folder}: a part cannot be read again; repeat the command")
    return [[ready[job.key] for job in one] for one in jobs]


def _named_source(found: Sequence[Located], message: str) -> str:
    """Put the source before a message that names one of its files."""
    name = next((one.name for one in found if any(str(file) in message for file in one.files)), None)
    return message if name is None else f"source {name!r}: {message}"


def _jobs(mix: Mix, one: Located, folder: Path) -> list[Job]:
    near = mix.duplicates.near is not None
    settings = Settings(
        mix.kind, one.keys.form, tuple(dict.fromkeys((*mix.keep, *one.keys.keep))), dict(mix.verifiers),
        (mix.filters, one.keys.filters), mix.tokenizer, _tokenizer(mix), mix.duplicates.shingle if near else None,
        mix.duplicates.by,
        Build(one.keys.build, one.keys.shots, one.keys.constraints, mix.seed) if one.keys.build else None,
    )  # fmt: skip
    jobs = []
    for file, digest in zip(one.files, one.hashes, strict=True):
        try:
            found: list[Block] = list(blocks_of.blocks(file))
        except DataError as error:
            raise DataError(f"source {one.name!r}: {error}") from None
        # the name of a file tells its kind and compression; where it lies does not matter
        jobs += [Job(_named(block, digest), settings, folder) for block in found]
    return jobs


def _named(block: Block, digest: str) -> Block:
    return replace(block, content=sha256(canonical_json([digest, block.packing, block.kind])))


def _refuse_malformed(mix: Mix, names: Sequence[str], made: Sequence[Sequence[Part]], place: Place) -> None:
    """Raise DataError for the first source with rows that are not of the mix's kind, unless it skips them."""
    for number, (name, source, one) in enumerate(zip(names, mix.sources, made, strict=True)):
        total = sum(part.rows for part in one)
        where = place.inside("sources", number, named=f"source {name!r}")
        if total == 0:
            raise DataError(f"{where.line(())}: {source.place} holds no rows")
        bad = write.malformed(name, one) if source.bad_rows == "error" else []
        if bad:
            row, why = bad[0]
            raise DataError(
                f"{where.line(())}: {source.place}, row {row} {why}; {len(bad):,} of {total:,} rows cannot be used"
                + ("; `bad_rows: skip` leaves them out" if len(bad) < total else "")
            )
