"""Phases: steps in order, a barrier between phases, turns in rotation."""

from hpc_train.comm.phases import PhasedSum


def test_steps_and_barriers_come_in_order_and_turns_go_round():
    seen = []

    def step(name):
        return (seen.append, (name,))

    operation = PhasedSum(
        lambda: seen.append("|"), [[step("a"), step("b")], [], [step("c")]], [[step("d")]]
    )
    for _ in range(3):
        operation.launch()
        operation.finish()
    assert seen == ["a", "b", "|", "|", "c", "d", "a", "b", "|", "|", "c"]
