"""Checks of this machine or job: facts from every rank, judged by pure functions.

A subject is a file with two functions: `facts(request)`, asked of every rank, and
`checks(report)`, which judges what all of them answered.
"""

from __future__ import annotations

from hpc_train.doctor import collectives, cores, files, gpus, hdf5, mpi, ranks, scratch, software
from hpc_train.doctor.check import FAIL, OK, WARN, Check, Facts, Report, Request, Subject
from hpc_train.world import Group, World

__all__ = ["FAIL", "OK", "SUBJECTS", "WARN", "Check", "Report", "Request", "examine", "gather"]

SUBJECTS: dict[str, Subject] = {
    "mpi": Subject(mpi.facts, mpi.checks),
    "ranks": Subject(ranks.facts, ranks.checks),
    "cores": Subject(cores.facts, cores.checks),
    "collectives": Subject(collectives.facts, collectives.checks),
    "gpus": Subject(gpus.facts, gpus.checks),
    "scratch": Subject(scratch.facts, scratch.checks),
    "files": Subject(files.facts, files.checks),
    "hdf5": Subject(hdf5.facts, hdf5.checks),
    "software": Subject(software.facts, software.checks),
}


def gather(request: Request, group: Group | None) -> Report:
    """The facts of every rank, on every rank; of this process alone without a group."""
    mine: Facts = {name: subject.facts(request) for name, subject in SUBJECTS.items()}
    if group is None:
        return Report(World.from_hosts(["here"], 0), (mine,))
    return Report(group.world, tuple(group.gather(mine)))


def examine(report: Report) -> list[Check]:
    """Every check of every subject, in their order."""
    return [check for subject in SUBJECTS.values() for check in subject.checks(report)]
