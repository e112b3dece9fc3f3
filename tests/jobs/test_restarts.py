"""Stories of jobs that die with a rank: the supervisor starts them again, to the same end."""

from tests.jobs.processes import hpc_train
from tests.jobs.test_lost_ranks import COMMON, calm  # noqa: F401
from tests.jobs.test_run import assert_same_weights, result, steps


def test_a_job_that_dies_with_its_ranks_goes_on_from_its_newest_checkpoint(
    config,
    tmp_path,
    calm,  # noqa: F811
):
    argv = ["run", config, "run.dir=hurt", *COMMON, "recovery.shrink=false", "-n", 2]
    ended = hpc_train(*argv, "--inject=kill:1@17", cwd=tmp_path)
    assert ended.code == 0, ended
    hurt = tmp_path / "hurt"
    assert ended.err.count("restart 1, from the newest checkpoint: rank 1 on ") == 1, ended
    assert "resumed    at batch 10" in ended.out
    assert result(hurt)["status"] == "done"
    assert "was killed by SIGKILL" in result(hurt)["restarts"][0]
    assert len(result(hurt)["restarts"]) == 1
    assert '"event": "restart"' in (hurt / "metrics.jsonl").read_text()
    assert steps(hurt) == steps(calm)
    assert_same_weights(hurt, calm)
    assert not (hurt / "lock.json").exists()


def test_one_that_dies_before_its_first_save_begins_again(config, tmp_path, calm):  # noqa: F811
    argv = ["run", config, "run.dir=hurt", *COMMON, "-n", 1, "--inject=kill:0@4"]
    ended = hpc_train(*argv, cwd=tmp_path)
    assert ended.code == 0, ended
    assert steps(tmp_path / "hurt") == steps(calm)
    assert_same_weights(tmp_path / "hurt", calm)


def test_an_error_of_the_code_is_not_tried_again(config, tmp_path):
    argv = ["run", config, "run.dir=hurt", *COMMON, "-n", 2, "--inject=raise:1@4"]
    ended = hpc_train(*argv, cwd=tmp_path)
    assert ended.code == 1, ended
    assert "restart" not in ended.err, ended
