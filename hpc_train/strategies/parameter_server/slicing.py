"""Which server holds what, if there are several: pure.

    arena 0   | server 0       | server 1       | server 2       |    slices of about one size,
    arena 1   | 0    | 1    | 2    |                                  whole cache lines

Each serves what it holds to all ranks that work. Of a model of M bytes a step moves, each way:

    one server                        p - 1 times M through its network card
    k servers, which do not work      each w / k times M, for w ranks that work
    k servers, which work as well     each (p - 1) / k times M as a server, and (k - 1) / k as a
                                      rank that works: (p + k - 2) / k
"""

from __future__ import annotations

from collections.abc import Sequence

from hpc_train.comm.cut import per_cache_line, slices

# of one server: its slice of each arena
Share = list[slice]


def cut(arenas: Sequence[tuple[int, int]], num_servers: int) -> list[Share]:
    """The slices of each server.

    Args:
        arenas: the length of each arena, and the bytes of one element of it.
        num_servers: >= 1.

    Returns:
        One slice per server and arena, shape (num_servers, num_arenas).
    """
    by_arena = [slices(length, num_servers, per_cache_line(size)) for length, size in arenas]
    return [[own[server] for own in by_arena] for server in range(num_servers)]


def num_servers(wanted: int, num_ranks: int, *, trains: bool) -> int:
    """How many servers there are: as many as wanted, if there are ranks for them, and at least 1.

    Args:
        wanted: >= 1.
        num_ranks: >= 1.
        trains: whether servers work as well; otherwise one rank is left that does.
    """
    return max(1, min(wanted, num_ranks if trains else num_ranks - 1))
