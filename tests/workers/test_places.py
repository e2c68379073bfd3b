"""Where workers run: GPUs, memory and requests under way shared out among them."""

from __future__ import annotations

import os

import pytest

from olmes_suite.errors import UsageError
from olmes_suite.workers.factory import Crew, check, group_size, open_fleet
from olmes_suite.workers.placement import assign, gpus, listed_gpus, threads

FREE = {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
"""vLLM would bind all engines to the same processors."""


class TestPlaces:
    def test_gpus_are_dealt_in_groups(self):
        env = {"CUDA_VISIBLE_DEVICES": "4,5,6,7"}
        assert gpus(env) == ["4", "5", "6", "7"]
        assert assign(2, 2, None, env) == [{"CUDA_VISIBLE_DEVICES": "4,5"}, {"CUDA_VISIBLE_DEVICES": "6,7"}]

    @pytest.mark.parametrize(("workers", "each", "words"), [(3, 1, "needs 3 GPUs"), (2, 2, "needs 4 GPUs, 2 for each")])
    def test_more_workers_than_gpus(self, workers, each, words):
        with pytest.raises(UsageError, match=words):
            assign(workers, each, None, {"CUDA_VISIBLE_DEVICES": "0,1"})

    def test_one_gpu_by_name(self):
        with pytest.raises(UsageError, match="cuda:1"):
            assign(2, 1, "cuda:1", {"CUDA_VISIBLE_DEVICES": "0,1"})

    def test_the_processor_is_shared(self):
        cores = len(os.sched_getaffinity(0))
        assert assign(1, 1, "cpu", {"CUDA_VISIBLE_DEVICES": "0"}) == [{"OMP_NUM_THREADS": str(cores)}]
        assert assign(2, 1, None, {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "3"}) == [FREE, FREE]
        assert threads(1000, {}) == {"OMP_NUM_THREADS": "1", **FREE}
        assert threads(2, {"OMP_NUM_THREADS": "3", "VLLM_CPU_OMP_THREADS_BIND": "0-1"}) == {}

    def test_the_memory_is_shared_by_engines_on_a_processor(self, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        made = []
        monkeypatch.setattr("olmes_suite.workers.factory.Fleet", lambda makers, *_: made.append(makers[0].args[0]))
        for count, more in ((2, {}), (4, {}), (4, {"gpu_memory_utilization": 0.1})):
            open_fleet(Crew(workers=count), "vllm", "m", {"model_args": more}, print)
        assert [one.options["model_args"] for one in made] == [
            {}, {"gpu_memory_utilization": 0.15}, {"gpu_memory_utilization": 0.1}
        ]  # fmt: skip

    def test_what_nvidia_smi_lists(self):
        text = """GPU 0: A (UUID: GPU-aa)\nGPU 1: B (UUID: GPU-bb)
  MIG 3g.40gb     Device  0: (UUID: MIG-b1)\n  MIG 3g.40gb     Device  1: (UUID: MIG-b2)\nGPU 2: A (UUID: GPU-cc)\n"""
        assert listed_gpus(text) == ["GPU-aa", "MIG-b1", "MIG-b2", "GPU-cc"]

    def test_what_no_machine_can_do(self):
        with pytest.raises(UsageError, match="--workers 0"):
            check(Crew(workers=0), "hf")
        with pytest.raises(UsageError, match="one process"):
            check(Crew(workers=2), "oracle")
        assert group_size({"model_args": {"tensor_parallel_size": 4}}) == 4 and group_size({}) == 1

    @pytest.mark.parametrize("size", ["two", [1], -1, 0, 1.5, True])
    def test_what_is_no_number_of_gpus(self, size):
        with pytest.raises(UsageError, match=r"tensor_parallel_size=.*: give a number of GPUs") as caught:
            group_size({"model_args": {"tensor_parallel_size": size}})
        assert "\n" not in str(caught.value)


def shares_of(monkeypatch, workers, options):
    """What each worker may have under way, of a crew that is not started."""
    seen = []
    monkeypatch.setattr("olmes_suite.workers.factory.Fleet", lambda makers, kind, tell: seen.extend(makers))
    open_fleet(Crew(workers=workers), "openai", "m", {**options, "base_url": "http://x"}, print)
    return [make.args[0].options["concurrency"] for make in seen]


def test_the_servers_requests_under_way_are_shared_out_whole(monkeypatch):
    assert shares_of(monkeypatch, 4, {"concurrency": 10}) == [3, 3, 2, 2]
    assert shares_of(monkeypatch, 3, {}) == [86, 85, 85]
    assert shares_of(monkeypatch, 2, {"concurrency": 2}) == [1, 1]
    with pytest.raises(UsageError, match="--workers 4: more workers than the 2 concurrent requests"):
        shares_of(monkeypatch, 4, {"concurrency": 2})


def test_what_ray_has_room_for_is_no_more_than_may_be_under_way(monkeypatch):
    pytest.importorskip("ray", reason="the extra `ray` is not installed: pip install 'olmes-suite[ray]'")
    seen = []
    monkeypatch.setattr("olmes_suite.workers.ray_actors.connect", lambda *_: (8, 0, lambda: None))
    monkeypatch.setattr("olmes_suite.workers.factory.Fleet", lambda makers, *_, **__: seen.extend(makers))
    open_fleet(Crew(ray="local"), "openai", "m", {"concurrency": 3, "base_url": "http://x"}, print)
    assert [(make.args[0].options["concurrency"], make.args[2]) for make in seen] == [(1, 3)] * 3
    with pytest.raises(UsageError, match="--workers 8"):
        open_fleet(Crew(8, "local"), "openai", "m", {"concurrency": 3, "base_url": "http://x"}, print)
