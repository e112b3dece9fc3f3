"""Which nodes of an allocation are left, and what that means for the ranks."""

import os
import stat

from hpc_train.launch.machine import Machine
from hpc_train.launch.mpirun import Launcher, command
from hpc_train.launch.slurm.nodes import Place, allocated, find_place, place

TASKS = {"n1": 2, "n2": 2, "n3": 1}


def test_nodes_that_do_not_answer_are_left_out():
    assert place(5, TASKS, TASKS) == Place(5)
    assert place(5, TASKS, ["n3", "n1"]) == Place(3, {"n1": 2, "n3": 1}, ("n2",))
    assert place(2, TASKS, ["n1", "n3"]).ranks == 2
    assert place(5, TASKS, []) == Place(5)  # asking itself has failed
    assert place(5, {}, []) == Place(5)


def test_launchers_are_told_the_nodes_that_may_be_used():
    machine = Machine(slots=5, is_root=False, fast_network=True)
    hosts = {"n1": 2, "n3": 1}
    for vendor, option in (("Open MPI", "--host"), ("MPICH", "-hosts")):
        argv, _ = command(Launcher("mpirun", vendor), ["x"], ranks=3, machine=machine, hosts=hosts)
        assert argv[:5] == ["mpirun", "-n", "3", option, "n1:2,n3:1"]
        argv, _ = command(Launcher("mpirun", vendor), ["x"], ranks=3, machine=machine)
        assert option not in argv


def environ_of(folder, **programs):
    for name, body in programs.items():
        path = folder / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "n[1-3]",
        "SLURM_TASKS_PER_NODE": "2(x2),1",
    }


def test_every_node_of_the_allocation_is_asked(tmp_path, monkeypatch):
    environ = environ_of(
        tmp_path,
        scontrol='[ "$*" = "show hostnames n[1-3]" ] && printf "n1\\nn2\\nn3\\n"',
        srun='[[ "$*" != *--nodelist=n2* ]]',
    )
    monkeypatch.setenv("PATH", environ["PATH"])
    assert allocated(environ) == TASKS
    assert find_place(5, environ) == Place(3, {"n1": 2, "n3": 1}, ("n2",))


def test_outside_slurm_nobody_is_asked():
    assert allocated({}) == {}
    assert find_place(4, {"PATH": ""}) == Place(4)
    assert allocated({"SLURM_JOB_ID": "7", "SLURM_TASKS_PER_NODE": "many"}) == {}
