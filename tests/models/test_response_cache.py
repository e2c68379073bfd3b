"""The response cache: only what is new is asked, and nothing is shared that must not be."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from helpers import as_json, environment, olmes_here, one_line_error, write_gsm8k

from olmes_suite.cli.main import run as command
from olmes_suite.errors import StorageError, UsageError
from olmes_suite.models.cache.backend import CachedBackend
from olmes_suite.models.cache.store import FILE, Entry, ResponseCache
from olmes_suite.models.without_model.mock import MockBackend
from olmes_suite.records import Request, Response


class Counting(MockBackend):
    """Counts what it is asked."""

    def __init__(self, mark: str = "a", name: str = "mock", seeded: bool = True) -> None:
        super().__init__()
        self.mark, self.name, self.seeded, self.count = mark, name, seeded, 0

    @property
    def fingerprint(self) -> str:
        return self.mark

    def run(self, requests, seeds):
        for answer in super().run(requests, seeds):
            self.count += 1
            yield answer


def ask(inner: Counting, folder: Path, requests: list[Request], first_seed: int = 0) -> list[tuple[int, int, Response]]:
    backend = CachedBackend(inner, ResponseCache(folder), "m")
    found = list(backend.run(requests, [list(range(first_seed, first_seed + r.samples)) for r in requests]))
    backend.close()
    return sorted(found, key=lambda answer: answer[:2])


def greedy(number: int) -> list[Request]:
    return [Request("t", i, 0, "generate", text=f"Question {i}") for i in range(number)]


SAMPLED = [Request("t", 0, 0, "generate", text="Write a program", temperature=0.8, samples=3)]


def test_only_what_is_new_is_asked_and_answers_are_the_same(tmp_path):
    first, second = Counting(), Counting()
    before = ask(first, tmp_path, greedy(5))
    after = ask(second, tmp_path, [*greedy(8), Request("t", 9, 0, "loglikelihood", text="So", continuation=" it is")])
    assert (first.count, second.count) == (5, 4)
    assert after[:5] == before == sorted(MockBackend().run(greedy(5), [[0]] * 5))


@pytest.mark.parametrize("other", [Counting(mark="b"), Counting(name="vllm")])
def test_nothing_is_shared_between_models_or_engines(tmp_path, other):
    ask(Counting(), tmp_path, greedy(5))
    ask(other, tmp_path, greedy(5))
    assert other.count == 5


def test_samples_are_kept_under_their_seeds(tmp_path):
    ask(Counting(), tmp_path, SAMPLED)
    again, others, unseeded = Counting(), Counting(), Counting(seeded=False)
    ask(again, tmp_path, SAMPLED)
    ask(others, tmp_path, SAMPLED, first_seed=2)  # one of the three is known
    ask(unseeded, tmp_path, SAMPLED)
    assert (again.count, others.count, unseeded.count) == (0, 2, 3)


def test_greedy_answers_do_not_depend_on_the_runs_seed(tmp_path):
    ask(Counting(), tmp_path, greedy(2))
    again = Counting()
    ask(again, tmp_path, greedy(2), first_seed=77)
    assert again.count == 0


def test_what_is_on_disk_is_neither_asked_nor_looked_up(tmp_path):
    backend = CachedBackend(Counting(), ResponseCache(tmp_path), "m")
    assert [answer[:2] for answer in backend.run(SAMPLED, [[None, 4, None]])] == [(0, 1)]


def test_every_field_survives(tmp_path):
    response = Response("a\ud800b\n", None, None, "length", 3, 4, True, "raw \u2028")
    cache = ResponseCache(tmp_path)
    cache.add("mock", "m", "name", [Entry("k", -1, "t", response)])
    assert ResponseCache(tmp_path).find("mock", ["k"]) == {("k", -1): response}


def test_several_write_at_once(tmp_path):
    def fill(number: int) -> None:
        cache = ResponseCache(tmp_path)
        for place in range(50):
            cache.add("mock", "m", "name", [Entry(f"{number}-{place}", -1, "t", Response("x"))])

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ResponseCache(tmp_path).holdings()[0].responses == 200


def test_a_new_file_that_another_connection_uses_is_waited_for(tmp_path):
    """SQLite's timeout does not apply here: the change to the write-ahead log fails at once."""
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, other.execute, ["ROLLBACK"])
    release.start()
    ResponseCache(tmp_path).add("mock", "m", "name", [Entry("k", -1, "t", Response("x"))])
    release.join()
    other.close()
    assert ResponseCache(tmp_path).holdings()[0].responses == 1


def test_a_writer_that_is_killed_leaves_whole_responses(tmp_path):
    program = """
import sys
from pathlib import Path
from olmes_suite.records import Response
from olmes_suite.models.cache.store import Entry, ResponseCache
cache = ResponseCache(Path(sys.argv[1]))
for number in range(10**6):
    cache.add("mock", "m", "name", [Entry(f"{number}", -1, "t", Response("x" * 5000))])
    print(number, flush=True)
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment(tmp_path)
    )
    assert writer.stdout is not None
    while int(writer.stdout.readline()) < 20:
        pass
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    found = ResponseCache(tmp_path).find("mock", [str(number) for number in range(21)])
    assert len(found) == 21 and {len(response.text or "") for response in found.values()} == {5000}


def test_a_cache_that_breaks_costs_no_answer(tmp_path, monkeypatch):
    def broken(*args: object) -> None:
        raise StorageError("disk full")

    backend = CachedBackend(Counting(), ResponseCache(tmp_path), "m")
    monkeypatch.setattr(backend.cache, "add", broken)
    assert len(list(backend.run(greedy(3), [[0]] * 3))) == 3
    assert backend.settings()["cache"] == {"folder": str(tmp_path), "found": 0, "asked": 3, "broken": "disk full"}


def test_damaged_pages_cost_no_answer(tmp_path, capsys):
    requests = [Request("t", i, 0, "generate", text=f"Question {i} " + "x" * 300) for i in range(900)]
    before = ask(Counting(), tmp_path, requests)
    raw = bytearray((tmp_path / FILE).read_bytes())
    raw[len(raw) // 4 : -8192] = b"\xab" * len(raw[len(raw) // 4 : -8192])
    (tmp_path / FILE).write_bytes(raw)
    backend = CachedBackend(Counting(), ResponseCache(tmp_path), "m")
    assert sorted(backend.run(requests, [[0]] * 900), key=lambda answer: answer[:2]) == before
    told = backend.settings()["cache"]
    assert told["asked"] > 0 and told["found"] + told["asked"] == 900 and FILE in told["broken"]
    backend.close()
    for words in (["show"], ["prune", "--all"]):
        assert command(["cache", words[0], str(tmp_path), *words[1:]]) == 2
        said = capsys.readouterr().err
        assert "delete it" in said and said.count("\n") == 1


@pytest.mark.parametrize("body", ['{"text": "a", "later": 1}', '["a"]', "5", "{", ""])
def test_an_entry_that_cannot_be_read_is_asked_again(tmp_path, body):
    before = ask(Counting(), tmp_path, greedy(3))
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        db.execute("UPDATE responses SET body = ? WHERE key = (SELECT MIN(key) FROM responses)", (body,))
        db.commit()
    inner = Counting()
    backend = CachedBackend(inner, ResponseCache(tmp_path), "m")
    assert sorted(backend.run(greedy(4), [[0]] * 4), key=lambda answer: answer[:2])[:3] == before
    told = backend.settings()["cache"]
    assert (inner.count, told["found"]) == (2, 2) and "an entry cannot be read" in told["broken"]
    backend.close()
    assert len(ResponseCache(tmp_path).find("mock", [request.key("a") for request in greedy(4)])) == 3


def test_a_busy_cache_costs_no_answer_and_cannot_be_pruned(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("olmes_suite.models.cache.store.WAIT_SECONDS", 0.05)
    ask(Counting(), tmp_path, greedy(3))
    cache = ResponseCache(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="locked"):
            cache.prune("a")
        backend = CachedBackend(Counting(), cache, "m")
        assert len(list(backend.run(greedy(5), [[0]] * 5))) == 5
        assert "locked" in backend.settings()["cache"]["broken"]
        other.execute("ROLLBACK")
    assert cache.prune("a") == 3


def test_on_a_full_disk_nobody_is_told_to_delete_the_answers(tmp_path):
    cache = ResponseCache(tmp_path)
    cache._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StorageError, match=r"full.*free some space, then repeat the command; answers that it holds"):
        cache.add("mock", "m", "m", [Entry("key", 0, "t", Response("x" * 100_000))])


def test_a_stop_request_reaches_the_engine(tmp_path):
    backend = CachedBackend(Counting(), ResponseCache(tmp_path), "m")
    backend.stop_requested = True
    assert backend.inner.stop_requested and list(backend.run(greedy(3), [[0]] * 3)) == []


def test_a_file_that_is_no_cache(tmp_path):
    (tmp_path / FILE).write_bytes(b"not a database at all" * 100)
    with pytest.raises(UsageError, match="not a response cache"):
        ResponseCache(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="another folder"):
        ResponseCache(tmp_path / "file")


def test_show_and_prune(tmp_path, capsys):
    ask(Counting("a"), tmp_path, greedy(3))
    ask(Counting("b"), tmp_path, greedy(2))
    assert command(["cache", "show", str(tmp_path), "--json"]) == 0
    assert sorted((one["model"], one["responses"]) for one in json.loads(capsys.readouterr().out)) == [
        ("a", 3),
        ("b", 2),
    ]
    assert command(["cache", "prune", str(tmp_path), "--older-than", "1"]) == 0
    assert command(["cache", "prune", str(tmp_path), "--model", "a"]) == 0
    assert capsys.readouterr().out.splitlines() == ["0 responses deleted", "3 responses deleted"]
    assert [one.model for one in ResponseCache(tmp_path).holdings()] == ["b"]
    assert command(["cache", "prune", str(tmp_path)]) == 2
    assert command(["cache", "prune", str(tmp_path), "--all"]) == 0
    assert command(["cache", "show", str(tmp_path / "none")]) == 2
    assert "has no response cache" in capsys.readouterr().err


@pytest.mark.long
def test_a_changed_suite_asks_only_what_is_new(tmp_path):
    mirror = write_gsm8k(tmp_path / "mirror")
    common = ["eval", "--task", "gsm8k", "--backend", "mock", "--data-dir", mirror, "--cache", tmp_path / "kept"]
    for limit, counts in ((10, (0, 10)), (25, (10, 15))):
        done = as_json(olmes_here(*common, "--limit", limit, "--runs", tmp_path / "runs", "--json", tmp=tmp_path))
        cache = json.loads((Path(done["path"]) / "manifest.json").read_text())["engine"]["cache"]
        assert (cache["found"], cache["asked"]) == counts
    plain = olmes_here(*common[:-2], "--limit", 25, "--runs", tmp_path / "plain", "--json", tmp=tmp_path)
    for name in ("results.json", "responses/tulu3_gsm8k.jsonl"):
        assert (Path(done["path"]) / name).read_bytes() == (Path(as_json(plain)["path"]) / name).read_bytes()
    wrong = olmes_here("eval", "--task", "gsm8k", "--backend", "oracle", "--cache", tmp_path / "kept", tmp=tmp_path)
    assert "leave out --cache" in one_line_error(wrong)
