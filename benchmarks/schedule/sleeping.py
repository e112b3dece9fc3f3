"""A task whose computing is sleeping: any number of ranks share two cores without a quarrel."""

import random
import time

from hpc_train.tasks.classification import Classification


class Sleeping(Classification):
    """Classification that sleeps for `milliseconds` per sample before it computes.

    Each time by a log-normal factor longer or shorter, whose logarithm has the deviation `spread`.
    """

    def __init__(self, milliseconds=1.0, spread=0.0):
        super().__init__()
        self._seconds = milliseconds / 1000
        self._spread = spread
        self._dice = random.Random()

    def losses(self, model, batch):
        losses = super().losses(model, batch)
        factor = self._dice.lognormvariate(0.0, self._spread)
        time.sleep(len(losses.values) * self._seconds * factor)
        return losses
