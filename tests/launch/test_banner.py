"""Banners as launchers really print them, taken out; everything else untouched."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.launch.banner import BannerFilter, Death

RECORDED = Path(__file__).parent / "banners"
DASHES = b"-" * 74 + b"\n"
EXPECTED = {
    "openmpi5-exit": (b"mine\n", []),
    "openmpi5-abort": (b"my error\n", []),
    "openmpi5-kill": (b"", [Death(1, 8856, "vm", 9)]),
    "openmpi4-abort": (b"my error\n", []),
    "openmpi4-exit": (b"", []),
    "openmpi4-kill": (b"", [Death(1, 0, "vm", 9)]),
    "mpich-kill": (b"\n", [Death(None, 8927, "vm", 9)]),
}


def recorded(name):
    return (RECORDED / f"{name}.bin").read_bytes()


def pieces(data, cuts):
    edges = [0, *sorted(cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def through(parts):
    banners = BannerFilter()
    shown = b"".join([banners.feed(part) for part in parts]) + banners.flush()
    return shown, banners.deaths


@pytest.mark.parametrize("name", EXPECTED)
def test_banners_vanish_and_what_ranks_wrote_stays(name):
    assert through([recorded(name)]) == EXPECTED[name]


@given(st.sampled_from(sorted(EXPECTED)), st.lists(st.integers(0, 900), max_size=8))
def test_banners_vanish_however_the_stream_is_cut(name, cuts):
    data = recorded(name)
    assert through(pieces(data, [cut for cut in cuts if cut < len(data)])) == EXPECTED[name]


@pytest.mark.parametrize("name", ["openmpi5-missing", "openmpi5-slots"])
def test_what_the_user_must_read_passes(name):
    data = recorded(name)
    assert through([data]) == (data.rstrip(b"\0"), [])


@given(st.lists(st.sampled_from([b"a", b"\n", b"\r", b"-", b"=", DASHES, b"=" * 83 + b"\n", b"P"])))
def test_everything_that_is_no_banner_passes_unchanged(parts):
    assert through(parts)[0] == b"".join(parts)


def test_a_live_line_is_not_held_back():
    banners = BannerFilter()
    assert banners.feed(b"\r 10 %") == b"\r 10 %"
    assert banners.feed(b"\r 20 %") == b"\r 20 %"
    assert banners.feed(DASHES) == b""
    assert banners.feed(recorded("openmpi5-kill")[len(DASHES) :]) == b""
    assert banners.feed(b"done") == b"done"


def test_a_rule_is_shown_when_nothing_follows():
    banners = BannerFilter()
    assert banners.feed(DASHES + b"--") == b""
    assert banners.flush() == DASHES + b"--"
    assert banners.feed(b"-\nx\n") == b"-\nx\n"


def test_a_frame_that_is_never_closed_is_shown():
    data = DASHES + b"MPI_ABORT was invoked on rank 1\n" + b"text\n" * 40
    assert through([data])[0] == data


def test_deaths_read_as_sentences():
    assert str(Death(1, 12, "n7", 9)) == "rank 1 on n7 was killed by SIGKILL (pid 12)"
    assert str(Death(None, 0, "n7", 99)) == "a rank on n7 was killed by signal 99"
