"""Studies for tests: over a space of numbers, without training."""

import math

from hpc_train.config.study import Study
from hpc_train.tune.coordinator import Coordinator
from hpc_train.tune.history import apply, replay
from hpc_train.tune.roster import Facts
from hpc_train.tune.search import Search
from hpc_train.tune.space import Space

SPACE = {
    "optimizer.name": {"type": "categorical", "choices": ["sgd", "adamw"]},
    "optimizer.lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "optimizer.momentum": {
        "type": "float",
        "low": 0.0,
        "high": 0.9,
        "when": {"optimizer.name": "sgd"},
    },
    "model.hidden": {"type": "categorical", "choices": [[8], [8, 8]]},
    "run.epochs": {"type": "int", "low": 1, "high": 8},
}


def study(sampler="random", space=SPACE, trials=12, **more):
    """A checked study."""
    sections = {
        "study": {"config": "any", "trials": trials},
        "objective": [{"metric": "min loss"}],
        "sampler": {"name": sampler},
        "space": space,
    }
    return Study.model_validate(sections | more)


def loss(point, step=1):
    """What a trial reaches: a bowl in the logarithm of the learning rate."""
    return (math.log10(point["optimizer.lr"]) + 2) ** 2 + 1 / step


class Job:
    """A study on simulated ranks: a trial of n epochs takes n seconds, with one report each.

    Messages and orders are handed over at once; time goes on to the next event. `kill_at` stops
    everything after so many records, as a kill of all ranks would.
    """

    def __init__(self, section, ranks=4, records=(), kill_at=None, total=None, fails=(), **facts):
        self.section, self.records, self.kill_at = section, list(records), kill_at
        self.space = Space.ordered(section.space)
        self.history = replay(self.records)
        search = Search(section, self.space)
        for record in self.records:
            if record["kind"] == "asked":
                search.adopt(record["params"])
            elif record["kind"] == "reported":
                search.report(record["trial"], record["step"], record["values"])
            elif record["kind"] == "finished":
                search.tell(record["trial"], record["state"], record["values"])
        self.now = self.records[-1]["time"] if self.records else 0.0
        self.write({"kind": "session", "ranks": ranks, "time": self.now})
        apply(self.history, self.records[-1])
        self.events, self.orders, self.fails = [], [], set(fails)
        self.busy = dict.fromkeys(range(ranks), 0.0)
        known = Facts([0] * ranks, total or section.study.trials, self.size, **facts)
        self.coordinator = Coordinator(
            section, self.space, search, self.history, self.write, self.send, known
        )
        self.done_of, self.pausing = {}, set()

    def size(self, point):
        return float(point.get("run.epochs", 4)), self.section.groups.ranks_per_trial

    def write(self, record):
        if self.kill_at is not None and len(self.records) >= self.kill_at:
            raise KeyboardInterrupt
        self.records.append(record)

    def send(self, rank, order):
        self.orders.append((rank, order))

    def run(self):
        """To the end, or the kill; gives the records."""
        try:
            for rank in self.busy:
                self.coordinator.handle(rank, {"what": "free"}, self.now)
            self.coordinator.decide(self.now)
            self.obey()
            while self.events:
                self.events.sort(key=lambda event: event[0])
                self.now, act = self.events.pop(0)
                act()
                self.coordinator.decide(self.now)
                self.obey()
        except KeyboardInterrupt:
            pass
        return self.records

    def obey(self):
        while self.orders:
            rank, order = self.orders.pop(0)
            if order["do"] == "pause":
                self.pausing.add(order["trial"])
            if order["do"] == "train" and rank == min(order["ranks"]):
                self.step(order, self.done_of.get(order["trial"], 0))

    def step(self, order, done):
        """The next evaluation of a trial, in a second's time."""
        seconds = 1.0 / len(order["ranks"])
        self.events.append((self.now + seconds, lambda: self.evaluate(order, done + 1, seconds)))

    def evaluate(self, order, done, seconds):
        for rank in order["ranks"]:
            self.busy[rank] += seconds
        trial, total = order["trial"], self.size(order["params"])[0]
        if trial in self.fails:
            return self.leave(order, "failed", "loss is not finite")
        value = loss(order["params"], done)
        report = {"what": "report", "trial": trial, "step": done, "values": [value]}
        leader = min(order["ranks"])
        self.coordinator.handle(leader, {**report, "done": done / total, "begun": 0.0}, self.now)
        decision = self.orders.pop()[1]["decision"]
        self.done_of[trial] = done
        if decision == "pause" and done < total:
            return self.leave(order, "paused")
        if decision == "prune" or done >= total:
            return self.leave(order, "done")
        if trial in self.pausing:
            self.pausing.remove(trial)
            return self.leave(order, "paused")
        return self.step(order, done)

    def leave(self, order, status, reason=""):
        message = {"what": "ended", "trial": order["trial"], "status": status, "reason": reason}
        self.coordinator.handle(min(order["ranks"]), message, self.now)
        for rank in order["ranks"]:
            self.coordinator.handle(rank, {"what": "free"}, self.now)
