"""Stories on a real Slurm, where there can be one; they skip with the reason where not."""

import subprocess
import sys

import pytest

from tests.jobs.conftest import CONFIG, blobs  # noqa: F401
from tests.jobs.processes import hpc_train
from tests.slurm.cluster import Cluster, NoClusterError
from tests.slurm.runs import Runs

# whether this machine's MPI reaches from one virtual node to another is no matter of ours
_PROBE = """\
#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --time=2 --output={folder}/probe
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
program=({python} -c "from mpi4py import MPI; print('size', MPI.COMM_WORLD.allreduce(1))")
timeout 25 mpirun -n 2 "${{program[@]}}" | sed 's/^/mpirun /'
timeout 25 srun --mpi=pmix "${{program[@]}}" | sed 's/^/srun-pmix /'
"""


@pytest.fixture(scope="session")
def launchers():
    """The launchers whose ranks reach from node to node here; skips if there can be no cluster."""
    try:
        with Cluster() as cluster:
            found = probe(cluster)
    except NoClusterError as error:
        pytest.skip(f"no Slurm here: {error}")
    return found


def probe(cluster):
    """Run a job of two nodes with each launcher."""
    script = cluster.folder / "probe.sbatch"
    script.write_text(_PROBE.format(folder=cluster.folder, python=sys.executable))
    try:
        cluster.call("sbatch", "--wait", str(script), seconds=90)
        said = (cluster.folder / "probe").read_text()
    except (OSError, subprocess.SubprocessError) as error:
        raise NoClusterError(f"a job of two nodes fails: {error}\n{cluster.logs()}") from error
    found = {name for name in ("mpirun", "srun-pmix") if said.count(f"{name} size 2") == 2}
    if not found:
        raise NoClusterError(f"MPI does not reach from node to node here:\n{said}")
    return found


@pytest.fixture
def cluster(launchers):
    """A new cluster of three nodes of two cores."""
    try:
        with Cluster() as cluster:
            yield cluster
    except NoClusterError as error:
        pytest.skip(f"no Slurm here: {error}")


@pytest.fixture
def runs(cluster, tmp_path, blobs):  # noqa: F811
    """Submits runs to it, from the test's own folder."""
    return Runs(cluster, tmp_path, CONFIG.format(train=blobs))


@pytest.fixture(scope="session")
def calm(tmp_path_factory, blobs):  # noqa: F811
    """An undisturbed run, on one rank and without Slurm."""
    folder = tmp_path_factory.mktemp("calm")
    (folder / "story.toml").write_text(CONFIG.format(train=blobs))
    ended = hpc_train("run", "story.toml", "run.dir=calm", *Runs.COMMON, cwd=folder, seconds=240)
    assert ended.code == 0, ended
    return folder / "calm"
