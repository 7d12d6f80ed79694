"""Progress: nothing for what is done in a moment, lines in a pipe, one live line on a terminal; the work is never changed."""

import itertools

import pytest

from pellucid import progress
from pellucid.progress import Progress, counted


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which a second goes by at each look, and progress is shown."""
    ticks = itertools.count()
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(ticks)))
    monkeypatch.setattr(progress, "shown", True)


def test_a_moment_is_not_worth_a_word(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "shown", True)
    assert list(counted(range(1000), "numbers", 1000)) == list(range(1000))
    assert capsys.readouterr() == ("", "")


def test_in_a_pipe_a_line_now_and_then(clock: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(counted(range(40), "numbers", 40)) == list(range(40))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "numbers: 2 of 40", "too early to tell how long"
    assert lines[1].startswith("numbers: ") and lines[1].endswith(" left")
    assert 2 <= len(lines) <= 4 and not any("\x1b" in line or "\r" in line for line in lines)


def test_on_a_terminal_one_line_that_is_wiped(
    clock: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("rows") as rows:
        for _ in range(5):
            rows.tick(1000)
    said = capsys.readouterr().err
    assert "rows: 3,000" in said and "\n" not in said and said.endswith("\r\x1b[K")


def test_it_can_be_silent(clock: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "shown", False)
    list(counted(range(100), "numbers"))
    assert capsys.readouterr().err == ""
