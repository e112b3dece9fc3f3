"""A task that begins when others do: processes that know nothing of each other compute at once."""

import os
import time
from pathlib import Path

from hpc_train.tasks.classification import Classification


class Meeting(Classification):
    """Classification that waits, before it computes first, for `processes` files in `folder`."""

    def __init__(self, folder, processes=2):
        super().__init__()
        self._folder = Path(folder)
        self._processes = processes

    def losses(self, model, batch):
        if self._processes:
            (self._folder / str(os.getpid())).touch()
            while len(list(self._folder.iterdir())) < self._processes:
                time.sleep(0.001)
            self._processes = 0
        return super().losses(model, batch)
