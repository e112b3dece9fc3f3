"""`run --dry-run`: the plan of a run."""

import json

import pytest

from hpc_train import cli


def run(*arguments, capsys):
    code = cli._main(["run", "digits-mlp", "--dry-run", *arguments])
    return code, *capsys.readouterr()


def test_the_curve_of_the_learning_rate_is_shown(capsys):
    code, out, err = run("learning_rate.final_factor=0.5", capsys=capsys)
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.startswith("# learning rate")]
    bars = line.split()[-1]
    assert (bars[0] != bars[10], len(bars)) == (True, 60)
    assert "# " + " " * 19 + "0.000143 at the start, 0.003 at most, 0.0015 at the end" in out


def test_a_plateau_says_when_it_lowers_the_rate(capsys):
    _, out, _ = run(
        "learning_rate.name=plateau",
        "learning_rate.metric=max accuracy",
        "learning_rate.patience=2",
        "data.validation=builtin:digits/test",
        capsys=capsys,
    )
    assert "times 0.1 after 3 evaluations without a better accuracy" in out


def test_the_curve_as_json(capsys):
    _, out, _ = run("--json", "run.steps=30", capsys=capsys)
    rate = json.loads(out)["plan"]["learning_rate"]
    assert rate["batches"] == list(range(30))
    assert rate["values"][20] == pytest.approx(0.003)


def test_the_curve_as_a_picture(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "rate.png"
    code, out, _ = run("--plot", str(path), capsys=capsys)
    assert (code, path.exists()) == (0, True)
    assert f"# drawn in {path}" in out
    code, _, err = run("--plot", str(tmp_path / "rate.xyz"), capsys=capsys)
    assert code == 2
    assert "must end with .png" in err


def test_a_picture_belongs_to_a_plan(capsys):
    code = cli._main(["run", "digits-mlp", "--plot", "rate.png"])
    assert code == 2
    assert "--plot draws what --dry-run plans\nhint: add --dry-run" in capsys.readouterr().err
