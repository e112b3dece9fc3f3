"""Techniques: called at their points, in their order, and free where they override nothing."""

from contextlib import contextmanager

import torch

from hpc_train.train.technique import Technique, Techniques


class Silent(Technique):
    name = "silent"


class Busy(Technique):
    def __init__(self, name, heard):
        self.name, self.heard, self.count = name, heard, torch.zeros(1)

    def rate_factor(self):
        return 0.5

    def updated(self, learner):
        self.heard.append((self.name, learner))

    @contextmanager
    def evaluating(self, *, final):
        self.heard.append((self.name, "enter"))
        yield
        self.heard.append((self.name, "leave"))

    def evaluated(self, batch, metrics):
        self.heard.append((self.name, batch))
        return f"{self.name} has enough" if metrics["loss"] < 1 else None

    def tensors(self):
        return {"count": self.count}

    def notes(self):
        return {"who": self.name}

    def restore(self, tensors, notes):
        self.taken = (tensors, notes)


def test_all_hear_in_order_and_factors_multiply():
    heard = []
    techniques = Techniques([Busy("a", heard), Silent(), Busy("b", heard)])
    techniques.updated("learner")
    assert heard == [("a", "learner"), ("b", "learner")]
    assert techniques.rate_factor() == 0.25


def test_evaluations_are_nested_and_all_hear_of_the_end():
    heard = []
    techniques = Techniques([Busy("a", heard), Busy("b", heard)])
    with techniques.evaluating():
        pass
    assert heard == [("a", "enter"), ("b", "enter"), ("b", "leave"), ("a", "leave")]
    heard.clear()
    assert techniques.evaluated(7, {"loss": 2.0}) is None
    assert techniques.evaluated(8, {"loss": 0.5}) == "a has enough"
    assert heard == [("a", 7), ("b", 7), ("a", 8), ("b", 8)]


def test_each_takes_up_its_own_state():
    a, b = Busy("a", []), Busy("b", [])
    techniques = Techniques([a, Silent(), b])
    assert techniques.notes() == {"a": {"who": "a"}, "b": {"who": "b"}}
    tensors = techniques.tensors()
    assert list(tensors) == ["a/count", "b/count"]
    techniques.restore({"a/count": torch.ones(1)}, {"a": {"who": "a"}})
    assert a.taken == ({"count": torch.ones(1)}, {"who": "a"})
    assert b.taken == ({}, {})


def test_what_is_not_overridden_is_not_called():
    assert Techniques([Silent()])._updated == []
    assert Techniques().rate_factor() == 1.0
