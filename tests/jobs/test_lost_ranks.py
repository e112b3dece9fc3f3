"""Stories of ranks that are killed: the others go on, and end as if nothing had happened."""

import json
import os

import pytest

from hpc_train.launch import find
from hpc_train.launch.mpirun import can_lose_ranks
from tests.jobs.conftest import CONFIG, write_blobs
from tests.jobs.processes import Job, cli, hpc_train
from tests.jobs.test_run import assert_same_weights, result, steps

pytestmark = pytest.mark.skipif(
    not can_lose_ranks(find(os.environ), os.environ),
    reason="this MPI does not survive the death of a rank (Open MPI 5 with ULFM does)",
)

# validation data, so that there are evaluations in which a rank can die
CONFIG = CONFIG.replace(
    'test = "{train}[:40]"', 'test = "{train}[:40]"\nvalidation = "{train}[:40]"'
)
COMMON = ("run.evaluate=10 steps", "checkpoint.every=10 steps", "checkpoint.keep_last=9")


@pytest.fixture
def config(tmp_path, blobs):
    """A configuration over `blobs`, in the test's own folder."""
    path = tmp_path / "story.toml"
    path.write_text(CONFIG.format(train=blobs))
    return path


@pytest.fixture(scope="module")
def calm(tmp_path_factory, blobs):
    """An undisturbed run on one rank."""
    folder = tmp_path_factory.mktemp("calm")
    (folder / "story.toml").write_text(CONFIG.format(train=blobs))
    ended = hpc_train("run", "story.toml", "run.dir=calm", *COMMON, cwd=folder)
    assert ended.code == 0, ended
    return folder / "calm"


def lost(run):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["text"] for record in records if record.get("event") == "lost"]


@pytest.mark.parametrize(
    ("kills", "sharded"),
    [
        (["kill:1@5:data", "kill:0@14:communication", "kill:3@19:checkpoint"], "true"),
        (["kill:0@9:evaluate", "kill:3@20:compute", "kill:1@29:update"], "false"),
        (["kill:0@9:evaluate", "kill:3@20:update", "kill:1@29:update"], "true"),
        (["kill:0@5:compute", "kill:1@5:communication", "kill:2@5:recovery"], "true"),
    ],
    ids=["early", "whole", "update", "together"],
)
def test_killed_ranks_cost_neither_samples_nor_results(config, tmp_path, calm, kills, sharded):
    argv = ["run", config, "run.dir=hurt", *COMMON, "-n", 4, f"strategy.shard_optimizer={sharded}"]
    ended = hpc_train(*argv, *(f"--inject={kill}" for kill in kills), cwd=tmp_path)
    assert ended.code == 0, ended
    hurt = tmp_path / "hurt"
    assert result(hurt)["status"] == "done"
    assert steps(hurt) == steps(calm)  # every sample delivered exactly once, by the hash
    assert_same_weights(hurt, calm)
    assert len(result(hurt)["ranks"]) == 1, ended
    text = " ".join(lost(hurt))
    for kill in kills:
        assert f"rank {kill[5]} on " in text, ended
    assert sorted(p.name for p in (hurt / "checkpoints").iterdir()) == sorted(
        p.name for p in (calm / "checkpoints").iterdir()
    )


def test_blocks_and_copies_that_ranks_share_outlive_them(config, tmp_path, calm):
    write_blobs(tmp_path / "gzip", "gzip")
    config.write_text(CONFIG.format(train=tmp_path / "gzip"))
    argv = ["run", config, "run.dir=hurt", *COMMON, "-n", 4]
    argv += ["data.node_cache=true", f"data.stage={tmp_path / 'fast'}", "schedule.shares=[4,3,2,1]"]
    kills = ("kill:0@5:data", "kill:3@20:compute")
    ended = hpc_train(*argv, *(f"--inject={kill}" for kill in kills), cwd=tmp_path)
    assert ended.code == 0, ended
    hurt = tmp_path / "hurt"
    assert steps(hurt) == steps(calm)
    assert_same_weights(hurt, calm)
    assert len(result(hurt)["ranks"]) == 2, ended
    assert "data.node_cache" not in ended.err, ended  # shared, without a complaint
    assert list((tmp_path / "fast").iterdir()) == []


@pytest.mark.parametrize(
    ("option", "second", "third"),
    [
        ("comm.overlap=true", "compute", "update"),  # a thread sums
        ("schedule.policy=dynamic", "communication", "compute"),  # the first in a step: a claim
    ],
)
def test_what_lost_ranks_summed_or_claimed_is_not_lost(
    option, second, third, config, tmp_path, calm
):
    argv = ["run", config, "run.dir=hurt", option, *COMMON, "-n", 4]
    kills = ("kill:0@5:communication", f"kill:2@14:{second}", f"kill:1@25:{third}")
    ended = hpc_train(*argv, *(f"--inject={kill}" for kill in kills), cwd=tmp_path)
    assert ended.code == 0, ended
    assert steps(tmp_path / "hurt") == steps(calm)
    assert_same_weights(tmp_path / "hurt", calm)


@pytest.mark.parametrize("name", ["topk", "powersgd"])
def test_what_a_lost_rank_had_not_sent_yet_is_dropped_and_told(config, tmp_path, name):
    argv = ["run", config, "run.dir=hurt", f"comm.gradient_compression={name}", *COMMON, "-n", 4]
    kills = ("kill:0@5:communication", "kill:2@14:compute")
    ended = hpc_train(*argv, *(f"--inject={kill}" for kill in kills), cwd=tmp_path)
    assert ended.code == 0, ended
    assert result(tmp_path / "hurt")["status"] == "done"
    assert len(steps(tmp_path / "hurt")) == 39
    for rank in (0, 2):
        assert f"what gradient compression had not sent yet of rank {rank} on " in ended.err, ended
    assert "weights differ between ranks" not in ended.err, ended


def test_with_too_few_ranks_left_the_run_is_saved_and_wants_to_go_on(config, tmp_path, calm):
    argv = ["run", config, "run.dir=hurt", *COMMON, "recovery.min_ranks=2"]
    ended = hpc_train(*argv, "-n", 2, "--inject=kill:0@17", cwd=tmp_path)
    assert ended.code == 75, ended
    assert "recovery.min_ranks is 2" in ended.err
    assert (tmp_path / "hurt" / "checkpoints" / "step-00000017").is_dir()
    ended = hpc_train("run", "--resume", tmp_path / "hurt", cwd=tmp_path)
    assert ended.code == 0, ended
    assert steps(tmp_path / "hurt") == steps(calm)
    assert_same_weights(tmp_path / "hurt", calm)


def test_one_that_is_lost_too_early_is_named_and_nobody_waits(config, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import os, signal\n"
        "from hpc_train.tasks import TASKS\n"
        "class Deadly(TASKS['classification']):\n"
        "    def __init__(self, **arguments):\n"
        "        super().__init__(**arguments)\n"
        "        if os.environ.get('OMPI_COMM_WORLD_RANK') == '1':\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    job = Job(cli("run", config, "run.dir=hurt", "task.name=mine:Deadly", "-n", 3), cwd=tmp_path)
    ended = job.end(60)
    assert ended.code == 1, ended
    assert ended.err.count("rank 1 on ") == 1, ended
    assert "died where the others could not go on without it" in ended.err


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core for each of two ranks")
def test_who_is_left_gives_up_its_part_of_the_cores(config, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import os, pathlib\n"
        "from hpc_train.tasks import TASKS\n"
        "class Watching(TASKS['classification']):\n"
        "    def losses(self, model, batch):\n"
        "        with pathlib.Path('cores').open('a') as file:\n"
        "            print(len(os.sched_getaffinity(0)), file=file)\n"
        "        return super().losses(model, batch)\n"
    )
    # the second rank is idle, so that the first one stays on its part of the cores
    argv = ["run", config, "run.dir=hurt", "task.name=mine:Watching", "run.evaluate=never"]
    argv += ["schedule.policy=static", "schedule.shares=[1,0]", "-n", 2]
    ended = hpc_train(*argv, "--inject=kill:1@20:communication", cwd=tmp_path)
    assert ended.code == 0, ended
    seen = [int(line) for line in (tmp_path / "cores").read_text().split()]
    every = len(os.sched_getaffinity(0))
    assert seen[5] == every // 2, seen
    assert seen[25:39] == [every] * 14, seen


def test_without_shrinking_and_restarts_a_killed_rank_ends_the_job(config, tmp_path):
    argv = ["run", config, "run.dir=hurt", *COMMON, "recovery.shrink=false"]
    argv.append("recovery.max_restarts=0")
    ended = hpc_train(*argv, "-n", 2, "--inject=kill:1@17", cwd=tmp_path)
    assert ended.code == 1, ended
    assert "was killed by SIGKILL" in ended.err
