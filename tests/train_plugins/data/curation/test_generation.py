"""The client of models: nothing is paid for twice, failures do not stop the others, a dead server stops the command."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from curation_server import Run, adds_up, everything, rejected_of, rows_of, sums
from helpers import environment
from judge_server import Body, Reply, Served, asked, chat, judge_server

from olmes_suite.errors import RequestFailed
from train_plugins.data.curation.generation import completions, models
from train_plugins.data.curation.generation.completions import IN_A_ROW, Ask, Completer, Failed, Journal
from train_plugins.data.curation.generation.models import Model


def echo(body: Body, before: int) -> Reply:
    return Reply(chat(f"{asked(body)} {body.get('seed')}"))


def model(url: str, **keys: Any) -> Model:
    return Model(**{"model": "m", "base_url": url, "temperature": 1.0, "tries": 2, **keys})


def texts(found: list[Any]) -> list[str]:
    return [one.reason if isinstance(one, Failed) else one.text for one in found]


def asks(count: int, samples: int = 1) -> list[Ask]:
    return [Ask((("user", f"say {n}"),), sample) for n in range(count) for sample in range(samples)]


def test_completions_are_in_order_seeded_and_asked_for_once(tmp_path: Path) -> None:
    with judge_server(echo) as served, Journal(tmp_path) as journal:
        first = Completer(model(served.url), journal, 5)
        found = texts(first.complete([*asks(20, samples=2), *asks(3)]))
        sent = len(served.seen)
        again = texts(Completer(model(served.url, concurrency=1), journal, 5).complete(asks(20, samples=2)))
        other = texts(Completer(model(served.url), journal, 6).complete(asks(1)))
    assert [text.rsplit(" ", 1)[0] for text in found[:40:2]] == [f"say {n}" for n in range(20)]
    assert len(set(found)) == 40 and found[40:] == found[:6:2]
    assert again == found[:40] and other[0] != found[0]
    assert sent == 40 + 1 and first.spent.completions == 40  # one request lists the models


@pytest.mark.parametrize(
    "change", [{"temperature": 0.5}, {"max_tokens": 9}, {"system": "Be kind."}, {"model": "n"}, {"thinking": "none"}]
)
def test_another_setting_is_another_completion(tmp_path: Path, change: dict[str, Any]) -> None:
    with judge_server(echo) as served, Journal(tmp_path) as journal:
        Completer(model(served.url), journal, 5).complete(asks(1))
        before = len(served.seen)
        Completer(model(served.url, **change), journal, 5).complete(asks(1))
        assert len(served.seen) == before + 2


def test_a_request_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    def reply(body: Body, before: int) -> Reply:
        return Reply({"error": "refused"}, status=400) if asked(body) in ("say 3", "say 8") else echo(body, before)

    with judge_server(reply) as served, Journal(tmp_path) as journal:
        completer = Completer(model(served.url), journal, 5)
        found = completer.complete(asks(12))
        assert [n for n, one in enumerate(found) if isinstance(one, Failed)] == [3, 8]
        assert "refused" in texts(found)[3] and completer.spent.failed == 2


def test_a_request_is_tried_again(tmp_path: Path, quick_retries: None) -> None:
    def reply(body: Body, before: int) -> Reply:
        return echo(body, before) if before else Reply(None, status=500)

    with judge_server(reply) as served, Journal(tmp_path) as journal:
        assert not any(isinstance(one, Failed) for one in Completer(model(served.url), journal, 5).complete(asks(4)))


def test_a_server_that_fails_every_request_stops_the_command(tmp_path: Path) -> None:
    with judge_server(lambda body, before: Reply({"error": "broken"}, status=400)) as served:
        with Journal(tmp_path) as journal, pytest.raises(RequestFailed, match=r"in a row failed.*broken.*--resume"):
            Completer(model(served.url), journal, 5).complete(asks(IN_A_ROW * 4))
        assert len(served.seen) < IN_A_ROW * 3


def test_many_prompts_that_are_too_long_stop_no_command(tmp_path: Path) -> None:
    """Where a command is resumed, they are all that is left to ask for, and come in a row."""

    def reply(body: Body, before: int) -> Reply:
        return Reply({"error": "too long"}, status=400) if len(asked(body)) > 99 else echo(body, before)

    every = [Ask((("user", f"say {n} {'and on ' * 20 * (n % 2)}aloud"),)) for n in range(IN_A_ROW * 4)]
    with judge_server(reply) as served:
        for _ in ("at first", "resumed"):
            with Journal(tmp_path) as journal:
                found = Completer(model(served.url), journal, 5).complete(every)
            assert [isinstance(one, Failed) for one in found] == [False, True] * IN_A_ROW * 2


def test_a_server_that_never_answered_stops_a_small_data_set_too(run: Run, tmp_path: Path) -> None:
    broken = threading.Event()
    broken.set()

    def reply(body: Body, before: int) -> Reply:
        return Reply({"error": "overloaded"}, status=500) if broken.is_set() else echo(body, before)

    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"say {n} aloud"}) + "\n" for n in range(3)))
    with judge_server(reply) as served:
        recipe = {"prompts": [{"path": str(file)}], "models": [{"model": "m", "base_url": served.url, "tries": 1}]}
        done = run("responses", recipe)
        assert done.returncode == 1 and "all requests failed, the last with" in done.stderr
        assert not (tmp_path / ".out.unfinished").exists()  # nothing was paid for
        broken.clear()
        assert run("responses", recipe).returncode == 0


def test_a_prompt_that_a_server_refuses_is_recorded_also_alone(tmp_path: Path) -> None:
    with judge_server(lambda body, before: Reply({"error": "too long"}, status=400)) as served:
        with Journal(tmp_path) as journal:
            found = Completer(model(served.url), journal, 5).complete(asks(1))
    assert isinstance(found[0], Failed) and "too long" in found[0].reason


def test_a_wrong_key_stops_at_once(tmp_path: Path) -> None:
    with judge_server(lambda body, before: Reply({"error": "bad key"}, status=401)) as served:
        with Journal(tmp_path) as journal, pytest.raises(RequestFailed, match="OPENAI_API_KEY"):
            Completer(model(served.url), journal, 5).complete(asks(200))
        assert len(served.seen) < 50


def test_a_backend_of_this_machine_answers_too(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        found = Completer(Model(model="mock", backend="mock"), journal, 5).complete(asks(6, samples=2))
    assert len({*texts(found)}) > 6


@pytest.mark.long
def test_what_was_paid_for_survives_a_failure(run: Run, tmp_path: Path) -> None:
    broken = threading.Event()
    broken.set()

    def reply(body: Body, before: int) -> Reply:
        late = int(asked(body).split()[1]) >= 20
        return Reply({"error": "later"}, status=400) if broken.is_set() and late else echo(body, before)

    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"say {n} aloud"}) + "\n" for n in range(120)))
    with judge_server(reply) as served:
        recipe = {
            "prompts": [{"path": str(file)}],
            "models": [{"model": "m", "base_url": served.url, "tries": 1, "concurrency": 1}],
        }
        done = run("responses", recipe)
        assert done.returncode == 1 and "--resume" in done.stderr and "Traceback" not in done.stderr
        broken.clear()
        assert "add --resume" in run("responses", recipe).stderr
        answered = {asked(body) for _, body in served.seen if "messages" in body}
        assert len(answered) < 120
        before = served.counts()
        assert run("responses", recipe, "--resume").returncode == 0
        after = served.counts()
    assert all(after[f"say {n} aloud"] == before[f"say {n} aloud"] == 1 for n in range(20))
    assert adds_up(tmp_path / "out")["counts"]["written"] == 120


@pytest.mark.long
@pytest.mark.parametrize("command", ["responses", "passrate", "preferences", "prompts"])
def test_a_server_that_comes_back_elsewhere_is_asked_only_for_what_is_missing(
    run: Run, tmp_path: Path, command: str
) -> None:
    """The first server dies on the way; the same recipe at another port pays for no answer twice."""
    answers: list[str] = []

    def dying(body: Body, before: int) -> Reply:
        if len(answers) >= 15:
            return Reply({"error": "no such key"}, status=401)
        answers.append(json.dumps(body, sort_keys=True))
        return everything(body, before)

    def later(body: Body, before: int) -> Reply:
        answers.append(json.dumps(body, sort_keys=True))
        return everything(body, before)

    def recipe(url: str) -> dict[str, Any]:
        one = {"model": "m", "base_url": url, "concurrency": 1, "tries": 1}
        prompts = [{"path": str(sums(tmp_path / "sums.jsonl", 12))}]
        return {
            "responses": {"prompts": prompts, "models": [one], "best_of": 2, "keep": "all"},
            "passrate": {"prompts": prompts, "model": one, "samples": 2},
            "preferences": {"prompts": prompts, "by": "judge", "policy": one, "judge": {**one, "name": "judge"}},
            "prompts": {"personas": {"sample": True}, "generator": one, "skills": [{"skill": "algebra", "count": 20}]},
        }[command]

    with judge_server(dying) as first:
        done = run(command, recipe(first.url))
        assert done.returncode == 1 and len(answers) == 15, done.stderr
    with judge_server(later) as second:
        done = run(command, recipe(second.url), "--resume")
        assert done.returncode == 0, done.stderr
        manifest = adds_up(tmp_path / "out")
        assert len(answers) > 15 and len(set(answers)) == len(answers)
        assert {one["base_url"] for one in manifest["models"]} == {second.url}
        sent = len(second.seen)
        assert run(command, recipe("http://127.0.0.1:9/v1"), "--resume").returncode == 0  # finished: nothing is asked
        assert len(second.seen) == sent
        assert run(command, recipe(second.url), out="calm").returncode == 0
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "calm")
    moved = json.loads((tmp_path / "out/manifest.json").read_text())
    calm = json.loads((tmp_path / "calm/manifest.json").read_text())
    assert moved["counts"] == calm["counts"] and moved["models"] == calm["models"]


def test_models_of_one_served_name_are_told_apart_by_their_names(tmp_path: Path) -> None:
    def says(text: str) -> Any:
        return lambda body, before: Reply(chat(text))

    with judge_server(says("one")) as one, judge_server(says("two")) as two, Journal(tmp_path) as journal:
        first = Completer(model(one.url, name="a"), journal, 5).complete(asks(2))
        second = Completer(model(two.url, name="b"), journal, 5).complete(asks(2))
    assert texts(first) == ["one"] * 2 and texts(second) == ["two"] * 2


def test_a_journal_of_an_earlier_version_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with judge_server(echo) as served, Journal(tmp_path) as journal:
        with monkeypatch.context() as then:
            then.setattr(completions, "identity", models.identity_by_address)
            before = texts(Completer(model(served.url), journal, 5).complete(asks(5)))
        sent = len(served.seen)
        assert texts(Completer(model(served.url), journal, 5).complete(asks(5))) == before and len(served.seen) == sent


def test_a_finished_command_asks_nothing_more(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "say 1"}\n')
    with judge_server(echo) as served:
        recipe = {"prompts": [{"path": str(file)}], "models": [{"model": "m", "base_url": served.url}]}
        assert run("responses", recipe).returncode == 0
        sent = len(served.seen)
        assert run("responses", recipe, "--resume").returncode == 0
        assert len(served.seen) == sent
        other = run("responses", {**recipe, "seed": 1})
        assert other.returncode == 2 and "exists and is not empty" in other.stderr


# Kills

KILLS, CONCURRENCY, MORE = 30, 4, 2
"""MORE: answers that a command may get after those for which its kill waits."""


class Counting:
    """A slow server that knows when each request came, and gives a command as many answers as it is allowed.

    So no command ends before it is killed, however late the kill is. The address of each has its number, because a
    request may be read after its command's end.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.served = Served("")
        self.came: dict[str, list[float]] = {}
        self.command, self.answered, self.most = 0, 0, 0

    def begin(self, most: int) -> str:
        """Another command begins, which gets `most` answers; returns the address for it."""
        with self.changed:
            self.command, self.answered, self.most = self.command + 1, 0, most
            self.changed.notify_all()
        return self.served.url.replace("/v1", f"/{self.command}/v1")

    def reply(self, body: Body, before: int) -> Reply:
        text = asked(body)
        path = next(path for path, one in reversed(self.served.seen) if one is body)
        command = int(path.split("/")[1])
        with self.changed:
            self.came.setdefault(text, []).append(time.monotonic())
            if random.Random(text).random() < 0.05:
                return Reply({"error": "never"}, status=400)
            self.changed.wait_for(lambda: self.answered < self.most or command != self.command)
            if command != self.command:
                return Reply(status=503)
            self.answered += 1
        time.sleep(random.Random(text).uniform(0.01, 0.05))
        return Reply(chat(f"{text}: {body['seed']}"))


def written(folder: Path) -> set[str]:
    """The requests whose answers are in the journal of a command, which may still run."""
    found: set[str] = set()
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix not in (".yaml", ".jsonl"):
            with suppress(FileNotFoundError):  # a temporary file that the command has just removed
                found |= {text.decode() for text in re.findall(rb"(say \d+): \d", path.read_bytes())}
    return found


@pytest.mark.slow
def test_thirty_kills_pay_for_no_answer_twice(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"say {n}"}) + "\n" for n in range(400)))
    counting, kills = Counting(), []
    recipe, out = tmp_path / "r.yaml", tmp_path / "out"
    model = {"model": "m", "base_url": "http://localhost/v1", "tries": 1, "concurrency": CONCURRENCY}
    recipe.write_text(yaml.safe_dump({"prompts": [{"path": str(file)}], "models": [model]}))

    def command(url: str, out: Path) -> list[str]:
        words = ["data", "responses", str(recipe), "--resume", "--out", str(out), "--set", f"models.0.base_url={url}"]
        return [sys.executable, "-m", "olmes_suite.cli.main", *words]

    with judge_server(counting.reply) as counting.served:
        rng = random.Random(0)
        for _ in range(KILLS):
            wanted = rng.randint(3, 10)
            url = counting.begin(wanted + MORE)
            wanted += len(kills[-1][1]) if kills else 0
            with subprocess.Popen(command(url, out), env=environment(tmp_path)) as process:
                try:
                    while len(written(tmp_path)) < wanted and process.poll() is None:
                        time.sleep(0.005)
                    time.sleep(rng.uniform(0, 0.05))
                finally:
                    process.kill()
            assert process.returncode == -signal.SIGKILL
            kills.append((time.monotonic(), written(tmp_path)))
        assert not out.exists()
        url = counting.begin(10**9)
        done = subprocess.run(command(url, out), env=environment(tmp_path), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        calm = subprocess.run(command(url, tmp_path / "calm"), env=environment(tmp_path), capture_output=True)
        assert calm.returncode == 0
    for name in ("data.parquet", "rejected.jsonl", "card.md", "manifest.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()
    adds_up(tmp_path / "out")
    failed = {f"say {row['row']}" for row in rejected_of(tmp_path / "out")}
    assert len(rows_of(tmp_path / "out")) + len(failed) == 400
    repeated = 0
    for text, times in counting.came.items():
        *storm, _ = times  # the last one is the undisturbed run's
        if text in failed:
            continue  # a failure is tried again by the next command
        repeated += len(storm) - 1
        kept = [kill for kill, texts in kills if text in texts]
        assert not kept or storm[-1] < kept[0], f"{text}: the answer was written, and asked for again"
    assert len(kills[-1][1]) >= 3 * KILLS
    print(f"{len(kills)} kills, {repeated} of {400 - len(failed)} requests were under way and asked for again")
    assert repeated <= KILLS * (CONCURRENCY + MORE)
