"""How gradients are summed: what `comm.collective = "auto"` chose on this host before."""

from __future__ import annotations

import socket

from hpc_train.comm import remembered
from hpc_train.doctor.check import OK, Check, Facts, Report, Request


def facts(request: Request) -> Facts:
    """What is remembered of jobs with ranks on this host, the newest last."""
    host = socket.gethostname()
    mine = [one for one in remembered.known().values() if host in one.get("hosts", [])]
    return {"file": str(remembered.path()), "jobs": mine}


def checks(report: Report) -> list[Check]:
    """What was chosen in the newest job."""
    found = report.of("collectives")[0]
    if not found["jobs"]:
        return [Check("collective", OK, "auto: measured when the first job starts here")]
    job = found["jobs"][-1]
    told = ", ".join(
        f"{name} up to {size / 2**20:g} MiB of {dtype}{' in shared memory' * lent}"
        for size, dtype, lent, name, *_ in sorted(job["choices"])
    )
    text = f"auto on {job['ranks']} ranks ({job['day']}): {told}; remove {found['file']} to forget"
    return [Check("collective", OK, text)]
