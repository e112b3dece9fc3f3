"""Stories of unlike ranks: a rank that is slowed down gets less, and the run says so."""

import json

import pytest

from hpc_train.bench.quota import inside, quota
from tests.jobs.processes import Job, cli, hpc_train, mpirun
from tests.jobs.test_run import assert_same_weights, steps

STEADY = ["run.epochs=12", "run.evaluate=never", "checkpoint.every=never", "data.batch_size=40"]


def test_a_slowed_rank_gets_less_and_the_table_says_so(config, tmp_path):
    slow = ["--inject", "slow:1=20x"]
    ended = hpc_train("run", config, "run.dir=a", *STEADY, *slow, "-n", 2, cwd=tmp_path)
    assert ended.code == 0, ended
    assert "with equal shares" in ended.out
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert result["ranks"][1]["share"] < 0.4, result
    assert result["balance"]["changes"] >= 1, result
    ended = hpc_train("bench", "schedule", "a", "--no-plot", "--json", cwd=tmp_path)
    assert ended.code == 0, ended
    sides = json.loads(ended.out)["sides"]
    assert sides["ideal"]["seconds"] < sides["static"]["seconds"]


@pytest.mark.parametrize("shares", [None, [1, 0], [0, 1]])
def test_a_rank_under_a_quota_hands_in_and_nothing_else_is_different(config, tmp_path, shares):
    settings = [config, "run.epochs=2", "run.evaluate=never", "strategy.shard_optimizer=true"]
    settings += [] if shares is None else [f"schedule.shares={shares}"]
    ended = hpc_train("run", *settings, "run.dir=a", "-n", 2, cwd=tmp_path)
    assert ended.code == 0, ended
    with quota(0.7) as group:
        if group is None:
            pytest.skip("control groups of version 1 cannot be made")
        argv, env = mpirun(2, inside(group, cli("run", *settings, "run.dir=b"), only_rank=1))
        ended = Job(argv, cwd=tmp_path, env=env).end()
    assert ended.code == 0, ended
    assert_same_weights(tmp_path / "b", tmp_path / "a")
    assert steps(tmp_path / "b") == steps(tmp_path / "a")


def test_static_shares_stay_whatever_happens(config, tmp_path):
    given = [*STEADY, "schedule.policy=static", "--inject", "slow:1=5x"]
    ended = hpc_train("run", config, "run.dir=a", *given, "-n", 2, cwd=tmp_path)
    assert ended.code == 0, ended
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert [row["share"] for row in result["ranks"]] == [0.5, 0.5]
    assert result["balance"]["changes"] == 0


def test_disturbing_a_rank_that_does_not_exist_is_a_mistake(config, tmp_path):
    line = "error: --inject: rank must be below the number of ranks, 2 (rank: 2)"
    ended = hpc_train("run", config, "--inject", "slow:2=3x", "-n", 2, cwd=tmp_path)
    assert (ended.code, ended.err.splitlines()[0]) == (2, line), ended
    argv, env = mpirun(2, cli("run", config, "--inject", "slow:2=3x", "run.dir=b"))
    ended = Job(argv, cwd=tmp_path, env=env).end()
    assert ended.code == 2, ended
    assert ended.err.count(line) == 1, ended
    assert not (tmp_path / "b").exists()


def test_a_rank_without_memory_ends_where_it_would_have_ended(config, tmp_path):
    few = [config, "run.epochs=1", "run.evaluate=never", "-n", 2]
    ended = hpc_train("run", *few, "run.dir=a", cwd=tmp_path)
    assert ended.code == 0, ended
    scarce = ["--inject", "oom:1>3", "--inject", "oom:0@4", "schedule.policy=dynamic"]
    ended = hpc_train("run", *few, "run.dir=b", *scarce, cwd=tmp_path)
    assert ended.code == 0, ended
    assert_same_weights(tmp_path / "b", tmp_path / "a")
    assert steps(tmp_path / "b") == steps(tmp_path / "a")
    told = (tmp_path / "b" / "logs" / "rank-0001.log").read_text()
    assert "no memory for a micro-batch: from batch 0 on it has 2 samples at most" in told
    told = (tmp_path / "b" / "logs" / "rank-0000.log").read_text()
    assert told.count("no memory for a micro-batch: from batch 4 on") == 1


def test_a_sample_without_memory_ends_the_run_with_one_line(config, tmp_path):
    ended = hpc_train("run", config, "run.dir=a", "--inject", "oom:1>0@3-9", "-n", 2, cwd=tmp_path)
    assert ended.code == 1, ended
    lines = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, ended
    assert "there must be memory for forward and backward of a single sample" in lines[0]
    assert "rank 1 on " in lines[0], ended
    assert "(samples: 1, batch: 3; out of memory" in lines[0], ended
