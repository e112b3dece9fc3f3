"""Stories of unlike ranks: a rank that is slowed down gets less, and the run says so."""

import json

from tests.jobs.processes import Job, cli, hpc_train, mpirun

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
