"""The sandbox: what programs may not do, on every rung that this machine has, and that nobody pays for the last one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from olmes_suite.errors import MissingData
from olmes_suite.sandbox import Limits, Verdict, grade
from olmes_suite.sandbox.grade import Sandbox, batches, build, named
from olmes_suite.sandbox.interpreter import LIBRARIES, interpreter
from olmes_suite.sandbox.jail import Jail, JailFailed
from olmes_suite.sandbox.rungs import candidates
from olmes_suite.scoring.tools import ToolOptions

pytestmark = pytest.mark.xdist_group("sandbox")  # sandboxes take a second to start

GOOD = "def double(x):\n    return 2 * x\n"
TESTS = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-3) == -6\n"
_ATTACKS = yaml.safe_load((Path(__file__).parent / "attacks.yaml").read_text(encoding="utf-8"))
CHEATS = _ATTACKS["programs"]
UNIT_CHEATS = {name: CHEATS[name] for name in _ATTACKS["also_against_unittests"]} | _ATTACKS["against_unittests"]
SMALL = Limits(cpu=1, memory=2**30, scratch=32 * 2**20, processes=32)


@pytest.fixture(scope="module", params=["bubblewrap", "landlock"])
def sandbox(request):
    if sys.platform != "linux":
        pytest.skip("no sandbox but on Linux")
    made = Sandbox(request.param)
    try:
        made.probe()
    except MissingData as error:
        pytest.skip(f"this machine has no {request.param}: {error}")
    yield made
    made.close()


def check(sandbox: Sandbox, program: str, tests: str = TESTS, **more) -> Verdict:
    return sandbox.check(program, tests, names=["double"], call="check", limits=SMALL, **more)


def still_works(sandbox: Sandbox) -> None:
    """The next program gets its due."""
    assert check(sandbox, GOOD).passed
    assert not check(sandbox, GOOD.replace("2 *", "3 *")).passed


def test_four_verdicts(sandbox, monkeypatch):
    assert check(sandbox, GOOD).outcome == "pass"
    assert check(sandbox, "def double(x):\n    return x\n").outcome == "fail"
    assert check(sandbox, "def double(x):\n    while True: pass\n").outcome == "timeout"
    assert check(sandbox, GOOD, "import no_such_module\n" + TESTS).outcome == "error"


@pytest.mark.long
@pytest.mark.parametrize("cheat", CHEATS)
def test_no_cheat_passes_or_harms_the_next(sandbox, cheat):
    still_works(sandbox)
    before, started = processes(sandbox), time.monotonic()
    verdict = check(sandbox, CHEATS[cheat])
    assert verdict.outcome in ("fail", "timeout"), verdict
    assert time.monotonic() - started < SMALL.wall + 10
    still_works(sandbox)
    assert processes(sandbox) <= before, "a process outlived its program"


@pytest.mark.long
def test_a_sandbox_that_fails_is_an_error_and_a_program_that_ends_it_is_not(sandbox, monkeypatch):
    report, deadly = Jail.report, []

    def dies(self):
        found = report(self)
        if deadly:
            self.close()
            raise JailFailed("gone")
        return found

    monkeypatch.setattr(Jail, "report", dies)
    monkeypatch.setattr(grade, "_healthy", lambda lane: True)
    deadly.append(True)
    assert check(sandbox, GOOD).outcome == "fail"
    monkeypatch.setattr(grade, "_healthy", lambda lane: False)
    assert check(sandbox, GOOD).outcome == "error"
    deadly.clear()
    still_works(sandbox)


def processes(sandbox: Sandbox) -> int:
    """Processes below this sandbox's jails, their servers among them."""
    parents = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(pid)] = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found = {jail._process.pid for lane in sandbox._free for jail in (lane.program, lane.tests) if jail._process}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return len(found)


def outcome_of(sandbox: Sandbox, body: str) -> str:
    """What a program that tries something prints."""
    tried = textwrap.indent(body, "    ")
    refused = "except BaseException as error:\n    print('refused', type(error).__name__)\n"
    ran = sandbox.run(f"try:\n{tried}\n{refused}", limits=SMALL)
    still_works(sandbox)
    return ran.stdout.strip()


def test_files_of_the_host_cannot_be_read(sandbox, tmp_path):
    secret = tmp_path / "gold.txt"
    secret.write_text("42")
    secret.chmod(0o644)
    for path in (secret, Path(__file__), Path.home() / ".bashrc", Path("/etc/shadow"), Path("/etc/passwd")):
        assert outcome_of(sandbox, f"print(open({str(path)!r}).read())").startswith("refused"), path
    for folder in (tmp_path, Path(__file__).parent, Path("/home"), Path("/root")):
        listed = outcome_of(sandbox, f"import os\nprint('gold.txt' in os.listdir({str(folder)!r}))")
        assert listed == "False" or listed.startswith("refused"), folder


def test_writes_outside_are_refused(sandbox, tmp_path):
    tmp_path.chmod(0o777)
    target = tmp_path / "mark"
    assert outcome_of(sandbox, f"open({str(target)!r}, 'w').write('x')").startswith("refused")
    assert not target.exists()
    for path in ("/usr/mark", "/mark", "/etc/mark", sys.prefix + "/mark"):
        assert outcome_of(sandbox, f"open({path!r}, 'w').write('x')").startswith("refused"), path
        assert not os.path.exists(path)
    ours = os.stat(sys.executable).st_mode
    outcome_of(sandbox, f"import os\nos.chmod({os.path.realpath(sys.executable)!r}, 0)")
    assert os.stat(sys.executable).st_mode == ours


def test_scratch_is_private_and_emptied(sandbox):
    """Only an interpreter that lies below /tmp is there before, and stays."""
    listing = "import os\nprint(os.listdir('.'), os.listdir(os.environ['TMPDIR']))"
    before = outcome_of(sandbox, listing)
    assert before == "[] []" or sys.prefix.startswith("/tmp/")
    assert outcome_of(sandbox, "import os\nos.makedirs('a/b')\nopen('a/b/c','w').write('x')\nos.chmod('a', 0)") in (
        "", "refused PermissionError",
    )  # fmt: skip
    assert outcome_of(sandbox, listing) == before


def test_an_interpreter_below_tmp_is_seen():
    """Where environments of continuous integration often lie: its packages are shown, and cannot be written to."""
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    (place / "one.py").write_text("VALUE = 7\n")
    place.chmod(0o755)
    found = replace(interpreter(), site=(*interpreter().site, str(place)), packages=(*LIBRARIES, "one.py"))
    sandbox = Sandbox("bubblewrap", found)
    try:
        sandbox.probe()
    except MissingData as error:
        pytest.skip(f"this machine has no bubblewrap: {error}")
    try:
        assert outcome_of(sandbox, "import one\nprint(one.VALUE)") == "7"
        assert outcome_of(sandbox, f"open({str(place)!r} + '/two.py', 'w')").startswith("refused")
        assert outcome_of(sandbox, f"import os\nprint(os.listdir({str(place)!r}))") == "['one.py']"
        assert outcome_of(sandbox, "import one, os\nopen('/tmp/x', 'w')\nprint(one.VALUE)") == "7"
        assert "x" not in outcome_of(sandbox, "import os\nprint(os.listdir('/tmp'))").split("'")
    finally:
        sandbox.close()
        shutil.rmtree(place)


def test_no_network(sandbox):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        body = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)\nprint('connected')"
        assert outcome_of(sandbox, body).startswith("refused")
    for family in ("AF_NETLINK", "AF_PACKET", "AF_VSOCK"):
        assert outcome_of(sandbox, f"import socket\nsocket.socket(socket.{family}, 2)\nprint('made')").startswith(
            "refused"
        )


def test_no_memory_of_other_processes(sandbox):
    for path in ("/proc/{}/mem", "/proc/{}/environ", "/proc/{}/maps"):
        body = f"import os\nopen({path!r}.format(os.getppid()), 'rb').read(10)\nprint('read')"
        assert outcome_of(sandbox, body).startswith("refused"), path
    body = "import ctypes, os\nprint(ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0))"
    assert outcome_of(sandbox, body) == "-1"
    assert outcome_of(sandbox, "import os\nprint('SECRET' in os.environ)") == "False"


def test_no_new_namespaces_or_users(sandbox):
    for body in (
        "print(libc.unshare(0x10000000))",
        "print(libc.mount(b'x', b'/tmp', b'tmpfs', 0, 0))",
        "print(libc.setuid(0))",
    ):
        if os.geteuid() == 0 and "setuid" in body and not sandbox.confined["own_user"]:
            continue  # it is root without any capability, and changes to what it is
        assert outcome_of(sandbox, "import ctypes\nlibc = ctypes.CDLL(None)\n" + body) == "-1"


def test_values_cross_as_data(sandbox):
    program = "def double(x):\n    return x\n"
    values = [
        None, True, 0, -(2**200), 10**5000, 1.5, float("inf"), "é\ud800", b"\x00\xff", [1, [2]], (1, (2,)), {1, 2},
        frozenset({3}), {1: "a", (2, 3): [None]}, complex(1, 2), range(3), [],
    ]  # fmt: skip
    for value in values:
        text = "10 ** 5000" if value == 10**5000 else repr(value).replace("inf", "float('inf')")
        tests = (
            f"def check(candidate):\n    value = {text}\n"
            "    found = candidate(value)\n    assert found == value and type(found) is type(value)\n"
        )
        assert check(sandbox, program, tests).passed, text
    assert check(sandbox, program, "def check(candidate):\n    x = candidate(float('nan'))\n    assert x != x\n").passed


LIBRARY_TYPES = """
from collections import Counter, OrderedDict, namedtuple
from decimal import Decimal
from fractions import Fraction
Pair = namedtuple("Pair", "a b")
def double(x):
    return [Counter("aab"), OrderedDict(a=1), Pair(1, 2), Fraction(1, 2), Decimal("0.5"), (i for i in (1, 2))]
"""
LIBRARY_TYPES_TESTS = """
def check(candidate):
    counter, ordered, pair, fraction, decimal, iterator = candidate(0)
    assert counter == {"a": 2, "b": 1} and ordered == {"a": 1} and pair == (1, 2)
    assert fraction == 0.5 and decimal == 0.5 and list(iterator) == [1, 2]
"""
RAISES = """
def check(candidate):
    try:
        candidate(1)
    except ValueError as error:
        assert "no" in str(error)
    else:
        assert False
"""


def test_subclasses_and_numbers_of_libraries_are_read_as_plain(sandbox):
    assert check(sandbox, LIBRARY_TYPES, LIBRARY_TYPES_TESTS).passed


def test_builtin_exceptions_cross(sandbox):
    assert check(sandbox, "def double(x):\n    raise ValueError('no')\n", RAISES).passed
    assert not check(sandbox, "def double(x):\n    raise AssertionError\n", RAISES).passed
    assert not check(sandbox, "def double(x):\n    import os; os._exit(0)\n", RAISES).passed


def test_announced_calls(sandbox):
    tests = (
        "def check(candidate):\n    inputs = [[n] for n in range(500)]\n    candidate.prefetch(inputs)\n"
        "    for one in inputs:\n        assert candidate(*one) == 2 * one[0]\n"
    )
    assert check(sandbox, GOOD, tests).passed
    assert check(sandbox, "def double(x):\n    return 2 * x if x < 499 else 0\n", tests).outcome == "fail"


def test_public_api_finds_the_names(sandbox):
    assert sandbox.check(GOOD, "assert double(2) == 4\nassert double('a') == 'aa'").passed
    assert sandbox.check(GOOD, "assert double(2) == 5").outcome == "fail"
    assert sandbox.check("def other(): pass", "assert double(2) == 5").outcome == "fail"
    assert named("def f(): pass\ndef g(): pass\n", "assert g(f2()) == g()") == ["g"]
    assert named("f = lambda x: x\ng = 3\nfrom a import b as h", "assert f(g) == h(g)") == ["f", "h"]


def test_run_captures_what_is_printed(sandbox):
    ran = sandbox.run("print(int(input()) + int(input()))", "20\n22\n")
    assert (ran.stdout, ran.verdict.outcome) == ("42\n", "pass")
    assert sandbox.run("import sys\nsys.exit(3)").verdict.detail == "exit status 3"
    flood = sandbox.run("while True: print('x' * 1000)", limits=SMALL)
    assert flood.verdict.outcome == "fail" and len(flood.stdout) == SMALL.output


UNITS = (
    "import unittest\nclass TestCases(unittest.TestCase):\n"
    "    def test_two(self):\n        self.assertEqual(double(2), 4)\n"
    "    def test_list(self):\n        self.assertTrue(double(1) == 2)\n        self.assertIn(double(1), [2])\n"
)


@pytest.mark.long
def test_unittests(sandbox):
    assert sandbox.unittests(GOOD, UNITS, 2).passed
    wrong = sandbox.unittests("def double(x):\n    return x\n", UNITS, 2)
    assert wrong.outcome == "fail" and "test_two" in wrong.detail
    assert sandbox.unittests("def double(x):\n    while True: pass\n", UNITS, 1).outcome == "timeout"
    assert sandbox.unittests(GOOD, "x = 1", 1).outcome == "error"


@pytest.mark.parametrize(
    "cheat", [pytest.param(name, marks=pytest.mark.long) if name == "fork bomb" else name for name in UNIT_CHEATS]
)
def test_no_cheat_passes_unittests(sandbox, cheat):
    assert sandbox.unittests(UNIT_CHEATS[cheat], UNITS, 1, SMALL).outcome in ("fail", "timeout")
    assert sandbox.unittests(GOOD, UNITS, 2).passed


def test_refusal_without_a_rung(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(MissingData, match=r"Linux.*--unsafe-code"):
        build(ToolOptions())
    assert candidates(unsafe=True) == ["unsafe"]


def test_best_rung_that_holds(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: no permission to make a namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    try:
        made = build(ToolOptions())
    except MissingData as error:
        assert "no permission" in str(error) and "--unsafe-code" in str(error)
    else:
        assert made.rung == "landlock" and made.describe()["rung"] == "landlock"
        made.close()


def test_unsafe_only_when_asked():
    made = build(ToolOptions(unsafe_code=True))
    assert made.rung == "unsafe" and check(made, GOOD).passed and not check(made, CHEATS["equals everything"]).passed
    made.close()


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
@pytest.mark.parametrize("rung", ["bubblewrap", "landlock"])
def test_as_an_ordinary_user(rung):
    """Where the system's Python has what is needed: an ordinary user must be able to read the interpreter."""
    if any(not os.stat(parent).st_mode & 1 for parent in Path(os.path.realpath(sys.executable)).parents):
        pytest.skip("this interpreter is root's own")
    code = (
        "from olmes_suite.sandbox.grade import Sandbox\n"
        f"s = Sandbox({rung!r})\ns.probe()\nprint(s.check('def f(x): return x', 'assert f(1) == 1').outcome)\n"
    )
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", sys.executable, "-c", code],
        capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.strip() == "pass", done.stderr


def test_inputs_are_sent_in_batches_with_the_first_alone():
    assert batches(["a", "b", "c"]) == [["a"], ["b", "c"]]
    assert batches(["a"]) == [["a"]] and batches([]) == []
    big = "x" * 2**21
    assert [len(part) for part in batches(["a", "b", big, "c", big, "d"])] == [1, 1, 1, 1, 1, 1]
    assert batches(["a", "b", big + "x", "c"])[2:] == [[big + "x"], ["c"]]


def test_a_program_is_run_for_each_input_up_to_the_first_failure(sandbox):
    program = "n = int(input())\nif n == 3: raise SystemExit(1)\nprint(n)"
    runs = sandbox.run_each(program, ["1", "2", "3", "4"], lambda number, stdout: True, Limits(cpu=2))
    assert [(run.stdout, run.verdict.outcome) for run in runs] == [("1\n", "pass"), ("2\n", "pass"), ("", "fail")]
    runs = sandbox.run_each(program, ["1", "2", "4"], lambda number, stdout: number == 0, Limits(cpu=2))
    assert [run.stdout for run in runs] == ["1\n", "2\n"]
