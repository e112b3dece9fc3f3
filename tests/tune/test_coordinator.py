"""The coordinator on simulated ranks: utilisation, pruning, failures, kills, populations."""

import random
from collections import Counter

import pytest

from hpc_train.tune.history import replay
from hpc_train.tune.roster import Roster
from tests.tune.studies import SPACE, Job, study

STATES = {"complete", "pruned", "failed"}


def states(records):
    return Counter(trial.state for trial in replay(records).trials)


def test_no_rank_idles_while_trials_wait():
    job = Job(study(trials=16), ranks=4)
    records = job.run()
    assert states(records) == {"complete": 16}
    assert sum(job.busy.values()) / (4 * job.now) > 0.85
    assert job.coordinator.is_over
    assert job.coordinator.is_complete


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_pruned_trials_take_less(sampler):
    job = Job(study(sampler, trials=24, pruner={"name": "asha", "reduction": 2}), ranks=3)
    found = states(job.run())
    assert found["pruned"] > 5
    assert found["complete"] + found["pruned"] == 24


def test_a_failed_trial_has_its_reason_and_the_study_goes_on():
    history = replay(Job(study(), fails=(0, 5)).run())
    assert [t.number for t in history.trials if t.state == "failed"] == [0, 5]
    assert history.trials[5].reason == "loss is not finite"
    assert Counter(trial.state for trial in history.trials)["complete"] == 10


@pytest.mark.parametrize("sampler", ["random", "tpe", "quasi-random"])
def test_a_study_killed_after_any_record_loses_nothing(sampler):
    section = study(sampler, pruner={"name": "median"})
    length = len(Job(section).run())
    for kill_at in random.Random(0).sample(range(2, length), 20):
        before = Job(section, kill_at=kill_at).run()
        finished = {t.number: t.values for t in replay(before).trials if t.is_finished}
        job = Job(section, records=before)
        after = replay(job.run())
        assert len(after.trials) == 12
        assert all(trial.state in STATES for trial in after.trials)
        assert {n: after.trials[n].values for n in finished} == finished
        assert Counter(r["trial"] for r in job.records if r["kind"] == "finished").total() == 12


def test_trials_get_the_ranks_that_they_want():
    records = Job(study(groups={"ranks_per_trial": 2})).run()
    assert {len(r["ranks"]) for r in records if r["kind"] == "started"} == {2}


def test_ranks_that_died_give_their_trial_to_others():
    job = Job(study(trials=4), ranks=3)
    for rank in range(3):
        job.coordinator.handle(rank, {"what": "free"}, 0.0)
    job.coordinator.decide(0.0)
    lost = next(order["trial"] for rank, order in job.orders if rank == 2)
    job.orders = [(rank, order) for rank, order in job.orders if rank != 2]
    job.coordinator.lose({2}, 0.5)
    job.obey()
    while job.events:
        job.events.sort(key=lambda event: event[0])
        job.now, act = job.events.pop(0)
        act()
        job.coordinator.decide(job.now)
        job.obey()
    assert states(job.records) == {"complete": 4}
    parts = replay(job.records).trials[lost].parts
    assert parts[0]["ranks"] == [2]
    assert 2 not in parts[1]["ranks"]
    assert job.coordinator.is_over


def test_a_trial_that_would_not_end_in_time_is_not_started():
    space = {"optimizer.lr": SPACE["optimizer.lr"]}
    job = Job(study(space=space, trials=10), ranks=1, deadline=11.0)
    records = job.run()
    assert states(records) == {"complete": 2, "waiting": 8}
    assert job.now <= 11.0
    assert job.coordinator.is_over
    assert not job.coordinator.is_complete


def test_a_population_does_not_depend_on_the_number_of_ranks():
    space = {"optimizer.lr": SPACE["optimizer.lr"]}
    section = study(space=space, population={"size": 6})
    copies, told = [], []
    for ranks in (1, 2, 5):
        copied = []
        job = Job(section, ranks, total=6, inherit=lambda *which, to=copied: to.append(which))
        told.append([r["members"] for r in job.run() if r["kind"] == "generation"])
        copies.append(copied)
        assert states(job.records) == {"complete": 6}
    assert told[0] == told[1] == told[2]
    assert copies[0] == copies[1] == copies[2]
    assert len(copies[0]) >= 3
    assert all(trial != donor for trial, donor, _ in copies[0])


def test_idle_ranks_join_the_last_trial_if_that_ends_it_sooner():
    space = {
        "optimizer.lr": SPACE["optimizer.lr"],
        "run.epochs": {"type": "categorical", "choices": [4, 200]},
    }
    section = study("grid", {**space, "optimizer.lr": space["optimizer.lr"] | {"points": 1}})
    joined = Job(section, ranks=2, total=2, restart_seconds=1.0)
    joined.run()
    alone = Job(
        section.model_copy(update={"groups": section.groups.model_copy(update={"join": False})}),
        ranks=2,
        total=2,
    )
    alone.run()
    assert joined.now < 0.7 * alone.now
    assert states(joined.records) == {"complete": 2}


@pytest.mark.parametrize("facts", [{}, {"deadline": 1000.0}])
def test_a_trial_waits_for_ranks_that_are_about_to_be_free(facts):
    job = Job(study(trials=4, groups={"ranks_per_trial": 2}), ranks=2, **facts)
    begun = []
    for now in (0.0, 3.0):
        for rank in range(2):
            job.coordinator.handle(rank, {"what": "free"}, now)
            job.coordinator.decide(now)
            assert bool(job.orders) == (rank == 1)
        begun.append([rank for rank, order in job.orders if order["do"] == "train"])
        ended = {"what": "ended", "trial": job.orders[0][1]["trial"], "status": "done"}
        job.coordinator.handle(0, {**ended, "reason": ""}, now + 2.0)
        job.orders.clear()
    assert begun == [[1, 0], [1, 0]]


def test_a_resumed_hyperband_keeps_its_brackets():
    section = study(trials=20, pruner={"name": "hyperband", "most": 8, "reduction": 2})
    decisions = []
    for _ in range(2):
        records = Job(section).run()
        decisions.append([r["decision"] for r in records if r["kind"] == "reported"])
    assert decisions[0] == decisions[1]
    assert "prune" in decisions[0]


def test_evaluations_that_the_journal_lost_are_taken_up():
    job = Job(study(trials=1), ranks=1)
    job.coordinator.handle(0, {"what": "free"}, 0.0)
    job.coordinator.decide(0.0)
    told = {"step": 3, "values": [1.0], "earlier": [[2, [2.0]]], "done": 0.5, "begun": 0.0}
    job.coordinator.handle(0, {"what": "report", "trial": 0, **told}, 1.0)
    assert replay(job.records).trials[0].reports == {2: [2.0], 3: [1.0]}


def test_nothing_begins_before_all_ranks_are_heard():
    space = {"run.epochs": SPACE["run.epochs"]}
    job = Job(study(space=space, trials=3), ranks=3)
    for rank in (1, 0):
        job.coordinator.handle(rank, {"what": "free"}, 0.0)
        job.coordinator.decide(0.0)
    assert not job.orders
    job.coordinator.lose({2}, 0.0)
    job.coordinator.decide(0.0)
    assert sorted(rank for rank, _ in job.orders) == [0, 1]


EPOCHS = {"run.epochs": {"type": "categorical", "choices": [2, 16, 50]}}


def known(*epochs, **more):
    """A journal with a trial of 2 epochs that took 2 seconds, and others that wait."""
    records = [{"kind": "session", "ranks": 1, "time": 0.0}]
    records += [{"kind": "asked", "trial": 0, "params": {"run.epochs": 2}, "time": 0.0}]
    records += [{"kind": "started", "trial": 0, "ranks": [0], "time": 0.0}]
    told = {"step": 2, "values": [0], "decision": "go", "done": 1.0, "time": 2.0}
    records += [{"kind": "reported", "trial": 0, **told}]
    done = {"state": "complete", "values": [0], "reason": "", "time": 2.0}
    records += [{"kind": "finished", "trial": 0, **done}]
    asked = [{"kind": "asked", "time": 2.0, "params": {"run.epochs": n}} for n in epochs]
    return records + [{**one, "trial": n} for n, one in enumerate(asked, 1)]


def begun(ranks, records, **facts):
    """The trials that begin, and their ranks, when all ranks are heard."""
    trials = sum(record["kind"] == "asked" for record in records)
    job = Job(study(space=EPOCHS, trials=trials), ranks=ranks, records=records, **facts)
    for rank in range(ranks):
        job.coordinator.handle(rank, {"what": "free"}, 2.0)
    job.coordinator.decide(2.0)
    return {order["trial"]: order["ranks"] for _, order in job.orders if order["do"] == "train"}


def test_what_fits_before_the_end_is_started_although_longer_trials_do_not():
    assert begun(1, known(50, 2), deadline=10.0) == {2: [0]}


def test_what_is_in_time_on_spare_ranks_is_started_on_them():
    assert begun(4, known(16), deadline=10.0, restart_seconds=1.0) == {1: [0, 1, 2, 3]}
    # one of the long ones can be brought home, not both
    found = begun(4, known(16, 50, 16), deadline=10.0, restart_seconds=1.0)
    assert found == {1: [0, 1, 2, 3]}


def test_what_was_begun_goes_on_although_it_does_not_end_in_time():
    part = [{"kind": "started", "trial": 1, "ranks": [0], "time": 2.0}]
    told = {"step": 1, "values": [0], "decision": "go", "done": 0.2, "time": 2.0}
    part += [{"kind": "reported", "trial": 1, **told}, {"kind": "paused", "trial": 1, "time": 2.0}]
    assert begun(1, known(50) + part, deadline=10.0) == {1: [0]}
    assert begun(1, known(50), deadline=10.0) == {}


def test_of_a_trial_that_goes_on_only_the_rest_counts():
    part = [{"kind": "started", "trial": 1, "ranks": [0], "time": 2.0}]
    told = {"step": 1, "values": [0], "decision": "go", "done": 0.8, "time": 2.0}
    part += [{"kind": "reported", "trial": 1, **told}, {"kind": "paused", "trial": 1, "time": 2.0}]
    # 10 of its 50 seconds are left: the other one is longer
    assert begun(1, known(50, 16) + part) == {2: [0]}


def test_a_rank_that_speaks_of_a_trial_that_was_taken_from_it_changes_nothing():
    job = Job(study(trials=1, groups={"ranks_per_trial": 2}), ranks=3)
    for rank in range(3):
        job.coordinator.handle(rank, {"what": "free"}, 0.0)
    job.coordinator.decide(0.0)
    assert job.orders[-1][1]["ranks"] == [0, 1]
    job.coordinator.lose({1}, 1.0)
    lost = {"what": "ended", "trial": 0, "status": "lost", "reason": "a rank died"}
    job.orders.clear()
    job.coordinator.handle(0, lost, 1.0)
    job.coordinator.decide(1.0)  # rank 0 has not said that it is free
    assert [order["ranks"] for _, order in job.orders] == [[2]]
    before = len(job.records)
    job.orders.clear()
    job.coordinator.handle(0, {**lost, "status": "failed", "reason": "late"}, 2.0)
    told = {"step": 1, "values": [0.0], "done": 0.5, "begun": 0.0}
    job.coordinator.handle(0, {"what": "report", "trial": 0, **told}, 2.0)
    assert len(job.records) == before
    assert [(rank, order["decision"]) for rank, order in job.orders] == [(0, "go")]
    ended = {"what": "ended", "trial": 0, "status": "done", "reason": ""}
    job.coordinator.handle(2, {"what": "report", "trial": 0, **told}, 3.0)
    job.coordinator.handle(2, ended, 3.0)
    assert states(job.records) == {"complete": 1}


def test_where_nothing_was_heard_nothing_is_decided_anew(monkeypatch):
    job = Job(study(trials=6), ranks=2)
    for rank in range(2):
        job.coordinator.handle(rank, {"what": "free"}, 0.0)
    job.coordinator.decide(0.0)
    looked = []
    starts = Roster.starts
    monkeypatch.setattr(
        Roster, "starts", lambda self, now, **more: looked.append(now) or starts(self, now, **more)
    )
    for thousandth in range(1000):  # a second of phases of rank 0's training
        job.coordinator.decide(thousandth / 1000)
    assert len(looked) < 25
    assert looked == sorted(looked)
