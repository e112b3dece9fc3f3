"""The competitor on two ranks: DistributedDataParallel of torch over gloo, equal shares.

    python ddp.py RANK PORT BATCH_SIZE STEPS        prints samples a second of every step

Data are random, lie in memory, and are ready before the clock starts.
"""

import json
import os
import sys
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from hpc_train.models import cnn


def main(rank, port, batch_size, steps):
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = dist.TCPStore("127.0.0.1", port, 2, is_master=rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    plain = cnn((1, 8, 8), 10, [64, 128], 64, activation="tanh")
    model = DistributedDataParallel(plain, gradient_as_bucket_view=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    images = torch.randn(batch_size // 2, 1, 8, 8)
    labels = torch.randint(0, 10, (batch_size // 2,))
    rates = []
    for _ in range(steps):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=False)
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()
        rates.append(batch_size / (time.perf_counter() - started))
    if rank == 0:
        print(json.dumps(rates), flush=True)
    dist.barrier()
    os._exit(0)  # gloo's end aborts now and then, as the other process has gone


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
