"""Stories on a real Slurm: jobs save, are queued again, lose nodes, and end with the same model."""

import json
import re
import tomllib

import pytest

from tests.jobs.conftest import CONFIG
from tests.jobs.test_run import assert_same_weights, result, steps
from tests.slurm.runs import Runs

# of three idle nodes Slurm gives two; the third is there for one that is lost
NODES = ("--nodes", "2-3", "--ntasks-per-node", "1")

pytestmark = pytest.mark.timeout(900)  # a cluster each, whose own limits come first

NASTY = "a b'c $(touch bad) `touch bad` %j"


def need(launchers, launcher):
    if launcher not in launchers:
        pytest.skip(f"ranks that {launcher} starts do not reach each other here")


def assert_trained(runs, run, calm):
    """The job is COMPLETED, and its run equals the undisturbed one."""
    states = runs.wait_for_end(run)
    text = runs.text(run)
    assert states == {"COMPLETED"}, text
    assert result(run)["status"] == "done", text
    assert steps(run) == steps(calm), text  # every sample exactly once, by the hash
    assert_same_weights(run, calm)


def test_a_job_that_is_asked_to_save_goes_on_with_another_number_of_ranks(
    runs, cluster, launchers, calm
):
    need(launchers, "mpirun")
    run = runs.submit("saved", "--nodes", "1-3", "--ntasks-per-node", "2")
    runs.wait_for_steps(run, 7)
    before = int(runs.jobs(run)[0]["NumNodes"])  # of a range Slurm gives what it likes
    for node in cluster.nodes[1:]:
        cluster.update(node, "DRAIN")
    runs.save_and_leave(run)
    runs.wait(run, "a restart", lambda: runs.restarts(run) == 1)
    runs.go()
    assert_trained(runs, run, calm)
    assert runs.jobs(run)[0]["NumNodes"] == "1"
    assert "resumed " in runs.output(run)
    assert {f"{2 * before} ranks", "2 ranks"} == set(re.findall(r"\d+ ranks", runs.output(run)))


def test_under_mpirun_a_job_goes_on_without_a_node_that_lost_power(runs, cluster, launchers, calm):
    need(launchers, "mpirun")
    run = runs.submit("hurt", *NODES)
    runs.wait_for_steps(run, 7)
    cluster.power_off("node2")
    runs.go()
    runs.wait(run, "the script's end", lambda: "RUNNING" not in runs.states(run))
    runs.give_up(run, "node2")
    assert_trained(runs, run, calm)
    assert "node2 does not answer" in runs.output(run) or runs.restarts(run), runs.text(run)


def test_under_srun_a_job_that_lost_a_node_is_queued_again(runs, cluster, launchers, calm):
    need(launchers, "srun-pmix")
    run = runs.submit("hurt", *NODES, "--launcher", "srun-pmix")
    runs.wait_for_steps(run, 7)
    cluster.power_off("node2")
    runs.go()
    runs.wait(run, "a restart", lambda: runs.restarts(run) > 0)
    runs.give_up(run, "node2")
    assert_trained(runs, run, calm)
    assert runs.restarts(run) >= 1


def test_an_error_that_would_only_repeat_is_not_queued_again(runs):
    run = runs.submit("wrong", "data.train=nowhere")
    assert runs.wait_for_end(run) == {"FAILED"}
    assert runs.restarts(run) == 0
    assert "nowhere" in runs.output(run)
    assert "not requeued" in runs.output(run)


def test_names_and_paths_with_blanks_and_quotes_reach_an_array_of_runs(cluster, tmp_path, blobs):
    folder = tmp_path / NASTY
    folder.mkdir()
    (folder / NASTY).symlink_to(blobs)
    runs = Runs(cluster, folder, CONFIG.format(train=blobs))
    runs.go()
    words = (f"data.train={folder / NASTY}", "run.epochs=1", "checkpoint.every=never")
    run = runs.submit("it's one", *words, "--array", "3,5", f"--option=--comment={NASTY}")
    assert runs.wait_for_end(run) == {"COMPLETED"}, runs.text(run)
    assert NASTY in cluster.call("scontrol", "show", "job", runs.jobs(run)[0]["JobId"])
    assert len(runs.jobs(run)) == len(list(run.glob("slurm-*_*.out"))) == 2
    names = {"go", "it's one", "mine.py", "story.toml", NASTY}
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == names
    for seed in (3, 5):
        one = run / str(seed)
        assert result(one)["status"] == "done"
        config = tomllib.loads((one / "config.toml").read_text())
        assert config["run"]["seed"] == seed
        assert config["data"]["train"] == str(folder / NASTY)
    assert steps(run / "3") != steps(run / "5")


def test_status_and_cancel_speak_to_slurm(runs):
    run = runs.submit("held", "--option=--hold")
    (known,) = json.loads(runs.command("status", run, "--json"))["runs"]
    assert known["state"] == "PENDING"
    assert known["reason"] == "JobHeldUser"
    assert "cancelled" in runs.command("cancel", run)
    assert runs.wait_for_end(run) == {"CANCELLED"}
