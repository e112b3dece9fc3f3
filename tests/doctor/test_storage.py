"""File systems recognised from the kernel's table, places tried for real."""

import os

import pytest

from hpc_train.doctor.storage import human, place
from hpc_train.mounts import is_network, mount_of

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
30 22 0:40 / /scratch rw,relatime shared:7 master:2 - lustre 10.0.0.1@o2ib:/fs rw,flock
31 30 0:41 / /scratch/my\\040data rw - nfs4 server:/x rw
32 22 0:42 /sub /home rw - fuse.sshfs me@host:/ rw
33 22 0:43 / /home rw - beegfs beegfs rw
"""


@pytest.mark.parametrize(
    ("path", "point", "kind"),
    [
        ("/", "/", "ext4"),
        ("/tmp/x", "/", "ext4"),
        ("/scratch", "/scratch", "lustre"),
        ("/scratch/u/data", "/scratch", "lustre"),
        ("/scratchy", "/", "ext4"),
        ("/scratch/my data/f.h5", "/scratch/my data", "nfs4"),
        ("/home/me", "/home", "beegfs"),
    ],
)
def test_the_nearest_and_last_mount_counts(path, point, kind):
    assert mount_of(path, MOUNTS) == (point, kind)


def test_an_unreadable_table_gives_an_unknown_type():
    assert mount_of("/x", "") == ("", "unknown")
    assert mount_of("/x", "odd line\n\n") == ("", "unknown")


def test_network_file_systems():
    assert all(map(is_network, ["nfs4", "lustre", "gpfs", "fuse.sshfs", "9p"]))
    assert not any(map(is_network, ["ext4", "xfs", "tmpfs", "overlay", "fuse.squashfuse"]))


def test_a_place_that_is_not_there_yet_is_judged_by_its_parent(tmp_path):
    found = place(tmp_path / "runs" / "first")
    assert not found["exists"]
    assert found["path"] == str(tmp_path / "runs" / "first")
    assert found["write_error"] is None
    assert 0 < found["free_bytes"] <= found["total_bytes"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_a_place_too(tmp_path):
    file = tmp_path / "data.h5"
    file.write_bytes(b"x")
    found = place(file)
    assert found["exists"]
    assert found["readable"]
    assert found["write_error"] is None


def test_where_nothing_can_be_written():
    found = place("/proc/self")
    assert found["write_error"]
    assert found["type"] == "proc"


def test_relative_paths_and_links_are_resolved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink("real", "link")
    os.mkdir("real")
    assert place("link")["path"] == str(tmp_path / "real")


def test_bytes_read_well():
    assert human(0) == "0 B"
    assert human(1536) == "1.5 KiB"
    assert human(64 * 2**20) == "64.0 MiB"
    assert human(2**42) == "4.0 TiB"
