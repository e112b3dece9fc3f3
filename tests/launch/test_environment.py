"""Launchers recognised by what they set, and worlds that fell apart."""

import pytest

from hpc_train.launch.environment import Launched, separate_worlds, under_launcher

OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_VERSION": "5.0.11",
    "PMIX_RANK": "2",
}
HYDRA = {"PMI_SIZE": "3", "PMI_RANK": "1", "MPI_LOCALNRANKS": "3", "PMI_FD": "7"}
BATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}
STEP = {**BATCH, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}
SHELL = {**BATCH, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PTY_PORT": "40001"}
INTERACTIVE = {**BATCH, "SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"}


@pytest.mark.parametrize(
    ("environ", "launched"),
    [
        ({}, None),
        (BATCH, None),
        (SHELL, None),
        ({**SHELL, "PMIX_RANK": "0"}, None),
        ({**SHELL, "PMI_SIZE": "1", "PMI_RANK": "0"}, None),
        (INTERACTIVE, None),
        (OPEN_MPI, Launched("openmpi", 4, 2, "5.0.11")),
        ({**BATCH, **OPEN_MPI}, Launched("openmpi", 4, 2, "5.0.11")),
        ({**SHELL, **OPEN_MPI}, Launched("openmpi", 4, 2, "5.0.11")),
        (HYDRA, Launched("hydra", 3, 1)),
        ({**SHELL, **HYDRA}, Launched("hydra", 3, 1)),
        (STEP, Launched("srun", 4, 3)),
        ({**STEP, "PMIX_RANK": "3"}, Launched("srun", 4, 3)),
        ({**STEP, "PMI_SIZE": "4", "PMI_RANK": "3"}, Launched("srun", 4, 3)),
        ({"PMI_SIZE": "2", "PMI_RANK": "0"}, Launched("pmi", 2, 0)),
        ({"PMIX_RANK": "5"}, Launched("pmix", None, 5)),
        ({**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "many"}, Launched("openmpi", None, 2, "5.0.11")),
    ],
)
def test_launchers_are_recognised(environ, launched):
    assert under_launcher(environ) == launched


@pytest.mark.parametrize("environ", [OPEN_MPI, HYDRA, STEP])
def test_a_world_of_one_contradicts_a_launcher_of_several(environ):
    size = under_launcher(environ).size
    problem = separate_worlds(environ, 1)
    assert f"started {size} ranks" in problem.message
    assert f"hpc-train run -n {size}" in problem.hint
    assert separate_worlds(environ, size) is None
    assert problem.error().exit_code == 3


@pytest.mark.parametrize("environ", [{}, BATCH, SHELL, INTERACTIVE, {"PMIX_RANK": "0"}])
def test_one_process_alone_is_no_problem(environ):
    assert separate_worlds(environ, 1) is None


def test_a_remote_rank_of_mpirun_inside_a_batch_job_is_one_of_its_own_kind():
    # The daemon there is a step with one task; what counts is what mpirun says.
    environ = {**STEP, **OPEN_MPI, "SLURM_STEP_NUM_TASKS": "1"}
    assert separate_worlds(environ, 4) is None
    assert "started 4 ranks" in separate_worlds(environ, 1).message


def test_the_remedy_under_srun_names_the_plugin_of_the_library():
    assert "srun --mpi=pmix (" in separate_worlds(STEP, 1, "Open MPI").hint
    assert "srun --mpi=pmi2 (" in separate_worlds(STEP, 1, "MPICH").hint
    assert "Open MPI sees" in separate_worlds(STEP, 1, "Open MPI").message
    both = separate_worlds(STEP, 1).hint
    assert "--mpi=pmix for Open MPI" in both
    assert "--mpi=pmi2 for MPICH" in both
