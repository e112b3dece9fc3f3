"""Data and runs: where they lie, who sees them, who may write."""

from __future__ import annotations

from pathlib import Path

from hpc_train.doctor.check import FAIL, OK, WARN, Check, Facts, Report, Request, listed
from hpc_train.doctor.storage import human, place
from hpc_train.mounts import is_network

_RUN_BYTES = 2**30


def facts(request: Request) -> Facts:
    """The places of data (None if none is asked for) and runs."""
    return {
        "data": place(Path(request.data)) if request.data is not None else None,
        "run_dir": place(Path(request.run_dir)),
    }


def checks(report: Report) -> list[Check]:
    """Data that every rank can read, and runs that every node can write."""
    data = [_data(report)] if report.of("files")[0]["data"] is not None else []
    return [*data, _run_dir(report)]


def _data(report: Report) -> Check:
    """Every rank sees the data and may read them."""
    places = [fact["data"] for fact in report.of("files")]
    path = places[0]["path"]
    blind = [rank for rank, found in enumerate(places) if not found["exists"]]
    if len(blind) == len(places):
        return Check("data", FAIL, f"{path} does not exist", "give the path of a data set or file")
    if blind:
        text = f"{path} is not there for {_where(report, blind)}"
        return Check("data", FAIL, text, "put it on a file system that all nodes share")
    barred = [rank for rank, found in enumerate(places) if not found["readable"]]
    if barred:
        text = f"{path} cannot be read by {_where(report, barred)}"
        return Check("data", FAIL, text, f"chmod -R u+rX {path}")
    return Check("data", OK, f"{path} on {_kind(places[0])}")


def _run_dir(report: Report) -> Check:
    """Every node can write there, into the same file system, with space to spare."""
    places = [fact["run_dir"] for fact in report.of("files")]
    path = places[0]["path"]
    elsewhere = "choose another with run.dir=PATH"
    barred = [rank for rank, found in enumerate(places) if found["write_error"]]
    if barred:
        reason = places[barred[0]]["write_error"]
        text = f"{path} cannot be written by {_where(report, barred)}: {reason}"
        return Check("run directory", FAIL, text, elsewhere)
    if report.world.num_nodes > 1 and not is_network(places[0]["type"]):
        text = f"{path} is on {_kind(places[0])}, each node has its own"
        return Check("run directory", WARN, text, f"runs belong on a shared one: {elsewhere}")
    free = min(int(found["free_bytes"]) for found in places)
    text = f"{path} on {_kind(places[0])}, {human(free)} free"
    if free < _RUN_BYTES:
        return Check("run directory", WARN, text, f"checkpoints may not fit: {elsewhere}")
    return Check("run directory", OK, text)


def _kind(found: Facts) -> str:
    """The type of a file system, in words."""
    kind = str(found["type"])
    return f"{kind} (network)" if is_network(kind) else kind


def _where(report: Report, ranks: list[int]) -> str:
    """Ranks in words, with the host of the first, where there are several ranks."""
    if report.world.size == 1:
        return "this process"
    return f"{listed(ranks)} ({report.host(ranks[0])})"
