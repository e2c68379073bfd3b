"""`olmes eval --ray`: engines as actors. Ray takes seconds to start, so one cluster serves all tests here."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest
import slow_engine
from helpers import olmes, one_line_error, write_gsm8k
from judge_server import judge_server
from pupil import MODELS, ask, good
from worker_requests import asks, expected, seeds_for, texts

from olmes_suite.errors import ModelError, RequestFailed, UsageError
from olmes_suite.models.without_model.mock import MockBackend
from olmes_suite.workers.engine import Recipe
from olmes_suite.workers.fleet import Fleet
from olmes_suite.workers.ray_actors import RayWorker, connect
from olmes_suite.workers.ray_address import reach

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    ray = pytest.importorskip("ray", reason="needs the extra `ray`")
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", slow_engine.install(tmp_path_factory.mktemp("site")))
    patch.delenv("RAY_ADDRESS", raising=False)
    _, _, leave = connect("local", 2, None)
    yield ray
    leave()
    patch.undo()


@pytest.fixture
def fleet(cluster):
    made = []

    def make(orders: str) -> Fleet:
        lines: list[str] = []
        found = Fleet([partial(RayWorker, Recipe("slow", orders), 0, 2)] * 2, "Ray actors", lines.append, apart=True)
        found.lines = lines
        made.append(found)
        return found

    yield make
    for one in made:
        one.close()


def test_answers_are_those_of_one_engine(fleet):
    crew, requests = fleet("pause=0"), asks(50, 2)
    assert crew.fingerprint == MockBackend().fingerprint
    assert texts(crew.run(requests, seeds_for(requests))) == expected(requests)
    assert crew.settings()["workers"] == {"kind": "Ray actors", "count": 2, "died": 0, "lost": 0}


def test_an_actor_killed_in_the_middle(fleet, tmp_path):
    free = tmp_path / "free"
    crew, requests = fleet(f"most=1,until={free}"), asks(60)
    got = []
    for answer in crew.run(requests, seeds_for(requests)):
        got.append(answer)
        if len(got) == 2:  # one of each actor
            os.kill(crew.seats[0].pid, signal.SIGKILL)
            free.touch()
    assert texts(got) == expected(requests)
    assert crew.settings()["workers"]["died"] == 1
    assert any("it is restarted" in line for line in crew.lines)


def test_errors_come_through(fleet, tmp_path):
    crew = fleet("fail=Question 3")
    with pytest.raises(RequestFailed, match="gave up"):
        list(crew.run(asks(6), seeds_for(asks(6))))
    crew.close()  # the cluster has room for two actors
    (tmp_path / "gate").touch()
    with pytest.raises(ModelError, match="no more of these"):
        fleet(f"none={tmp_path / 'gate'}")


def test_a_stop_request_ends_what_is_in_hand(fleet, tmp_path):
    crew, requests = fleet(f"most=1,until={tmp_path / 'never'}"), asks(400)
    got = []
    for answer in crew.run(requests, seeds_for(requests)):
        got.append(answer)
        crew.stop_requested = True
    assert 1 <= len(texts(got)) <= 2


def test_a_cluster_is_known_by_its_greeting(cluster):
    reach(cluster.get_runtime_context().gcs_address, client=False)


def test_keys_reach_the_actors_and_nothing_of_ray(cluster, monkeypatch):
    """The cluster was started without them, as one of other people's is."""
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-to-look-for")
    with judge_server(good, models=MODELS) as served:
        recipe = Recipe("openai", "pupil", {"base_url": served.url})
        crew = Fleet([partial(RayWorker, recipe, 0, 1)], "Ray actors", print, apart=True)
        assert len(list(crew.run(ask(2), [[0]] * 2))) == 2
        crew.close()
        assert set(served.keys) == {"Bearer a-key-to-look-for"}
    logs = Path(cluster._private.worker._global_node.get_logs_dir_path())
    assert logs.is_dir()
    assert not [file for file in logs.rglob("*") if file.is_file() and b"a-key-to-look-for" in file.read_bytes()]


def test_a_cluster_with_too_little_room(cluster):
    with pytest.raises(UsageError, match="--workers 1000"):
        connect("local", 1000, None)


def test_runs_are_equal_byte_for_byte(tmp_path):
    pytest.importorskip("ray", reason="needs the extra `ray`")
    mirror = write_gsm8k(tmp_path / "mirror")
    common = ["eval", "--task", "gsm8k", "--backend", "mock", "--data-dir", mirror]
    olmes(*common, "--runs", tmp_path / "alone", tmp=tmp_path)
    done = olmes(*common, "--ray", "local", "--workers", 2, "--runs", tmp_path / "ray", tmp=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("results.json", "responses/tulu3_gsm8k.jsonl"):
        (alone,), (ray,) = (list((tmp_path / runs).glob(f"*/{name}")) for runs in ("alone", "ray"))
        assert alone.read_bytes() == ray.read_bytes()


@pytest.mark.parametrize(
    ("address", "words"),
    [("127.0.0.1:9", "no Ray cluster answers there"), ("ray://127.0.0.1:9", "a machine of the cluster")],
)
def test_a_cluster_that_cannot_be_reached_is_one_line(tmp_path: Path, address, words):
    pytest.importorskip("ray", reason="needs the extra `ray`")
    done = olmes(
        "eval", "--task", "gsm8k", "--backend", "mock", "--data", "sample", "--ray", address, "--runs", tmp_path / "r",
        tmp=tmp_path,
    )  # fmt: skip
    assert words in one_line_error(done)
