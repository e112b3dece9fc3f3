"""The command line as a whole: what it loads, how it complains, with which exit codes."""

import subprocess
import sys

import click
import pytest

import hpc_train
from hpc_train import cli, errors

HEAVY = ("torch", "mpi4py", "h5py", "numpy", "pydantic", "rich", "matplotlib")


def loaded_by(statement):
    """The heavy modules that a fresh Python has loaded after `statement`."""
    code = f"import sys\n{statement}\nprint(*[m for m in {HEAVY} if m in sys.modules], sep=',')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()[-1]


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import hpc_train") == ""


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["recipes"]])
def test_light_commands_load_nothing_heavy(arguments):
    assert loaded_by(f"from hpc_train.cli import _main; assert _main({arguments}) == 0") == ""


@pytest.mark.parametrize("arguments", [["config", "show", "digits-cnn"], ["config", "schema"]])
def test_configuration_needs_neither_torch_nor_mpi(arguments):
    statement = f"from hpc_train.cli import _main; assert _main({arguments}) == 0"
    assert loaded_by(statement) == "pydantic"


def test_the_test_above_would_see_it():
    assert loaded_by("import numpy") == "numpy"


def run(*arguments, capsys):
    """Exit code, standard output and standard error of a command line."""
    code = cli._main(list(arguments))
    return code, *capsys.readouterr()


def test_version(capsys):
    assert run("--version", capsys=capsys) == (0, f"hpc-train {hpc_train.__version__}\n", "")


def test_help_lists_every_command(capsys):
    code, out, err = run("--help", capsys=capsys)
    assert (code, err) == (0, "")
    for name, (_, text) in cli.COMMANDS.items():
        assert any(line.split()[:1] == [name] and text in line for line in out.splitlines())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_there_and_explains_itself(name, capsys):
    code, out, err = run(name, "--help", capsys=capsys)
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: hpc-train {name}")


def test_no_command_shows_the_help(capsys):
    code, out, err = run(capsys=capsys)
    assert (code, out) == (errors.EXIT_USAGE, "")
    assert err.startswith("Usage: hpc-train ")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["rnu"], "did you mean 'run'?", "hpc-train --help lists them"),
        (["xyzzy"], 'unknown command "xyzzy", known: ', "--help"),
        (["config", "showw"], "did you mean 'show'?", "hpc-train config --help lists them"),
        (["recipes", "--jsno"], "no such option '--jsno'", "hpc-train recipes --help"),
        (["--dbug"], "no such option '--dbug'", "hpc-train --help"),
        (["config", "show"], "missing argument 'CONFIG'", "hpc-train config show --help"),
        (["recipes", "extra"], "got unexpected extra argument", "hpc-train recipes --help"),
    ],
)
def test_mistakes_of_usage(arguments, message, hint, capsys):
    code, out, err = run(*arguments, capsys=capsys)
    assert (code, out) == (errors.EXIT_USAGE, "")
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert lines[1].startswith("hint: ")
    assert hint in lines[1]


@pytest.fixture
def failing(monkeypatch):
    """`failing(error)` makes the command `recipes` raise it."""

    def install(error):
        @click.command()
        def command():
            raise error

        monkeypatch.setattr("hpc_train.cli.recipes.command", command)

    import hpc_train.cli.recipes  # noqa: F401

    return install


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.HpcTrainError("it broke"), 1),
        (errors.ConfigError("it broke"), 2),
        (errors.UsageError("it broke"), 2),
        (errors.SetupError("it broke"), 3),
        (errors.DataError("it broke"), 1),
        (errors.CheckpointError("it broke"), 1),
    ],
)
def test_exit_codes_of_errors(error, code, failing, capsys):
    failing(error)
    assert run("recipes", capsys=capsys) == (code, "", "error: it broke\n")


def test_ctrl_c_leaves_with_130(failing, capsys):
    failing(KeyboardInterrupt())
    assert run("recipes", capsys=capsys)[0] == errors.EXIT_INTERRUPTED == 130


def test_an_error_shows_its_traceback_with_debug_alone(failing, capsys, monkeypatch):
    failing(errors.DataError("it broke"))
    assert "Traceback" not in run("recipes", capsys=capsys)[2]
    assert "Traceback" in run("--debug", "recipes", capsys=capsys)[2]
    monkeypatch.setenv("HPC_TRAIN_DEBUG", "1")
    assert "Traceback" in run("recipes", capsys=capsys)[2]


def test_a_bug_shows_its_traceback_once(failing, capsys):
    failing(ZeroDivisionError("oh"))
    code, _, err = run("recipes", capsys=capsys)
    assert code == errors.EXIT_FAILED
    assert err.count("Traceback") == 1
    assert err.splitlines()[-1] == "error: this is a bug in hpc_train, please report it"


def test_the_environment_sets_defaults(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPC_TRAIN_CONFIG_INIT_DRY_RUN", "1")
    code, out, _ = run("config", "init", capsys=capsys)
    assert code == 0
    assert "[optimizer]" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell, capsys):
    code, out, err = run("completion", shell, capsys=capsys)
    assert (code, err) == (0, "")
    assert "_HPC_TRAIN_COMPLETE" in out


def test_output_into_a_closed_pipe_ends_quietly():
    command = f"{sys.executable} -m hpc_train config schema | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("{\n", "")
