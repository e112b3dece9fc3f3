"""CPU quotas of control groups, read from files as the kernel writes them."""

import pytest

from hpc_train.quota import Quota, cpu_quota


def group(folder, **files):
    """A control group's folder with these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "own"
    file.write_text("4:cpu,cpuacct:/job/step\n3:memory:/elsewhere\n0::/slice/task\n")
    return file


def test_without_groups_there_is_no_quota(tmp_path):
    assert cpu_quota(tmp_path, tmp_path / "none") is None


def test_the_tightest_group_of_version_one_counts(tmp_path, own):
    root = tmp_path / "root"
    group(root / "cpu", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    assert cpu_quota(root, own) is None
    group(root / "cpu/job", cpu__cfs_quota_us=150000, cpu__cfs_period_us=100000)
    assert cpu_quota(root, own) == Quota(1.5, str(root / "cpu/job"), 0.1)
    group(root / "cpu/job/step", cpu__cfs_quota_us=2500, cpu__cfs_period_us=5000)
    assert cpu_quota(root, own) == Quota(0.5, str(root / "cpu/job/step"), 0.005)


def test_the_tightest_group_of_version_two_counts(tmp_path, own):
    root = tmp_path / "root"
    group(root / "slice", cpu__max="max 100000")
    assert cpu_quota(root, own) is None
    group(root, cpu__max="250000 100000")
    assert cpu_quota(root, own) == Quota(2.5, str(root))
    group(root / "slice/task", cpu__max="50000 100000")
    assert cpu_quota(root, own) == Quota(0.5, str(root / "slice/task"))


def test_files_that_cannot_be_understood_limit_nothing(tmp_path, own):
    root = tmp_path / "root"
    group(root, cpu__max="what")
    group(root / "cpu", cpu__cfs_quota_us="1", cpu__cfs_period_us="0")
    assert cpu_quota(root, own) is None
