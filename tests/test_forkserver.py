"""The fork server: a process of another one's making is what the bare one would have been."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid

import pytest

from hpc_train.forkserver import NAME, Hold, start

# which waits however long the server imports
ASK = "from hpc_train import forkserver\nforkserver._READY_SECONDS = 60\nforkserver.ask()\n"
TELL = """\
import json, os, sys
told = [forkserver._is_fork, "wave" in sys.modules]
told += [sys.argv[1:], os.environ.get("MINE"), os.getcwd()]
print(json.dumps([*told, os.getpid(), os.getpgrp(), sorted(os.sched_getaffinity(0))]), flush=True)
"""
MOST_SECONDS = 60


@pytest.fixture
def server():
    """The name of a server that has imported `wave`, and a hold on it."""
    name = uuid.uuid4().hex
    hold = start(name, [], ["no_such_module", "wave"])
    yield name, hold
    hold.close()


def begin(name, text, *argv, **more):
    environ = {**os.environ, NAME: name, "MINE": "yes"}
    return subprocess.Popen(
        [sys.executable, "-c", ASK + text, *argv],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def ended(process, seconds=MOST_SECONDS):
    """Whether a process that is not ours ends in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with open(f"/proc/{process}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_a_fork_is_what_the_bare_process_would_have_been(server, tmp_path):
    bare = begin(server[0], TELL, "a", "b c", cwd=tmp_path, process_group=0)
    out, err = bare.communicate(timeout=MOST_SECONDS)
    is_fork, has_imported, *told, process, group, cpus = json.loads(out)
    assert is_fork, err
    assert has_imported
    assert told == [["a", "b c"], "yes", str(tmp_path)]
    assert process != bare.pid
    assert group == bare.pid  # which is a group of its own
    assert cpus == sorted(os.sched_getaffinity(0))
    assert bare.returncode == 0


@pytest.mark.parametrize(
    ("text", "code", "error"),
    [
        ("raise SystemExit(75)", 75, ""),
        ("import os; os._exit(3)", 3, ""),
        ("raise ValueError('so it is')", 1, "so it is"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
    ],
)
def test_the_bare_process_ends_as_its_fork_does(server, text, code, error):
    bare = begin(server[0], f"assert forkserver._is_fork\n{text}")
    _, err = bare.communicate(timeout=MOST_SECONDS)
    assert bare.returncode == code, err
    assert error in err


def test_a_fork_ends_with_the_bare_process(server):
    bare = begin(server[0], TELL + "import time; time.sleep(600)")
    process = json.loads(bare.stdout.readline())[5]
    bare.kill()
    assert ended(process)
    bare.communicate()


def test_without_a_server_a_process_does_all_of_it_itself():
    bare = begin(uuid.uuid4().hex, TELL)
    out, _ = bare.communicate(timeout=MOST_SECONDS)
    assert json.loads(out)[:2] == [False, False]
    with pytest.raises(OSError, match="refused"):
        Hold(uuid.uuid4().hex)


def test_a_server_that_still_imports_is_not_waited_for(tmp_path, monkeypatch):
    (tmp_path / "slow.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    name = uuid.uuid4().hex
    hold = start(name, [], ["slow"])
    told = subprocess.run(
        [sys.executable, "-c", ASK.replace("60", "0.1") + TELL],
        env={**os.environ, NAME: name},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(told.stdout)[0] is False
    assert not hold.is_ready
    hold._server.kill()
    hold.close()


def test_forks_outlive_a_server_that_is_killed(server, tmp_path):
    name, hold = server
    until = tmp_path / "go"
    text = f"import time\nfrom pathlib import Path\nwhile not Path({str(until)!r}).exists():\n"
    bare = begin(name, TELL + text + "    time.sleep(0.01)\nprint('through', flush=True)")
    fork = json.loads(bare.stdout.readline())[5]
    hold._server.kill()
    assert ended(hold._server.pid)
    assert hold.is_ready  # there is nothing to wait for
    assert not ended(fork, 0.1)
    until.touch()
    out, _ = bare.communicate(timeout=MOST_SECONDS)
    assert out == "through\n"
    assert bare.returncode == 0


def test_it_lives_while_somebody_is_connected(server):
    name, first = server
    process, second = first._server.pid, Hold(name)
    first.close()
    bare = begin(name, TELL)  # in whose time it would have ended
    out, _ = bare.communicate(timeout=MOST_SECONDS)
    assert json.loads(out)[0]
    second.close()
    assert ended(process)
