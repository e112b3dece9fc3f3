"""The schedule benchmark: stated and recorded ranks, figures beside the ideal, the command."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from hpc_train.bench.schedule.ranks import parse_speeds, recorded, stated
from hpc_train.bench.schedule.study import rows, study
from hpc_train.cli import cli
from hpc_train.errors import HpcTrainError, UsageError


def test_stated_speeds_become_seconds():
    ranks = stated([4, 1], 10, 5, fixed_seconds=0.5)
    assert ranks.seconds(0, np.array([8, 0])) == pytest.approx([2.5, 0])
    assert ranks.seconds(4, np.array([0, 2])) == pytest.approx([0, 2.5])


@pytest.mark.parametrize("text", ["", "4,x", "4,,1", "4,-1", "0", "inf", "nan"])
def test_speeds_that_are_none_are_refused(text):
    with pytest.raises(UsageError, match="positive numbers"):
        parse_speeds(text)


def test_nobody_beats_the_ideal_and_min_finish_time_comes_near():
    document = study(stated([4, 4, 4, 1], 64, 300, noise=0.02))
    seconds = {name: side["seconds"] for name, side in document["sides"].items()}
    assert min(seconds, key=seconds.get) == "ideal"
    assert seconds["ideal"] / seconds["min_finish_time"] > 0.9
    assert seconds["static"] / seconds["min_finish_time"] > 2.9
    table = rows(document)
    assert [row[0] for row in table[1:]] == list(seconds)
    assert table[2][3] == "1.00x"


def write_run(path, fixed, pace, steps=40):
    lines = []
    for step in range(steps):
        counts = [16, 16] if step < 20 else [24, 8]
        busy = [fixed + p * n for p, n in zip(pace, counts, strict=True)]
        before = {"counts": counts, "busy_seconds": busy}
        lines.append(json.dumps({"kind": "step"} | ({"before": before} if step else {})))
    path.write_text("\n".join(lines) + "\n")


def test_a_recorded_run_gives_the_seconds_that_it_took(tmp_path):
    write_run(tmp_path / "metrics.jsonl", 0.5, [1.0, 3.0])
    ranks = recorded(tmp_path)
    assert (ranks.num_steps, ranks.num_ranks, ranks.batch_size) == (39, 2, 32)
    assert ranks.seconds(0, np.array([16, 16])) == pytest.approx([16.5, 48.5])
    assert ranks.seconds(38, np.array([24, 8])) == pytest.approx([24.5, 24.5])


def test_of_a_run_with_claims_speeds_are_those_of_what_ranks_own(tmp_path):
    """All finish together whatever they had: of all samples, seconds would not depend on them."""
    lines = [json.dumps({"kind": "step"})]
    for step in range(40):
        more = [step % 5, 4 - step % 5]
        pace = [28 / (12 + n) for n in more]
        own = {"counts": more, "busy_seconds": [p * n for p, n in zip(pace, more, strict=True)]}
        before = {"counts": [12 + n for n in more], "busy_seconds": [28.0, 28.0]}
        lines.append(json.dumps({"kind": "step", "before": before, "claimed": own}))
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    ranks = recorded(tmp_path)
    assert ranks.batch_size == 28
    assert ranks.seconds(39, np.array([14, 14])).sum() == pytest.approx(56, rel=0.1)
    doubled = ranks.seconds(39, np.array([28, 28])) / ranks.seconds(39, np.array([14, 14]))
    assert doubled == pytest.approx([2, 2], rel=0.1)


def test_a_run_without_such_records_is_explained(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "step"}\n')
    with pytest.raises(HpcTrainError, match=r"at least 3 steps \(steps told: 0\)"):
        recorded(tmp_path)
    with pytest.raises(HpcTrainError, match="cannot read metrics"):
        recorded(tmp_path / "elsewhere")


def test_the_command_writes_figures_and_a_picture(tmp_path):
    call = ["bench", "schedule", "--speeds", "4,1", "--steps", "30", "--out", str(tmp_path)]
    ended = CliRunner().invoke(cli, [*call, "--json"], catch_exceptions=False)
    assert ended.exit_code == 0
    document = json.loads(ended.stdout)
    assert document["ranks"] == 2
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".png"}


def test_the_command_wants_exactly_one_source():
    with pytest.raises(UsageError, match="either a recorded run or --speeds"):
        CliRunner().invoke(cli, ["bench", "schedule"], catch_exceptions=False)
