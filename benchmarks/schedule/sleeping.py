"""A task whose computing is sleeping: any number of ranks share two cores without a quarrel."""

import time

from hpc_train.tasks.classification import Classification


class Sleeping(Classification):
    """Classification that sleeps for `milliseconds` per sample before it computes."""

    def __init__(self, milliseconds=1.0):
        super().__init__()
        self._seconds = milliseconds / 1000

    def losses(self, model, batch):
        losses = super().losses(model, batch)
        time.sleep(len(losses.values) * self._seconds)
        return losses
