"""Cores: what ranks may use, what they will use, and whether that is the same."""

from __future__ import annotations

import os

from hpc_train.doctor.check import OK, WARN, Check, Facts, Report, Request, listed
from hpc_train.quota import cpu_quota
from hpc_train.train.device import threads_of


def facts(request: Request) -> Facts:
    """The cores of this rank, its limit, and what OMP_NUM_THREADS says."""
    quota = cpu_quota()
    told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return {
        "cores": sorted(os.sched_getaffinity(0)),
        "machine": os.cpu_count() or 1,
        "quota": quota.cpus if quota else None,
        "omp_threads": int(told) if told.isdigit() and int(told) > 0 else None,
    }


def checks(report: Report) -> list[Check]:
    """Cores and threads, of the worst node each; a quota if there is one."""
    return [_cores(report), _threads(report), *_quota(report)]


def _cores(report: Report) -> Check:
    """A core or more for every rank, and no rank tied to one while others idle."""
    facts = report.of("cores")
    nodes = report.nodes()
    for ranks in nodes:
        free = _union(facts, ranks)
        if len(ranks) > free:
            return Check(
                "cores",
                WARN,
                f"{len(ranks)} ranks share {free} core{'s' if free > 1 else ''} "
                f"on {report.host(ranks[0])}",
                f"start at most {free} rank{'s' if free > 1 else ''} there, or ask for more cores",
            )
    tied = [
        rank
        for ranks in nodes
        for rank in ranks
        if len(facts[rank]["cores"]) == 1 and facts[rank]["machine"] > len(ranks)
    ]
    if tied:
        return Check(
            "cores",
            WARN,
            f"bound to a single core each: {listed(tied)}; prefetch threads share it",
            "mpirun --bind-to none, or srun --cpus-per-task",
        )
    counts = [_union(facts, ranks) for ranks in nodes]
    span = str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    most = max(map(len, nodes))
    return Check("cores", OK, f"{span} per node, at most {most} rank{'s' if most > 1 else ''} each")


def _threads(report: Report) -> Check:
    """No more torch threads than cores."""
    facts = report.of("cores")
    cores = [fact["cores"] for fact in facts]
    threads = [
        facts[rank]["omp_threads"] or threads_of(rank, ranks, cores)
        for ranks in report.nodes()
        for rank in ranks
    ]
    by_rank = dict(zip((rank for ranks in report.nodes() for rank in ranks), threads, strict=True))
    for ranks in report.nodes():
        used, free = sum(by_rank[rank] for rank in ranks), _union(facts, ranks)
        told = any(facts[rank]["omp_threads"] for rank in ranks)
        if told and used > max(free, len(ranks)):
            fair = max(1, free // len(ranks))
            text = f"{used} threads on {free} cores of {report.host(ranks[0])}: ruinous"
            return Check("torch threads", WARN, text, f"export OMP_NUM_THREADS={fair}, or unset it")
    span = str(min(threads)) if min(threads) == max(threads) else f"{min(threads)}-{max(threads)}"
    told_by = "OMP_NUM_THREADS" if facts[0]["omp_threads"] else "a rank's part of the cores"
    return Check("torch threads", OK, f"{span} per rank ({told_by})")


def _quota(report: Report) -> list[Check]:
    """A container's limit below the cores it shows."""
    for ranks in report.nodes():
        facts = report.of("cores")
        quota, free = facts[ranks[0]]["quota"], _union(facts, ranks)
        if quota is not None and quota < free - 0.01:
            text = f"{free} cores, but the time of {quota:g} only, on {report.host(ranks[0])}"
            each = max(1, int(quota) // len(ranks))
            return [Check("CPU quota", WARN, text, f"set device.threads={each}, or lift the quota")]
    return []


def _union(facts: list[Facts], ranks: list[int]) -> int:
    """How many cores the ranks may use together."""
    return len({core for rank in ranks for core in facts[rank]["cores"]})
