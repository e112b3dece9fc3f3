"""Stories of studies: real trials on real ranks, failures, kills, populations."""

import json
import os
import signal
import sys
import time

import pytest

from hpc_train.tune import read_study
from tests.jobs.processes import Job, mpirun

STUDY = """\
[study]
name = "story"
config = "story.toml"
trials = {trials}
overrides = ["data.validation={train}[40:120]", "run.epochs={epochs}"]

[[objective]]
metric = "min loss"

[sampler]
name = "random"

[groups]
ranks_per_trial = {ranks}

{more}

[space]
"optimizer.lr" = {{ type = "float", low = 0.001, high = 0.05, log = true }}
{space}
"""


@pytest.fixture
def study(tmp_path, config, blobs):
    """Writes a study beside the configuration."""

    def write(trials=4, epochs=3, ranks=1, more="", space=""):
        path = tmp_path / "study.toml"
        names = {"trials": trials, "epochs": epochs, "ranks": ranks, "train": blobs}
        path.write_text(STUDY.format(**names, more=more, space=space))
        return path

    return write


def start(path, ranks, *words, environ=None):
    program = [sys.executable, "-m", "hpc_train", "tune", str(path), *words]
    argv, extra = mpirun(ranks, program)
    env = {**extra, "OMP_NUM_THREADS": "1", **(environ or {})}
    return Job(argv, cwd=path.parent, env=env)


def history(path):
    return read_study(path.parent / "studies" / "story")


def test_trials_do_not_depend_on_their_ranks_and_can_be_trained_again(study):
    path = study(trials=3)
    values = []
    for ranks, size in ((1, 1), (3, 2)):
        found = f"study.dir=studies/on-{ranks}"
        ended = start(study(trials=3, ranks=size), ranks, found).end(150)
        assert ended.code == 0, ended
        told = read_study(path.parent / "studies" / f"on-{ranks}")
        assert [trial.state for trial in told.trials] == ["complete"] * 3
        values.append([trial.values[0] for trial in told.trials])
    assert values[0] == pytest.approx(values[1], rel=1e-10)
    best = values[0].index(min(values[0]))
    again = [sys.executable, "-m", "hpc_train", "run", "--from-trial", "on-1:best", "--json"]
    ended = Job(again, cwd=path.parent).end(60)
    assert ended.code == 0, ended
    loss = json.loads(ended.out)["metrics"]["validation"]["loss"]
    assert loss == pytest.approx(values[0][best], rel=1e-10)
    report = [sys.executable, "-m", "hpc_train", "tune", "report", "on-1"]
    ended = Job(report, cwd=path.parent).end(60)
    assert ended.code == 0, ended
    page = (path.parent / "studies" / "on-1" / "report.html").read_text()
    assert page.count("<polyline") == 6
    assert "src=" not in page
    assert "href=" not in page


def test_a_trial_that_fails_has_its_reason_and_the_others_go_on(study):
    space = '"optimizer.momentum" = { type = "categorical", choices = [0.5, 0.4] }\n'
    space += '"task.name" = { type = "categorical", '
    space += 'choices = ["classification", "broken:Diverges", "broken:Raises", "broken:Memory"] }'
    path = study(trials=8, more="", space=space)
    text = (
        path.read_text().replace('"random"', '"grid"').replace("0.05, log", "0.05, points = 1, log")
    )
    path.write_text(text)
    (path.parent / "broken.py").write_text(BROKEN)
    ended = start(path, 2).end(150)
    assert ended.code == 0, ended
    reasons = {t.params["task.name"]: (t.state, t.reason) for t in history(path).trials}
    assert reasons["classification"] == ("complete", "")
    assert reasons["broken:Diverges"][0] == "failed"
    assert "must be finite" in reasons["broken:Diverges"][1]
    assert "out of hearts" in reasons["broken:Raises"][1]
    assert "MemoryError" in reasons["broken:Memory"][1]
    assert len(history(path).trials) == 8


BROKEN = """\
from hpc_train.tasks import TASKS

Supervised = TASKS["classification"]


class Diverges(Supervised):
    def losses(self, model, batch):
        found = super().losses(model, batch)
        return type(found)(found.values * float("nan"), found.weights, found.sums)


class Raises(Supervised):
    def losses(self, model, batch):
        raise RuntimeError("out of hearts")


class Memory(Supervised):
    def losses(self, model, batch):
        raise MemoryError
"""


def test_a_study_that_is_killed_goes_on_and_loses_nothing(study):
    path = study(trials=6, epochs=40)
    job = start(path, 2)
    journal = path.parent / "studies" / "story" / "journal.jsonl"
    deadline = time.monotonic() + 100
    while not (journal.exists() and journal.read_text().count('"finished"') >= 2):
        assert time.monotonic() < deadline, job.end(1)
        time.sleep(0.05)
    os.killpg(job._process.pid, signal.SIGKILL)
    job.end(60)
    before = {t.number: t.values for t in history(path).trials if t.is_finished}
    assert len(before) >= 2
    ended = start(path, 2).end(200)
    assert ended.code == 0, ended
    after = history(path)
    assert {n: after.trials[n].values for n in before} == before
    assert [trial.state for trial in after.trials] == ["complete"] * 6
    assert all(len(trial.reports) == 40 for trial in after.trials)


def test_a_signal_saves_all_trials_and_the_study_goes_on(study):
    path = study(trials=3, epochs=150)
    job = start(path, 2)
    journal = path.parent / "studies" / "story" / "journal.jsonl"
    deadline = time.monotonic() + 100
    while not (journal.exists() and journal.read_text().count('"reported"') >= 3):
        assert time.monotonic() < deadline, job.end(1)
        time.sleep(0.05)
    job.signal(signal.SIGUSR1)
    ended = job.end(100)
    assert ended.code == 75, ended
    assert "go on" in ended.out
    told = history(path)
    assert any(t.reports and len(t.reports) < 150 for t in told.trials)
    ended = start(path, 2).end(200)
    assert ended.code == 0, ended
    assert all(len(trial.reports) == 150 for trial in history(path).trials)


def test_a_population_is_the_same_on_any_number_of_ranks(study):
    more = "[population]\nsize = 4\nevery = 2\nquantile = 0.5"
    values = []
    for ranks in (1, 2):
        folder = f"studies/on-{ranks}"
        path = study(trials=4, epochs=6, more=more)
        ended = start(path, ranks, f"study.dir={folder}").end(150)
        assert ended.code == 0, ended
        told = read_study(path.parent / folder)
        assert [trial.state for trial in told.trials] == ["complete"] * 4
        assert {trial.generation for trial in told.trials} == {2}
        values.append([trial.reports[6][0] for trial in told.trials])
        first = [trial.reports[2][0] for trial in told.trials]
    assert values[0] == pytest.approx(values[1], rel=1e-10)
    assert max(values[0]) < max(first)


def test_a_rank_that_dies_takes_no_other_trial_with_it(study):
    path = study(trials=6, epochs=30)
    program = [sys.executable, "-m", "hpc_train", "tune", str(path), "-n", "3"]
    job = Job([*program, "--inject", "kill:2@60"], cwd=path.parent, env={"OMP_NUM_THREADS": "1"})
    ended = job.end(250)
    told = history(path)
    assert [trial.state for trial in told.trials] == ["complete"] * 6, ended
    assert any(trial.lost for trial in told.trials), ended
    assert ended.code == 0, ended
