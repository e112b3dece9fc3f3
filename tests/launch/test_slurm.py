"""The batch script and the commands of Slurm: readable, quoted, and what is in slurm/."""

import os
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from hpc_train.cli import _main as main
from hpc_train.errors import SetupError, UsageError
from hpc_train.launch.slurm import jobs
from hpc_train.launch.slurm.script import LAUNCHERS, Allocation, scaling, train
from hpc_train.launch.slurm.study import tune

SLURM = Path(__file__).parents[2] / "slurm"
NASTY = "a b'c\"d $(touch bad) `touch bad` \\ %x"


def test_the_scripts_to_copy_are_what_is_generated():
    four = {"nodes": "2", "tasks_per_node": 4, "cpus_per_task": 8}
    assert (SLURM / "train.sbatch").read_text() == train(Allocation(time="04:00:00", **four))
    wide = Allocation(name="hpc-train-scaling", **four)
    assert (SLURM / "scaling.sbatch").read_text() == scaling(wide)
    search = Allocation(name="hpc-tune", time="04:00:00", **four)
    assert (SLURM / "tune.sbatch").read_text() == tune(search)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_directive_and_every_launcher_makes_a_sound_script(launcher):
    asked = Allocation(
        NASTY, "2-4", 3, "1-02:00:00", 8, 4, "64G", "gpu", "me", "long", "0-7", 120, 3,
        launcher, ("module load openmpi",), ("--constraint=a100",),
    )  # fmt: skip
    text = train(asked, run="/runs/x", config="c.toml")
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    for name in (
        "nodes=2-4",
        "ntasks-per-node=3",
        "gpus-per-node=4",
        "array=0-7",
        "constraint=a100",
    ):
        assert f"\n#SBATCH --{name}\n" in text
    assert "--signal=B:USR1@120" in text
    assert ("srun --mpi=" in text) == (launcher != "mpirun")


@pytest.mark.parametrize(
    "wrong",
    [
        {"nodes": "0"},
        {"nodes": "4-2"},
        {"nodes": "2; rm"},
        {"time": "soon"},
        {"memory": "much"},
        {"launcher": "mpiexec"},
        {"name": "a\n#SBATCH --x"},
        {"partition": "a\nb"},
    ],
)
def test_what_slurm_would_misread_is_refused(wrong):
    with pytest.raises(UsageError):
        train(Allocation(**wrong))


def fake(folder, name, body):
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with a nasty name, and programs in place of Slurm's and of hpc-train."""
    bin_, here = tmp_path / "bin", tmp_path / "my $(touch bad) 'runs'"
    bin_.mkdir()
    here.mkdir()
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    monkeypatch.chdir(here)
    fake(bin_, "scontrol", f'echo "$@" >>{shlex.quote(str(tmp_path))}/scontrol')
    return bin_, here


def run_script(world, body, *, run, restarts=0, overrides=(), config="c d.toml", **asked):
    """Run the script that trains, with `body` in place of hpc-train; its exit code."""
    bin_, here = world
    fake(bin_, "trainer", body)
    text = train(
        Allocation(max_requeues=3, **asked),
        program="trainer",
        run=str(run),
        config=config,
        overrides=overrides,
        folder=str(here),
    )
    environ = os.environ | {
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "2",
        "SLURM_RESTART_COUNT": str(restarts),
    }
    return subprocess.run(["bash", "-c", text], env=environ, check=False, timeout=20).returncode


def ends(run, status, code=0, step=None):
    """A body that leaves a result, and a checkpoint."""
    run = shlex.quote(str(run))
    lines = [f"touch {run}/config.toml"]
    if step is not None:
        lines.append(f"mkdir -p {run}/checkpoints/step-{step:08d}")
    if status:
        text = f'{{\\n "status": "{status}",\\n "exit_code": {code},\\n}}'
        lines.append(f"printf '{text}' >{run}/result.json")
    return "\n".join(lines)


def requeued(world):
    path = world[1].parent / "scontrol"
    return path.read_text().splitlines() if path.exists() else []


def test_words_reach_the_program_as_they_are(world):
    run = world[1] / "run $HOME"
    body = f'printf "%s\\n" "$@" >{shlex.quote(str(world[1].parent))}/words\n' + ends(run, "done")
    assert run_script(world, body, run=run, overrides=[f"run.name={NASTY}"]) == 0
    words = (world[1].parent / "words").read_text().splitlines()
    assert words == ["run", "-n", "2", "c d.toml", f"run.dir={run}", f"run.name={NASTY}"]
    assert run_script(world, body, run=run) == 0
    words = (world[1].parent / "words").read_text().splitlines()
    assert words == ["run", "-n", "2", "--resume", str(run)]
    assert not (world[1] / "bad").exists()
    assert requeued(world) == []


@pytest.mark.parametrize(
    ("status", "code", "step", "exits", "again"),
    [
        ("done", 0, 5, 0, False),
        ("preempted", 75, 5, 75, True),
        ("", 0, 5, 75, True),  # lost without a word, whatever the launcher returned
        ("", 0, None, 1, False),  # never COMPLETED without a trained model
        ("failed", 1, 5, 1, False),
        ("failed", 2, 5, 2, False),
        ("failed", 75, 5, 75, True),  # too few ranks left
    ],
)
def test_it_is_requeued_where_that_helps(world, status, code, step, exits, again):
    run = world[1] / "run"
    assert run_script(world, ends(run, status, code, step), run=run) == exits
    assert requeued(world) == (["requeue 7"] if again else [])


def test_the_program_may_be_one_in_a_container():
    words = "apptainer exec 'my image.sif' hpc-train"
    text = train(Allocation(launcher="srun-pmix"), program=words, run="r", config="c")
    assert f"--export=ALL {words} run " in text
    for wrong in (" ", "a\nb"):
        with pytest.raises(UsageError, match="--program"):
            train(Allocation(), program=wrong)


def test_of_a_range_of_nodes_fewer_may_do_the_next_time(world):
    run = world[1] / "run"
    body = ends(run, "preempted", 75, 5)
    assert run_script(world, body, run=run, nodes="2-4", tasks_per_node=3) == 75
    assert requeued(world) == ["requeue 7", "update JobId=7 NumTasks=6"]


def test_only_with_progress_and_within_the_limit(world):
    run = world[1] / "run"
    assert run_script(world, ends(run, "", step=5), run=run) == 75
    assert run_script(world, ends(run, "", step=5), run=run, restarts=1) == 1
    assert run_script(world, ends(run, "", step=6), run=run, restarts=2) == 75
    assert run_script(world, ends(run, "preempted", 75, step=7), run=run, restarts=3) == 75
    assert len(requeued(world)) == 2


def run_search(world, *, status, heard, code=0, restarts=0, more=""):
    """Run the script that searches, with a program that leaves a journal in its place."""
    bin_, _ = world
    journal = "".join(f"echo '{{{chr(34)}kind{chr(34)}: {chr(34)}{k}{chr(34)}}}';" for k in heard)
    told = f"""printf '{{\\n  "schema_version": 1,\\n  "status": "{status}"\\n}}\\n'"""
    fake(
        bin_,
        "trainer",
        f'printf "%s\\n" "$@" >>words\n'
        f'if [ "$2" = report ]; then {told if status else "exit 1"}; exit; fi\n'
        'folder=${3#study.dir=}\nmkdir -p "$folder"\n'
        f'{{ {journal or ":"} }} >>"$folder/journal.jsonl"\n'
        f"{more}\nexit {code}",
    )
    environ = os.environ | {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "my search",
        "SLURM_NTASKS": "2",
        "SLURM_RESTART_COUNT": str(restarts),
    }
    text = tune(Allocation(max_requeues=3), program="trainer")
    argv = ["bash", "-c", text, "bash", "my study.toml", "study.trials=5"]
    return subprocess.run(argv, env=environ, check=False, timeout=20).returncode


@pytest.mark.parametrize(
    ("status", "heard", "exits", "again"),
    [
        ("done", ["finished"], 0, False),
        ("paused", ["session", "paused"], 75, True),
        ("running or killed", ["session", "reported"], 75, True),
        ("running or killed", ["session", "started"], 1, False),
        ("", [], 1, False),
    ],
)
def test_a_search_is_requeued_where_that_helps(world, status, heard, exits, again):
    assert run_search(world, status=status, heard=heard) == exits
    assert requeued(world) == (["requeue 7"] if again else [])
    words = (world[1] / "words").read_text().splitlines()
    folder = "studies/my search-7"
    assert words[:6] == [
        "tune", "my study.toml", f"study.dir={folder}", "study.trials=5", "-n", "2",
    ]  # fmt: skip
    assert words[6:] == ["tune", "report", folder, "--json"]


def test_a_search_without_progress_or_too_often_is_not(world):
    killed = {"status": "running or killed", "code": 137}
    assert run_search(world, heard=["reported"], **killed) == 75
    assert run_search(world, heard=["started"], restarts=1, **killed) == 1
    assert run_search(world, heard=["reported"], restarts=2, **killed) == 75
    assert run_search(world, heard=["reported"], restarts=3, **killed) == 1
    assert requeued(world) == ["requeue 7"] * 2


def test_preemption_lets_a_search_save_and_be_queued_again(world):
    more = "trap 'sleep 0.2; exit 75' USR1\nkill -TERM $PPID\nsleep 5 &\nwait"
    assert run_search(world, status="paused", heard=["session"], more=more) == 75
    assert requeued(world) == ["requeue 7"]


def test_signals_become_usr1_and_the_script_waits_for_the_ranks(world):
    run = world[1] / "run"
    saved = ends(run, "preempted", 75, 3)
    body = f"leave() {{\nsleep 0.3\n{saved}\nexit 75\n}}\n"
    body += "trap leave USR1\nkill -TERM $PPID\nsleep 5 &\nwait"
    assert run_script(world, body, run=run) == 75
    assert requeued(world) == ["requeue 7"]


def test_submit_status_and_cancel(world, capsys):
    bin_, here = world
    fake(bin_, "sbatch", 'cat "$2" >got; echo "123;cluster"')
    fake(bin_, "scancel", 'echo "$@" >cancelled')
    fake(
        bin_,
        "scontrol",
        'echo "JobId=123 JobName=x JobState=RUNNING Reason=None Restarts=2 NumNodes=2 '
        'NodeList=n[1-2]"',
    )
    assert main(["submit", "digits-cnn", "run.dir=r", "--nodes", "2", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert not (here / "r").exists()
    assert main(["submit", "digits-cnn", "run.dir=r", "--nodes", "2"]) == 0
    assert "job     123" in capsys.readouterr().out
    assert (here / "got").read_text() == shown == (here / "r/job.sbatch").read_text()
    assert main(["submit", "digits-cnn", "run.dir=r"]) == 2
    assert main(["status", "r"]) == 0
    assert "RUNNING" in capsys.readouterr().out
    assert main(["cancel", "r"]) == 0
    assert (here / "cancelled").read_text() == "123\n"
    assert main(["status", "nowhere"]) == 2


def test_without_slurm_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="sbatch is not here"):
        jobs.submit(tmp_path / "run", "")


def test_slurms_answer_is_read():
    line = "JobId=5 JobName=a UserId=u JobState=PENDING Reason=Priority Restarts=1"
    assert jobs.parse(line)["Reason"] == "Priority"
    assert jobs.parse(line)["Restarts"] == "1"
