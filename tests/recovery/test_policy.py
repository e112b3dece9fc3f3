"""What survivors decide: nothing committed is undone or lost, whoever dies when; simulated."""

import random

import pytest

from hpc_train.recovery.policy import Report, decide


def test_those_behind_get_the_state_of_the_lowest_that_is_not():
    found = decide([Report(7, 0, 5), Report(8, 0, 5), Report(8, 0, 8), Report(7, 1, 5)])
    assert (found.batch, found.phases, found.source, found.behind) == (8, 0, 1, (0, 3))
    assert found.looked_up == 5  # one has not evaluated: all do so again


def test_half_received_or_half_made_states_are_never_a_source():
    found = decide([Report(9, 0, 5, whole=False), Report(8, 0, 5), Report(8, 1, 5)])
    assert (found.batch, found.phases, found.source, found.behind) == (8, 1, 2, (0, 1))
    assert decide([Report(9, 0, 5, whole=False)]).source is None


def test_the_wish_to_leave_and_the_least_number_of_ranks():
    assert decide([Report(1, 0, 0), Report(2, 0, 0, leaving=True)]).leaving
    assert decide([Report(1, 0, 0)] * 2, min_ranks=2).enough
    assert not decide([Report(1, 0, 0)] * 2, min_ranks=3).enough


def test_one_that_takes_the_place_of_another_gets_the_state_and_has_no_say():
    found = decide([Report(8, 0, 8), Report(0, 0, -1, whole=False, fresh=True), Report(8, 0, 8)])
    assert (found.batch, found.source, found.behind, found.looked_up) == (8, 0, (1,), 8)
    assert found.renewed
    assert not decide([Report(8, 0, 8)] * 2).renewed
    alone = decide([Report(0, 0, -1, whole=False, fresh=True)])
    assert alone.source is None


class Rank:
    """A simulated rank: `weights` is the list of commits that they are made of."""

    def __init__(self):
        self.weights, self.whole, self.alive = [], True, True

    def report(self, num_phases):
        batch, phases = divmod(len(self.weights), num_phases)
        return Report(batch, phases, 0, whole=self.whole)


def commit(rng, ranks, number):
    """A commit that all live ranks make; if one dies in it, only some of the others see it."""
    live = [rank for rank in ranks if rank.alive]
    if rng.random() > 0.3:
        for rank in live:
            rank.weights.append(number)
        return False
    rng.choice(live).alive = False
    for rank in live:
        if rank.alive and rng.random() < 0.5:
            rank.weights.append(number)
            rank.whole = rng.random() > 0.05  # or failed in the middle of the update's followers
    return True


def recover(rng, ranks, num_phases):
    """What `survival` does with the decision; ranks may die in the middle of the transfer."""
    while True:
        live = [rank for rank in ranks if rank.alive]
        if not live:
            return None
        made = decide([rank.report(num_phases) for rank in live])
        if made.source is None:
            return None
        source = live[made.source]
        if rng.random() < 0.3:
            rng.choice(live).alive = False
            for rank in made.behind:
                live[rank].whole = rng.random() < 0.5
                if live[rank].whole:
                    live[rank].weights = list(source.weights)
            continue
        for rank in made.behind:
            live[rank].weights, live[rank].whole = list(source.weights), True
        return made


@pytest.mark.parametrize("num_phases", [1, 2])
def test_thousands_of_failures_leave_one_state_with_every_commit_once(num_phases):
    rng = random.Random(5)
    failures = 0
    for _ in range(2000):
        ranks = [Rank() for _ in range(rng.randint(2, 8))]
        while len(ranks[0].weights) < 12 and any(rank.alive for rank in ranks):
            live = [rank for rank in ranks if rank.alive]
            number = len(live[0].weights)
            if not commit(rng, ranks, number):
                continue
            failures += 1
            seen = (
                max(len(r.weights) for r in ranks if r.alive)
                if any(r.alive and r.whole for r in ranks)
                else 0
            )
            whole = [r for r in ranks if r.alive and r.whole]
            made = recover(rng, ranks, num_phases)
            if made is None:
                break
            live = [rank for rank in ranks if rank.alive]
            assert all(rank.weights == live[0].weights for rank in live)
            assert live[0].weights == list(range(len(live[0].weights)))
            # at most the broken commit is done again; none that a whole survivor kept is undone
            assert number <= len(live[0].weights) <= seen
            if any(r.alive and len(r.weights) > number for r in whole):
                assert len(live[0].weights) > number
            assert divmod(len(live[0].weights), num_phases) == (made.batch, made.phases)
    assert failures > 4000
