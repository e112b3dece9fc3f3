"""Logs: a file per rank, warnings on the terminal, nothing left behind."""

import logging

import pytest

from hpc_train import log


@pytest.fixture(autouse=True)
def as_before():
    """The logger of the package as it was, after each test."""
    logger = logging.getLogger(log.ROOT)
    held = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = held[0], held[2]
    logger.setLevel(held[1])


def test_each_rank_writes_lines_with_its_rank(tmp_path):
    path = tmp_path / "logs" / "rank-0003.log"
    handler = log.to_file(path, 3)
    logging.getLogger("hpc_train.data").info("opened %d shards", 7)
    log.close_file(handler)
    logging.getLogger("hpc_train.data").warning("too late")
    (line,) = path.read_text().splitlines()
    assert line.endswith("INFO    rank=3 hpc_train.data: opened 7 shards")


def test_a_resumed_run_appends(tmp_path):
    for text in ("first", "second"):
        handler = log.to_file(tmp_path / "log", 0)
        logging.getLogger("hpc_train").warning(text)
        log.close_file(handler)
    assert [line.rsplit(" ", 1)[1] for line in (tmp_path / "log").open()] == ["first\n", "second\n"]


def test_the_terminal_gets_warnings_only_unless_asked(capsys):
    log.to_terminal()
    logging.getLogger("hpc_train.train").info("quiet")
    logging.getLogger("hpc_train.train").warning("slow %s", "disk")
    log.to_terminal(verbose=True)  # replaces the first, so nothing comes twice
    logging.getLogger("hpc_train.train").info("loud")
    assert capsys.readouterr().err == "warning: slow disk\nloud\n"
