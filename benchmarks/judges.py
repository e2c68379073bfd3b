"""Time that a judge adds to a rollout, against the judge's own time.

    python benchmarks/judges.py [--responses 256] [--concurrency 32] [--milliseconds 50]

A server in another process answers each request after the given time. The judge's own time is that of its rounds:
responses / concurrency, rounded up, times the time of one answer.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection

from train_plugins.verifiers import Call, Verifiers
from train_plugins.verifiers.judge_keys import JudgeKeys

BODY = (
    b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "{\\"score\\": 8}"}}], '
    b'"usage": {"prompt_tokens": 200, "completion_tokens": 6}}'
)


def serve(seconds: float, ready: Connection) -> None:
    """Answer HTTP requests on a free port, which `ready` receives."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:")
                await reader.readexactly(length)
                await asyncio.sleep(seconds)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        async with server:
            await server.serve_forever()

    asyncio.run(run())


def main() -> None:
    """Print the time of a rollout's verdicts, first without cached answers, then with them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, default=256)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--milliseconds", type=float, default=50)
    given = parser.parse_args()
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(given.milliseconds / 1000, there), daemon=True)
    process.start()
    row = {"messages": [{"role": "user", "content": "Describe the sea. " * 40}], "row": 0}
    calls = [Call("judge", f"A sea, {number}. " + "It is wide. " * 100, None, row) for number in range(given.responses)]
    own = math.ceil(given.responses / given.concurrency) * given.milliseconds / 1000
    with tempfile.TemporaryDirectory() as cache:
        keys = JudgeKeys("m", f"http://127.0.0.1:{here.recv()}/v1", given.concurrency, cache=cache)
        with Verifiers(["judge"], 1, 10.0, judge=keys) as verifiers:
            for what in ("asked", "cached"):
                started = time.monotonic()
                found = verifiers.verify(calls)
                seconds = time.monotonic() - started
                assert set(found) == {0.8}
                print(f"{len(calls)} responses {what}: {seconds:.2f} s; the judge's own time {own:.2f} s")
    process.terminate()


if __name__ == "__main__":
    main()
