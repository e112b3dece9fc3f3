"""Loading: what a configuration means, and where each of its mistakes is."""

from pathlib import Path

import pytest

from hpc_train import recipes
from hpc_train.config import Config, digest, load, to_toml
from hpc_train.config.allowed import sections
from hpc_train.errors import EXIT_USAGE, ConfigError

MINIMAL = '[data]\ntrain = "a"\ninputs = "x"\n[model]\nname = "mlp"\n'


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes c.toml, and moves to where it lies."""
    monkeypatch.chdir(tmp_path)

    def writer(text):
        path = Path("c.toml")
        path.write_text(text, encoding="utf-8")
        return path

    return writer


def mistakes(*args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        load(*args, **kwargs)
    assert caught.value.exit_code == EXIT_USAGE
    return [(p.where, p.message, p.hint) for p in caught.value.problems or [caught.value]]


def test_origins(write):
    source = write(MINIMAL + "hidden = [3]\n[run]\nseed = 3\n[optimizer]\n")
    loaded = load(source, ["optimizer.lr=0.5", "model.extra.deep=1"])
    assert loaded.config.optimizer.lr == 0.5
    assert loaded.config.run.epochs == 1
    assert loaded.config.model.arguments == {"hidden": [3], "extra": {"deep": 1}}
    origins = loaded.origins
    assert origins["data.train"] == "c.toml:2"
    assert origins["model.hidden"] == "c.toml:6"
    assert origins["run.seed"] == "c.toml:8"
    assert origins["optimizer.lr"] == origins["model.extra"] == "override"
    assert origins["optimizer.name"] == origins["run.epochs"] == "default"
    assert origins.keys() >= {"run.dir", "checkpoint.every", "schedule.shares"}


def test_sections_of_a_caller():
    loaded = load(
        None,
        ["run.seed=5"],
        sections={
            "data": {"train": Path("a") / "b", "inputs": ("x", "y"), "validation": None},
            "model": {"name": "mlp"},
        },
    )
    assert loaded.config.data.train == "a/b"
    assert loaded.config.data.inputs == ["x", "y"]
    assert loaded.origins["data.train"] == "argument"
    assert loaded.origins["data.validation"] == "default"
    assert loaded.origins["run.seed"] == "override"


def test_sections_must_hold_plain_values():
    data = {"train": "a", "inputs": "x", "scale": object()}
    found = mistakes(None, sections={"data": data, "model": {"name": "m", "layer": object()}})
    assert [(where, message) for where, message, _ in found] == [
        ("argument", 'data.scale must be a number > 0, "auto" or "none" (data.scale: "object")'),
        (
            "argument",
            "model.layer must be a text, number, boolean, list or table (model.layer: object)",
        ),
    ]


def test_numpy_numbers_are_numbers():
    numpy = pytest.importorskip("numpy")
    data = {"train": "a", "inputs": "x", "batch_size": numpy.int64(8), "scale": numpy.float32(0.5)}
    config = load(None, sections={"data": data, "model": {"name": "m"}}).config
    assert (config.data.batch_size, config.data.scale) == (8, 0.5)


# text appended to MINIMAL (5 lines) -> (where, message, hint)
WRONG = {
    "unknown key": (
        "[run]\nsed = 1\n",
        "c.toml:7",
        "unknown key run.sed",
        "did you mean run.seed?",
    ),
    "key of another section": (
        "[run]\nlr = 1\n",
        "c.toml:7",
        "unknown key run.lr",
        "lr belongs to [optimizer]: write optimizer.lr",
    ),
    "key like no other": (
        "[comm]\nzzz = 1\n",
        "c.toml:7",
        "unknown key comm.zzz",
        "keys of [comm]: collective, gradient_compression, topk_density, powersgd_rank, overlap",
    ),
    "unknown section": (
        "[optimiser]\nlr = 1\n",
        "c.toml:6",
        "unknown section [optimiser]",
        "did you mean [optimizer]?",
    ),
    "integer": (
        "[optimizer]\n\nclip_norm = 0\n",
        "c.toml:8",
        "optimizer.clip_norm must be a number > 0 (optimizer.clip_norm: 0)",
        None,
    ),
    "quoted number": (
        '[run]\nepochs = "5"\n',
        "c.toml:7",
        'run.epochs must be an integer >= 1 (run.epochs: "5")',
        "numbers are written without quotes: run.epochs = 5",
    ),
    "fraction for an integer": (
        "[run]\nepochs = 5.0\n",
        "c.toml:7",
        "run.epochs must be an integer >= 1 (run.epochs: 5.0)",
        "write run.epochs = 5",
    ),
    "boolean for an integer": (
        "[run]\nepochs = true\n",
        "c.toml:7",
        "run.epochs must be an integer >= 1 (run.epochs: true)",
        None,
    ),
    "text for a boolean": (
        '[optimizer]\nnesterov = "True"\n',
        "c.toml:7",
        'optimizer.nesterov must be true or false (optimizer.nesterov: "True")',
        "write optimizer.nesterov = true",
    ),
    "number for a text": (
        "[run]\ndir = 5\n",
        "c.toml:7",
        "run.dir must be a text (run.dir: 5)",
        'texts are quoted: run.dir = "5"; for a shell: run.dir=\'"5"\'',
    ),
    "upper bound": (
        "[optimizer]\nmomentum = 1.0\n",
        "c.toml:7",
        "optimizer.momentum must be a number >= 0 and < 1 (optimizer.momentum: 1.0)",
        None,
    ),
    "large bound": (
        "[run]\nseed = 9223372036854775808\n",
        "c.toml:7",
        "run.seed must be an integer >= 0 and < 2^63 (run.seed: 9223372036854775808)",
        None,
    ),
    "not finite": (
        "[optimizer]\nlr = nan\n",
        "c.toml:7",
        "optimizer.lr must be a number >= 0 (optimizer.lr: NaN)",
        None,
    ),
    "choice": (
        '[optimizer]\nname = "adan"\n',
        "c.toml:7",
        'optimizer.name must be "sgd", "adam", "adamw", "rmsprop", "adagrad", "lamb" or "lars" '
        '(optimizer.name: "adan")',
        'did you mean "adam"?',
    ),
    "number or word": (
        '[device]\nthreads = "many"\n',
        "c.toml:7",
        'device.threads must be an integer >= 1 or "auto" (device.threads: "many")',
        None,
    ),
    "entry of a list": (
        '[schedule]\nshares = [\n 1,\n "x",\n]\n',
        "c.toml:9",
        'schedule.shares must be a list, each entry a number >= 0 (schedule.shares[1]: "x")',
        None,
    ),
    "number for a list": (
        "[schedule]\nshares = 1\n",
        "c.toml:7",
        "schedule.shares must be a list, each entry a number >= 0 (schedule.shares: 1)",
        None,
    ),
    "length of a list": (
        "[optimizer]\nbetas = [0.5]\n",
        "c.toml:7",
        "optimizer.betas must be a list of 2 entries, each a number >= 0 and < 1 "
        "(optimizer.betas: [0.5])",
        None,
    ),
    "period": (
        '[checkpoint]\nevery = "1 fortnight"\n',
        "c.toml:7",
        'checkpoint.every must be "N steps", "N epochs", "N minutes", "N hours" (N >= 1), "auto" '
        'or "never" (checkpoint.every: "1 fortnight")',
        None,
    ),
    "run name": (
        '[run]\nname = "../x"\n',
        "c.toml:7",
        "run.name must begin with a letter or a digit, followed by letters, digits and any of "
        '. _ - (run.name: "../x")',
        None,
    ),
    "contradiction": (
        "[run]\nseed = 1\nepochs = 3\nsteps = 5\n",
        "c.toml:9",
        "only one of run.epochs and run.steps may be set (run.epochs: 3, run.steps: 5)",
        None,
    ),
    "condition": (
        "[optimizer]\nlr = 1\nnesterov = true\n",
        "c.toml:8",
        "optimizer.nesterov needs a momentum above 0 (optimizer.momentum: 0.0)",
        None,
    ),
    "value of a phase": (
        "[optimizer.phases.critic]\nlr = -1\n",
        "c.toml:7",
        "optimizer.phases.critic.lr must be a number >= 0 (optimizer.phases.critic.lr: -1)",
        None,
    ),
    "entry of a phase": (
        "[optimizer.phases.critic]\nbetas = [0.5, 1]\n",
        "c.toml:7",
        "optimizer.phases.critic.betas must be a list of 2 entries, each a number >= 0 and < 1 "
        "(optimizer.phases.critic.betas[1]: 1)",
        None,
    ),
    "key of a phase": (
        "[optimizer.phases.critic]\nlrr = 1\n",
        "c.toml:7",
        "unknown key optimizer.phases.critic.lrr",
        "did you mean optimizer.phases.critic.lr?",
    ),
    "phase that is no table": (
        "[optimizer.phases]\ncritic = 1\n",
        "c.toml:7",
        "optimizer.phases.critic must be a table (optimizer.phases.critic: 1)",
        "write [optimizer.phases.critic]",
    ),
    "condition of a phase": (
        "[optimizer.phases.critic]\nnesterov = true\n",
        "c.toml:6",
        "optimizer.phases.critic.nesterov needs a momentum above 0 "
        "(optimizer.phases.critic.momentum: 0.0)",
        None,
    ),
}


@pytest.mark.parametrize(("text", "where", "message", "hint"), WRONG.values(), ids=WRONG)
def test_mistakes_of_a_file(write, text, where, message, hint):
    assert mistakes(write(MINIMAL + text)) == [(where, message, hint)]


def test_mistakes_outside_of_sections(write):
    source = write("seed = 3\nrun = 5\nzzz = 1\n" + MINIMAL)
    assert mistakes(source) == [
        (
            "c.toml:1",
            "unknown key seed, keys belong to sections",
            "did you mean run.seed?",
        ),
        ("c.toml:2", "run must be a table (run: 5)", "write [run]"),
        (
            "c.toml:3",
            "unknown key zzz, keys belong to sections",
            f"sections are: {', '.join(sections())}",
        ),
    ]


def test_required_keys(write):
    found = mistakes(write('[data]\ntrain = "a"\n\n[model]\nnme = "cnn"\n'))
    assert [(where, message) for where, message, _ in found] == [
        ("c.toml:1", "data.inputs is required"),
        ("c.toml:4", "model.name is required"),
    ]
    assert found[1][2] == "did you mean name by model.nme?"


def test_required_sections(write):
    found = mistakes(write("# nothing\n"))
    assert [(where, message) for where, message, _ in found] == [
        ("c.toml", "data.train is required"),
        ("c.toml", "data.inputs is required"),
        ("c.toml", "model.name is required"),
    ]


def test_all_mistakes_at_once_in_the_order_of_lines_then_overrides(write):
    text = MINIMAL + "[run]\nsed = 1\nepochs = 0\n[comm]\ncollective = 5\n"
    found = mistakes(write(text), ["digits", "data.batch_size=0", "data.scale=[", "modl.a=1"])
    assert [where for where, _, _ in found] == [
        "c.toml:7",
        "c.toml:8",
        "c.toml:10",
        *["override"] * 4,
    ]
    assert found[3][1] == "data.batch_size must be an integer >= 1 (data.batch_size: 0)"
    assert "unknown section [modl]" in [message for _, message, _ in found]


def test_an_override_of_an_override_wins(write):
    source = write(MINIMAL)
    assert load(source, ["run.seed=x", "run.seed=4"]).config.run.seed == 4


def test_keys_of_a_phase_stand_over_those_of_the_section(write):
    text = "[optimizer]\nlr = 0.5\nmomentum = 0.9\n[optimizer.phases.critic]\nnesterov = true\n"
    loaded = load(write(MINIMAL + text), ["optimizer.phases.critic.lr=0.25"])
    section = loaded.config.optimizer
    assert section.of("generator") is section
    critic = section.of("critic")
    assert (critic.lr, critic.momentum, critic.nesterov, critic.betas) == (
        0.25,
        0.9,
        True,
        (0.9, 0.999),
    )
    assert loaded.origins["optimizer.phases.critic.lr"] == "override"
    again = load(write(to_toml(loaded.config)), ["optimizer.momentum=0.1"]).config.optimizer
    assert again.of("critic").momentum == 0.1  # only what was given was written
    assert again.of("critic").lr == 0.25


def test_steps_on_the_command_line_take_the_place_of_epochs_in_the_file(write):
    source = write(MINIMAL + "[run]\nepochs = 3\n")
    run = load(source, ["run.steps=7"]).config.run
    assert (run.epochs, run.steps) == (None, 7)
    (found,) = mistakes(source, ["run.steps=7", "run.epochs=2"])
    assert found[:2] == (
        "override",
        "only one of run.epochs and run.steps may be set (run.epochs: 2, run.steps: 7)",
    )


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        ("[run]\nname = digits\n", "c.toml:2:8", "invalid value: name = digits"),
        ("[run\n", "c.toml:1:5", "expected ']'"),
        ("a = 1\n[run]\nseed = 1\nseed = 2\n", "c.toml:4:9", "cannot overwrite a value"),
        ("x = [1,\n", "c.toml:2:1", "invalid value"),
        ("x = 'abc", "c.toml:1:9", "expected"),
    ],
)
def test_syntax(write, text, where, reason):
    ((place, message, _),) = mistakes(write(text))
    assert place == where
    assert message.startswith("a configuration must be TOML (")
    assert reason in message


def test_files_that_cannot_be_read(write, tmp_path):
    source = write("")
    source.write_bytes(b"[run]\nname = '\xff'\n")
    assert mistakes(source)[0][:2] == (
        "c.toml:2",
        "a configuration must be text in UTF-8 (byte: 0xff)",
    )
    assert mistakes(Path("none.toml"))[0][:2] == ("none.toml", "no such file")
    assert mistakes(tmp_path)[0][1] == "cannot read it: Is a directory"


def test_a_byte_order_mark_and_windows_line_ends_are_no_mistake(write):
    source = write("")
    text = MINIMAL + '[run]\nname = """a\nb"""\n'
    source.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert mistakes(source)[0][0] == "c.toml:7"


@pytest.mark.parametrize(
    ("text", "size"),
    [("1024", 1024), ("0", 0), ("1 KiB", 1024), ("256MiB", 2**28), ("1.5 gib", 3 * 2**29)],
)
def test_sizes(text, size):
    table = {"train": "a", "inputs": "x", "cache_bytes": text}
    config = Config.model_validate({"data": table, "model": {"name": "m"}})
    assert config.data.cache_bytes == size


@pytest.mark.parametrize("text", ["", "MiB", "1 MB", "-1 KiB", "1e3", "0x10", "1 2 KiB"])
def test_sizes_refused(text):
    table = {"train": "a", "inputs": "x", "cache_bytes": text}
    (found,) = mistakes(None, sections={"data": table, "model": {"name": "m"}})
    assert found[1].startswith("data.cache_bytes must be a number of bytes, or a size")


def test_digest_is_of_the_settings_alone(write):
    source = write(MINIMAL)
    plain = digest(load(source).config)
    assert len(plain) == 64
    same = load(source, ["run.name=other", "run.dir=there", "optimizer.lr=1e-3", "run.epochs=1"])
    assert digest(same.config) == plain
    for override in ("optimizer.lr=2e-3", "run.seed=1", "model.hidden=[2]"):
        assert digest(load(source, [override]).config) != plain


@pytest.mark.parametrize("recipe", recipes.recipes(), ids=lambda recipe: recipe.name)
def test_recipes_load_and_say_what_they_are(recipe):
    config = load(recipe.path).config
    assert config.run.name == recipe.name
    assert len(recipe.description) > 20
    assert config.data.targets or config.task.name not in ("classification", "regression")


@pytest.mark.parametrize(
    ("words", "policy"),
    [
        ([], "min_finish_time"),
        (["schedule.shares=[2,1]"], "static"),
        (["schedule.policy=proportional"], "proportional"),
    ],
)
def test_shares_follow_speeds_unless_they_are_stated(write, words, policy):
    assert load(write(MINIMAL), words).config.schedule.policy == policy
