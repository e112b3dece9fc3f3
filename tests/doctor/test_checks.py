"""Checks as pure functions of what ranks told."""

import copy

import pytest

from hpc_train.doctor import FAIL, OK, SUBJECTS, WARN, Report, examine
from hpc_train.doctor.check import differing, listed
from hpc_train.world import World

MIB = 2**20
LIBRARY = {
    "vendor": "Open MPI",
    "vendor_version": "5.0.11",
    "library_version": "Open MPI v5.0.11",
    "standard": "3.1",
    "path": "/env/lib/libmpi.so.40",
    "thread_level": "multiple",
    "ulfm": True,
    "ulfm_started": False,
    "gpu_aware": [],
}
LAUNCHED = {"kind": "openmpi", "size": 4, "rank": 0, "version": "5.0.11"}
PLACE = {
    "path": "/scratch/x",
    "exists": True,
    "readable": True,
    "mount": "/scratch",
    "type": "lustre",
    "free_bytes": 10**12,
    "total_bytes": 10**13,
    "write_error": None,
    "lock_error": None,
}
LOCAL = {**PLACE, "type": "tmpfs", "path": "/dev/shm"}


def rank_facts(rank, host):
    """What a rank on a healthy node tells: four cores, of which two are its own."""
    return {
        "mpi": {"library": dict(LIBRARY), "problem": None, "missing": False, "launched": LAUNCHED},
        "ranks": {
            "host": host,
            "launched": LAUNCHED,
            "environ": {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": str(rank)},
            "is_root": False,
            "root_allowed": False,
        },
        "cores": {"cores": [0, 1, 2, 3], "machine": 4, "quota": None, "omp_threads": None},
        "collectives": {"file": "/home/x/.cache/hpc_train/collectives.json", "jobs": []},
        "gpus": {"gpus": [], "names": [], "driver": 0, "torch_cuda": None},
        "scratch": {"shared": dict(LOCAL), "scratch": dict(PLACE)},
        "files": {"data": dict(PLACE), "run_dir": dict(PLACE)},
        "hdf5": {"h5py": "3.16.0", "hdf5": "2.0.0", "locking": None},
        "software": {
            "python": "3.12.1",
            "executable": "/env/bin/python",
            "torch": "2.13.0",
            "torch_build": "CPU",
            "packages": {"hpc-train": "0.1.0", "numpy": "2.4.6"},
        },
    }


def make(change=None, hosts=("a", "a", "a", "b")):
    """A job on the hosts, after `change(facts of all ranks)`."""
    facts = [copy.deepcopy(rank_facts(rank, host)) for rank, host in enumerate(hosts)]
    if change:
        change(facts)
    return Report(World.from_hosts(hosts, 0), tuple(facts))


def setting(subject, ranks=range(4), **values):
    """A change: these values for a subject on some ranks."""

    def change(facts):
        for rank in ranks:
            facts[rank][subject].update(values)

    return change


def found(report, name):
    return next(check for check in examine(report) if check.name == name)


def test_a_healthy_uneven_job_is_all_right():
    checks = examine(make())
    assert {check.status for check in checks} == {OK}
    assert all(check.hint is None for check in checks)
    assert found(make(), "ranks").text == "4 ranks on 2 nodes (3 on a, 1 on b)"


@pytest.mark.parametrize("hosts", [[f"n{r // 7}" for r in range(1000)], ["a"]])
def test_any_number_of_ranks(hosts):
    def change(facts):
        for fact in facts:
            fact["cores"]["cores"] = list(range(8))
            fact["ranks"]["launched"] = fact["mpi"]["launched"] = {**LAUNCHED, "size": len(hosts)}
            fact["ranks"]["environ"]["OMPI_COMM_WORLD_SIZE"] = str(len(hosts))

    assert {check.status for check in examine(make(change, hosts))} == {OK}


GPU_JOB = {"gpus": ["u0", "u1", "u2"], "names": ["H200"] * 3, "driver": 3, "torch_cuda": "12.8"}

PROBLEMS = [
    # name, status, part of the text, part of the hint, change
    ("MPI library", FAIL, "Open MPI 4.1.8 on rank 3", "modules",
     lambda f: f[3]["mpi"]["library"].update(vendor_version="4.1.8")),
    ("MPI threads", WARN, "serialized", "thread support",
     lambda f: f[0]["mpi"]["library"].update(thread_level="serialized")),
    ("MPI launcher", FAIL, "library: MPICH", "mpirun of MPICH",
     lambda f: [x["mpi"]["library"].update(vendor="MPICH") for x in f]),
    ("MPI launcher", WARN, "library: 5.0.11", "installation",
     setting("mpi", launched={**LAUNCHED, "version": "4.1.4"})),
    ("MPI and GPUs", WARN, "does not send", "GPU-aware", setting("gpus", **GPU_JOB)),
    ("cores", WARN, "3 ranks share 2 cores on a", "at most 2 ranks",
     setting("cores", range(3), cores=[0, 1])),
    ("cores", WARN, "single core each: rank 3", "--bind-to none", setting("cores", [3], cores=[2])),
    ("torch threads", WARN, "12 threads on 4 cores of a", "OMP_NUM_THREADS=1",
     setting("cores", range(3), omp_threads=4)),
    ("CPU quota", WARN, "time of 1.5 only, on b", "device.threads=1",
     setting("cores", [3], quota=1.5)),
    ("GPUs", WARN, "rank 3 of 4 see none", "--gpus-per-node",
     setting("gpus", range(3), **GPU_JOB)),
    ("GPUs", WARN, "1 of them used by more", "as many ranks",
     setting("gpus", gpus=["u0"], names=["H200"])),
    ("GPUs", WARN, "the driver knows 2", "install one for CUDA", setting("gpus", driver=2)),
    ("/dev/shm", WARN, "64.0 MiB free on a, 96.0 MiB are wise", "--shm-size",
     setting("scratch", range(3), shared={**LOCAL, "free_bytes": 64 * MIB})),
    ("/dev/shm", WARN, "none on b", "--shm-size", setting("scratch", [3], shared=None)),
    ("/dev/shm", FAIL, "cannot be written on a", "--shm-size",
     setting("scratch", [0], shared={**LOCAL, "write_error": "Permission denied"})),
    ("scratch", WARN, "1.0 MiB free", "TMPDIR",
     setting("scratch", [3], scratch={**PLACE, "free_bytes": MIB})),
    ("scratch", FAIL, "on b: Read-only", "TMPDIR",
     setting("scratch", [3], scratch={**PLACE, "write_error": "Read-only file system"})),
    ("data", FAIL, "/scratch/x does not exist", "path of a data set",
     setting("files", data={**PLACE, "exists": False})),
    ("data", FAIL, "not there for rank 3 (b)", "all nodes share",
     setting("files", [3], data={**PLACE, "exists": False})),
    ("data", FAIL, "cannot be read by rank 2", "chmod",
     setting("files", [2], data={**PLACE, "readable": False})),
    ("run directory", FAIL, "rank 3 (b): No space", "run.dir=",
     setting("files", [3], run_dir={**PLACE, "write_error": "No space left"})),
    ("run directory", WARN, "ext4, each node has its own", "shared",
     setting("files", run_dir={**PLACE, "type": "ext4"})),
    ("run directory", WARN, "1.0 MiB free", "may not fit",
     setting("files", [1], run_dir={**PLACE, "free_bytes": MIB})),
    ("HDF5", WARN, "1.14.6 on rank 3", "environment", setting("hdf5", [3], hdf5="1.14.6")),
    ("file locking", WARN, "lustre refuses locks", "HDF5_USE_FILE_LOCKING=FALSE",
     setting("files", data={**PLACE, "lock_error": "Function not implemented"})),
    ("Python", WARN, "3.11.7 on rank 1", "environment", setting("software", [1], python="3.11.7")),
    ("torch", WARN, "2.6.0 for CPU on rank 1", "environment",
     setting("software", [1], torch="2.6.0")),
    ("packages", FAIL, "hpc-train differs", "environment",
     setting("software", [1], packages={"hpc-train": "0.0.9", "numpy": "2.4.6"})),
    ("packages", WARN, "numpy differs", "environment",
     setting("software", [1], packages={"hpc-train": "0.1.0", "numpy": "2.0.0"})),
]  # fmt: skip


@pytest.mark.parametrize(("name", "status", "text", "hint", "change"), PROBLEMS)
def test_every_problem_is_found_and_has_its_remedy(name, status, text, hint, change):
    check = found(make(change), name)
    assert check.status == status
    assert text in check.text
    assert hint in check.hint


def test_an_old_hdf5_insists_on_locks():
    def change(facts):
        setting("hdf5", hdf5="1.10.8")(facts)
        setting("files", data={**PLACE, "lock_error": "No locks available"})(facts)

    assert "HDF5 1.10.8 insists" in found(make(change), "file locking").text


def test_switched_off_locks_are_no_problem():
    def change(facts):
        setting("hdf5", locking="FALSE")(facts)
        setting("files", data={**PLACE, "lock_error": "No locks available"})(facts)

    assert found(make(change), "file locking").status == OK


def test_one_gpu_per_rank_and_gpu_memory():
    def change(facts):
        setting("gpus", range(3), **GPU_JOB)(facts)
        setting("gpus", [3], **{**GPU_JOB, "gpus": ["u7"], "names": ["H200"]})(facts)
        facts[0]["mpi"]["library"]["gpu_aware"] = ["cuda"]

    assert found(make(change), "GPUs").text == "one per rank (H200)"
    assert found(make(change), "MPI and GPUs").status == OK


def test_separate_worlds_are_recognised():
    check = found(make(hosts=["a"]), "one world")
    assert check.status == FAIL
    assert "started 4 ranks, and Open MPI sees a world of size 1" in check.text
    assert "hpc-train run -n 4" in check.hint


def alone(**values):
    """A single process, whose MPI was tried in a child."""

    def change(facts):
        launcher = {"name": "/env/bin/mpirun (Open MPI 5.0.11)"}
        told = {"launched": None, "first": launcher, "first_fits": True, "chosen": launcher}
        facts[0]["mpi"].update({**told, "launcher_problem": [], **values})
        facts[0]["ranks"].update(launched=None, environ={})

    return make(change, hosts=["a"])


def test_a_machine_without_ranks():
    assert {check.status for check in examine(alone())} == {OK}
    assert found(alone(), "MPI launcher").text == "/env/bin/mpirun (Open MPI 5.0.11)"
    assert "without a launcher" in found(alone(), "one world").text


def test_a_machine_without_mpi():
    check = found(alone(library=None, missing=True, problem="cannot load"), "MPI library")
    assert (check.status, check.text) == (FAIL, "none can be loaded: cannot load")
    assert "pip install 'hpc-train[mpi]'" in check.hint


def test_a_login_node_that_forbids_mpi():
    check = found(alone(library=None, problem="it does not start (signal 9)"), "MPI library")
    assert check.status == WARN
    assert "compute node" in check.hint


def test_launchers_that_do_not_fit():
    check = found(alone(chosen=None, launcher_problem=["none fits", "load it"]), "MPI launcher")
    assert (check.status, check.text, check.hint) == (FAIL, "none fits", "load it")
    other = {"name": "/usr/bin/mpirun (MPICH 4.1)"}
    check = found(alone(first=other, first_fits=False), "MPI launcher")
    assert check.status == WARN
    assert "/usr/bin/mpirun (MPICH 4.1)" in check.text
    assert "/env/bin/mpirun" in check.hint


def test_root_is_told_about_mpirun():
    report = alone()
    report.ranks[0]["ranks"]["is_root"] = True
    assert "OMPI_ALLOW_RUN_AS_ROOT=1" in found(report, "user").hint
    report.ranks[0]["ranks"]["root_allowed"] = True
    assert "user" not in [check.name for check in examine(report)]


def test_ranks_in_words():
    assert listed([2]) == "rank 2"
    assert listed([0, 1]) == "ranks 0, 1"
    assert listed(range(1000)) == "ranks 0, 1, 2, 3, 4, 5, ..."
    assert differing(["a", "a"]) is None
    assert differing(["a", "b", "a"]) == "a on ranks 0, 2; b on rank 1"


def test_what_auto_chose_in_the_newest_job_is_told():
    choices = [
        [2**26, "float32", True, "shared", "1 ms", ""],
        [65536, "float32", False, "ring", "", ""],
    ]
    job = {"ranks": 4, "day": "2026-11-28", "choices": choices}
    report = make()
    assert found(report, "collective").text == "auto: measured when the first job starts here"
    report.ranks[0]["collectives"]["jobs"] += [{**job, "ranks": 2}, job]
    assert found(report, "collective").text == (
        "auto on 4 ranks (2026-11-28): ring up to 0.0625 MiB of float32, shared up to 64 MiB of "
        "float32 in shared memory; remove /home/x/.cache/hpc_train/collectives.json to forget"
    )


def test_subjects_are_the_keys_of_facts():
    assert set(SUBJECTS) == set(rank_facts(0, "a"))
