"""Launchers identified, chosen and called."""

import pytest

from hpc_train.errors import SetupError
from hpc_train.launch.library import Probe, parse_answer
from hpc_train.launch.machine import Machine, allocated_slots, physical_cores
from hpc_train.launch.mpirun import (
    Launcher,
    can_lose_ranks,
    choose,
    command,
    find,
    fitting,
    identify,
    session,
)

OPEN_MPI = {"vendor": "Open MPI", "vendor_version": "5.0.11", "path": "/env/lib/libmpi.so.40"}
MPICH = {"vendor": "MPICH", "vendor_version": "4.1.2", "path": "/opt/mpich/lib/libmpi.so.12"}
SITE4 = Launcher("/usr/bin/mpirun", "Open MPI", (4, 1, 4))
SITE5 = Launcher("/opt/ompi/bin/mpirun", "Open MPI", (5, 0, 11))
WHEEL = Launcher("/env/bin/mpirun", "Open MPI", (5, 0, 11), wheel=True)
HYDRA = Launcher("/opt/mpich4/bin/mpiexec", "MPICH", (4, 1, 2))
INTEL = Launcher("/opt/intel/bin/mpirun", "Intel MPI", (2021, 8))
QUIET = Machine(slots=4, is_root=False, fast_network=True)


@pytest.mark.parametrize(
    ("text", "vendor", "version"),
    [
        ("mpirun (Open MPI) 5.0.11\n\nReport bugs to ...", "Open MPI", (5, 0, 11)),
        ("mpirun (Open MPI) 4.1.8\n", "Open MPI", (4, 1, 8)),
        ("HYDRA build details:\n    Version:                5.0.2\n", "MPICH", (5, 0, 2)),
        (
            "Intel(R) MPI Library for Linux* OS, Version 2021.8 Build 20221129 (id: 339ec755a1)\n",
            "Intel MPI",
            (2021, 8),
        ),
        ("mpiexec version 1.2.12 revision bd0a7d8\n", "unknown", ()),
        ("", "unknown", ()),
    ],
)
def test_launchers_say_what_they_are(text, vendor, version):
    launcher = identify("/x/bin/mpirun", text)
    assert (launcher.vendor, launcher.version) == (vendor, version)


def test_the_launcher_of_the_library_is_chosen_before_the_first_on_the_path():
    assert choose([HYDRA, SITE4, SITE5, WHEEL], OPEN_MPI) == WHEEL
    assert choose([HYDRA, SITE4, SITE5], OPEN_MPI) == SITE5
    assert choose([WHEEL, HYDRA], MPICH) == HYDRA


def test_another_vendor_or_major_version_does_not_fit():
    assert choose([HYDRA, SITE4], OPEN_MPI) is None
    assert choose([WHEEL], MPICH) is None


def test_descendants_of_mpich_fit_each_other_if_there_is_nothing_better():
    assert choose([INTEL], MPICH) == INTEL
    assert choose([INTEL, HYDRA], MPICH) == HYDRA


def test_what_does_not_fit_is_named_with_the_remedy():
    with pytest.raises(SetupError) as caught:
        fitting([HYDRA, SITE4], Probe(OPEN_MPI))
    assert "/opt/mpich4/bin/mpiexec (MPICH 4.1.2)" in caught.value.message
    assert "Open MPI 5.0.11 (/env/lib/libmpi.so.40)" in caught.value.message
    with pytest.raises(SetupError, match="no MPI launcher is on the PATH") as caught:
        fitting([], Probe(OPEN_MPI))
    assert "pip install 'hpc-train[mpi]'" in caught.value.hint
    assert "module load openmpi" in caught.value.hint


def test_without_a_library_there_is_nothing_to_launch(tmp_path):
    with pytest.raises(SetupError, match="no MPI library can be loaded") as caught:
        find({"MPI4PY_LIBMPI": str(tmp_path / "none.so"), "PATH": ""})
    assert "pip install" in caught.value.hint


def test_open_mpi_is_told_what_it_would_refuse_or_spoil():
    argv, extra = command(SITE5, ["prog", "-x"], ranks=4, machine=QUIET)
    assert argv == ["/opt/ompi/bin/mpirun", "-n", "4", "--bind-to", "none", "prog", "-x"]
    assert extra == {}
    argv, _ = command(SITE4, ["prog"], ranks=5, machine=Machine(4, True, True), forward=["A", "B"])
    assert argv[3:] == [
        *("--bind-to", "none", "--oversubscribe", "--allow-run-as-root"),
        *("-x", "A", "-x", "B", "prog"),
    ]


@pytest.mark.parametrize(
    ("launcher", "fast", "quiet"),
    [(WHEEL, False, True), (WHEEL, True, False), (SITE5, False, False)],
)
def test_only_the_wheel_without_a_network_skips_the_search_for_one(launcher, fast, quiet):
    _, extra = command(launcher, ["prog"], ranks=2, machine=Machine(4, False, fast))
    assert (extra.get("OMPI_MCA_pml") == "ob1") == quiet


def test_hydra_needs_no_permission():
    root = Machine(slots=1, is_root=True, fast_network=False)
    argv, extra = command(HYDRA, ["prog"], ranks=8, machine=root, forward=["A"])
    assert argv == ["/opt/mpich4/bin/mpiexec", "-n", "8", "-bind-to", "none", "prog"]
    assert extra == {}
    argv, extra = command(INTEL, ["prog"], ranks=8, machine=root)
    assert argv == ["/opt/intel/bin/mpirun", "-n", "8", "prog"]
    assert extra == {"I_MPI_PIN": "off"}


def test_losing_ranks_is_asked_for_where_the_mpi_was_built_for_it(tmp_path):
    argv, _ = command(SITE5, ["prog"], ranks=2, machine=QUIET, fault_tolerant=True)
    assert argv[3:5] == ["--with-ft", "ulfm"]
    info = tmp_path / "ompi_info"
    here = Launcher(str(tmp_path / "mpirun"), "Open MPI", (5, 0, 11))
    assert not can_lose_ranks(here, {})  # no ompi_info
    for told, able in (("FT MPI support: yes", True), ("FT MPI support: no", False)):
        info.write_text(f"#!/bin/sh\necho '{told}'\n")
        info.chmod(0o755)
        assert can_lose_ranks(here, {}) == able
    assert not can_lose_ranks(Launcher(here.path, "Open MPI", (4, 1, 4)), {})
    assert not can_lose_ranks(Launcher(here.path, "MPICH", (5, 0)), {})


@pytest.mark.parametrize(
    ("environ", "slots"),
    [
        ({}, None),
        ({"SLURM_TASKS_PER_NODE": "4"}, None),
        ({"SLURM_JOB_ID": "1", "SLURM_TASKS_PER_NODE": "4(x2),3"}, 11),
        ({"SLURM_JOB_ID": "1", "SLURM_TASKS_PER_NODE": "2"}, 2),
        ({"SLURM_JOB_ID": "1", "SLURM_TASKS_PER_NODE": "odd"}, None),
        ({"PBS_NODEFILE": "/no/such/file"}, None),
    ],
)
def test_slots_of_a_batch_job(environ, slots):
    assert allocated_slots(environ) == slots


def test_hardware_threads_of_one_core_count_once(tmp_path):
    for cpu, siblings in ((0, "0,2"), (1, "1,3"), (2, "0,2"), (3, "1,3")):
        folder = tmp_path / f"cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert physical_cores({0, 1, 2, 3}, tmp_path) == 2
    assert physical_cores({0, 2}, tmp_path) == 1
    assert physical_cores({7, 8}, tmp_path) == 2


def test_the_probe_tells_a_missing_library_from_a_deadly_one():
    assert parse_answer(0, 'noise\n{"vendor": "MPICH"}\n', "", start=False).facts == {
        "vendor": "MPICH"
    }
    missing = parse_answer(1, '{"error": "cannot load MPI library"}\n', "", start=False)
    assert missing == Probe(None, "cannot load MPI library", missing=True)
    killed = parse_answer(-9, "", "", start=True)
    assert killed == Probe(None, "it does not start (signal 9)")
    failed = parse_answer(1, "", "first\nPMI server not found\n\n", start=True)
    assert failed == Probe(None, "it does not start (exit code 1: PMI server not found)")


def test_a_launcher_has_a_folder_of_its_own_while_it_runs(tmp_path):
    with session(SITE5, {"TMPDIR": str(tmp_path), "HOME": str(tmp_path / "none")}) as extra:
        (folder,) = tmp_path.iterdir()
        assert extra == {"PRTE_MCA_prte_local_tmpdir_base": str(folder)}
        (folder / "ompi.7").mkdir()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("launcher", "environ"),
    [
        (SITE4, {}),
        (HYDRA, {}),
        (SITE5, {"PRTE_MCA_prte_tmpdir_base": "/local"}),
        (SITE5, {"PRTE_MCA_prte_local_tmpdir_base": "/local"}),
        (SITE5, {"TMPDIR": "/nowhere"}),
    ],
)
def test_no_folder_where_none_is_needed_or_possible(launcher, environ):
    with session(launcher, environ) as extra:
        assert extra == {}


@pytest.mark.parametrize("file", ["site/etc/prte-mca-params.conf", "home/.prte/mca-params.conf"])
def test_a_place_that_a_file_names_is_left_alone(file, tmp_path):
    launcher = Launcher(str(tmp_path / "site/bin/mpirun"), "Open MPI", (5, 0, 11))
    environ = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    place = tmp_path / file
    place.parent.mkdir(parents=True)
    place.write_text("# prte_tmpdir_base = /not\n")
    with session(launcher, environ) as extra:
        assert extra
    place.write_text("prte_tmpdir_base = /local\n")
    with session(launcher, environ) as extra:
        assert extra == {}
