"""The data commands, as a user types them."""

import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from hpc_train.cli import _main
from hpc_train.cli.progress import Bar
from tests.data.samples import Layout, everything, flip, write, write_h5


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs `hpc-train data ...` in a folder of its own; gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = _main(["data", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def table(tmp_path):
    (tmp_path / "t.csv").write_text(
        "a,kind\n" + "".join(f"{i},{'xyz'[i % 3]}\n" for i in range(30))
    )
    return tmp_path / "t.csv"


def test_import_inspect_verify_split(run, table):
    code, out, err = run("import", table, "set", "--target", "kind", "--licence", "CC0")
    assert (code, err) == (0, "")
    assert out.startswith("wrote set: 30 samples in 1 shard, ")
    code, out, _ = run("inspect", "set")
    assert code == 0
    for text in ("samples    30", "licence    CC0", "x  10  33.3%", "reading will be fast"):
        assert text in out
    code, out, _ = run("verify", "set")
    assert code == 0
    assert "set: good: every checksum matches (1 shard, 2 chunks" in out
    code, out, _ = run("split", "set", "parts", "--train", "0.8", "--test", "0.2")
    assert code == 0
    assert "wrote parts/train: 24 samples" in out
    assert sorted(os.listdir("parts")) == ["test", "train"]


def test_a_dry_run_writes_nothing(run, table, tmp_path):
    code, out, _ = run("import", table, "set", "--dry-run", "--target", "kind")
    assert code == 0
    for text in ("would write set", "samples  30", "shards   1 of at most 30", "features  float32"):
        assert text in out
    write(tmp_path / "there")
    before = sorted(os.listdir(tmp_path))
    code, out, _ = run("split", "there", "parts", "--dry-run")
    assert code == 0
    assert "would write parts/validation\nsamples  5\n" in out
    assert sorted(os.listdir(tmp_path)) == before


def test_damage_is_named_and_the_exit_code_is_1(run, tmp_path):
    write(tmp_path / "set", 50, Layout(8, 20))
    shard = tmp_path / "set" / "shard-00001.h5"
    flip(shard, shard.read_bytes().index(bytes(range(120, 160))))
    code, out, _ = run("verify", "set")
    assert code == 1
    assert "shard-00001.h5, image, chunk 0 (rows 0..7): checksum does not match" in out
    assert "damaged: 1 of 3 shards" in out
    code, out, _ = run("verify", "set", "--json")
    document = json.loads(out)
    assert code == 1
    assert (document["schema_version"], document["is_good"]) == (1, False)
    assert document["damages"][0]["rows"] == [0, 8]


def test_json_of_inspect(run, tmp_path):
    write(tmp_path / "set", 50)
    code, out, _ = run("inspect", "set", "--json")
    document = json.loads(out)
    assert (code, document["num_samples"], document["is_fast"]) == (0, 50, True)
    assert document["fields"]["label"]["balance"] == {"a": 17, "b": 17, "c": 16}


def test_inspect_tells_what_shuffling_costs(run, tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=np.zeros((320, 8), "f4"), chunks=(10, 8))
    code, out, _ = run("inspect", "a.h5", "--batch-size", "24", "--ranks", "3")
    assert code == 0
    assert "shuffle window of 32 blocks of 10 rows: 320 samples, 10.0 KiB" in out
    told = ["inspect", "a.h5", "--batch-size", "24", "--json"]
    portions = json.loads(run(*told, "--ranks", "3", "--shuffle-window", "8")[1])["portions"]
    assert portions["window_samples"] == 80
    assert 8 / 3 <= portions["rank_bytes"] / 320 <= 4  # of 8 blocks
    assert 1.0 == portions["node_read_per_used"] < portions["read_per_used"] < 1.3
    alone = json.loads(run(*told)[1])["portions"]
    assert alone["read_per_used"] == 1.0
    series = json.loads(run(*told, "--window", "8", "--stride", "4")[1])["portions"]
    assert series["window_samples"] == 79
    assert series["read_per_used"] == pytest.approx(320 / (79 * 8))


def test_slow_files_get_the_command_that_repacks(run, tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=np.zeros((100, 8, 8)), chunks=(10, 2, 2))
        file["name"] = ["n"] * 100
    code, out, _ = run("inspect", "a.h5")
    assert code == 0
    assert "one sample lies in 16 chunks" in out
    assert "hpc-train data import a.h5 NEW --inputs x`" in out
    assert "not usable as a field" in out
    assert run("import", "a.h5", "NEW", "--inputs", "x")[0] == 0
    assert "reading will be fast" in run("inspect", "NEW")[1]


def test_foreign_files_have_no_checksums(run, tmp_path):
    write_h5(tmp_path / "a.h5", x=np.zeros(3))
    assert "good: no checksums, all can be read (1 shard" in run("verify", "a.h5")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["impart"], 2, "did you mean 'import'"),
        (["import", "nope.csv", "x"], 1, "no such file"),
        (["import", "t.csv", "set"], 2, "hint: --overwrite replaces it"),
        (["import", "t.csv", "x", "--target", "knd"], 2, "did you mean 'kind'"),
        (["import", "t.csv", "x"], 1, "t.csv, line 2, column kind: cell must be a number"),
        (["import", "t.csv", "x", "--size", "8"], 2, "--size must read HEIGHTxWIDTH"),
        (["import", "t.csv", "x", "--size", "8x0"], 2, "--size must read HEIGHTxWIDTH"),
        (["import", "t.csv", "x", "--mode", "L"], 2, "--mode does not apply to the kind csv"),
        (["import", "t.csv", "x", "--compression", "lz"], 2, "did you mean 'lzf'"),
        (["import", "t.csv", "x", "--kind", "cvs"], 2, "did you mean 'csv'"),
        (["split", "set", "x", "--stratify", "label", "--sequential"], 2, "only one of"),
        (["split", "set", "x", "--train", "most"], 2, "--train must be a fraction or a count"),
        (["split", "set", "x", "--train", "0.5"], 2, "fractions must sum up to 1"),
        (["verify", "nope"], 1, "no such file"),
        (["inspect", "t.csv"], 1, "not an HDF5 file"),
        (["inspect", "builtin:digits/trains"], 1, "did you mean 'digits/train'"),
    ],
)
def test_mistakes_are_one_line_each(run, table, tmp_path, arguments, code, message):
    write(tmp_path / "set")
    found, out, err = run(*arguments)
    assert found == code
    assert out == ""
    assert message in err
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert sorted(os.listdir(tmp_path)) == ["set", "t.csv"]


def test_overwriting_replaces(run, table, tmp_path):
    write(tmp_path / "set", 50, Layout(8, 20))
    assert run("import", table, "set", "--target", "kind", "--overwrite")[0] == 0
    assert sorted(everything(tmp_path / "set")) == ["index.json", "shard-00000.h5"]


TERMINATED = """
import sys, time
from hpc_train.cli import _main
from hpc_train.data.writer import ShardWriter
append = ShardWriter.append
def slow(self, arrays):
    append(self, arrays)
    print("ready", flush=True)
    time.sleep(60)
ShardWriter.append = slow
sys.exit(_main(["data", "import", sys.argv[1], sys.argv[2], "--target", "kind"]))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_import_leaves_nothing(table, tmp_path, how):
    command = [sys.executable, "-c", TERMINATED, str(table), str(tmp_path / "set")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(how)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err.strip()) == (130, b"interrupted")
    assert os.listdir(tmp_path) == ["t.csv"]


def test_data_commands_load_neither_torch_nor_mpi(table, tmp_path):
    code = (
        "import sys; from hpc_train.cli import _main;"
        f"_main(['data', 'import', {str(table)!r}, {str(tmp_path / 's')!r}, '--target', 'kind']);"
        "print(sorted({'torch', 'mpi4py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_bar_is_live_on_a_terminal_and_plain_elsewhere(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("hpc_train.cli.progress.time.monotonic", lambda: now[0])
    shown = {}
    for columns in (0, 80):
        stream = io.StringIO()
        now[0] = 0.0
        with Bar(100, "samples", stream, columns) as bar:
            for done in range(0, 100, 10):
                now[0] += 0.6
                bar(done)
        shown[columns] = stream.getvalue()
    assert shown[0] == "80/100 samples  15/s  ETA 0:01\n"
    assert shown[80].count("\r") == 11
    assert "\x1b[36m" in shown[80]
    assert shown[80].endswith("\r\x1b[K")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    now[0] = 0.0
    with Bar(100, "samples", stream, 80) as bar:
        now[0] = 1.0
        bar(50)
    assert "\x1b[36m" not in stream.getvalue()
    assert "50/100" in stream.getvalue()
