"""HDF5: its version, and the file locking that breaks on parallel file systems."""

from __future__ import annotations

import os
import re

import h5py

from hpc_train.doctor.check import OK, WARN, Check, Facts, Report, Request, differing

_UNLOCKED_SINCE = (1, 12, 1)  # from here on a file can be opened without locking it


def facts(request: Request) -> Facts:
    """Versions, and what the environment says about locking."""
    return {
        "h5py": str(h5py.version.version),
        "hdf5": str(h5py.version.hdf5_version),
        "locking": os.environ.get("HDF5_USE_FILE_LOCKING"),
    }


def checks(report: Report) -> list[Check]:
    """One version everywhere, and locks that nobody trips over."""
    found = report.of("hdf5")
    mixed = differing([fact["hdf5"] for fact in found])
    if mixed:
        hint = "use one Python environment on every node"
        return [Check("HDF5", WARN, f"versions differ ({mixed})", hint), _locking(report)]
    return [
        Check("HDF5", OK, f"{found[0]['hdf5']} (h5py {found[0]['h5py']})"),
        _locking(report),
    ]


def _locking(report: Report) -> Check:
    """hpc_train opens files unlocked; other programs that touch them may not."""
    mine = report.of("hdf5")[0]
    files = report.of("files")[0]
    spot = files["data"] or files["run_dir"]
    version = tuple(int(part) for part in re.findall(r"\d+", mine["hdf5"])[:3])
    off = (mine["locking"] or "").upper() in ("FALSE", "0", "BEST_EFFORT")
    if version < _UNLOCKED_SINCE and spot["lock_error"] and not off:
        return Check(
            "file locking",
            WARN,
            f"{spot['type']} refuses locks ({spot['lock_error']}), HDF5 {mine['hdf5']} insists",
            "export HDF5_USE_FILE_LOCKING=FALSE, or install h5py with HDF5 1.12.1 or newer",
        )
    if spot["lock_error"] and not off:
        return Check(
            "file locking",
            WARN,
            f"{spot['type']} refuses locks ({spot['lock_error']}): hpc_train takes none, "
            "other programs may fail",
            "export HDF5_USE_FILE_LOCKING=FALSE",
        )
    works = f"{spot['type']} refuses locks" if spot["lock_error"] else f"works on {spot['type']}"
    told = f", HDF5_USE_FILE_LOCKING={mine['locking']}" if mine["locking"] else ""
    return Check("file locking", OK, f"{works}{told}; hpc_train takes no locks")
