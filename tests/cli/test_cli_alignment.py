"""The drawn alignment: readable in 80 columns, whatever the tokens."""

import re

import numpy as np
import pytest

from pellucid.cli.alignment import LEGEND, columns, draw, show


def test_a_small_map() -> None:
    drawn = draw(["Ein", "Hund"], ["A", "dog"], np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert drawn.splitlines() == [
        "                  H",
        "                E u",
        "                i n",
        "                n d",
        "             A ██░░",
        "           dog ▒▒██",
        "",
        LEGEND,
    ]


@pytest.mark.parametrize("n_source", [1, 30, 33, 100])
def test_no_line_is_wider_than_the_terminal(n_source: int) -> None:
    source = ["donaudampfschifffahrtsgesellschaft", "漢字漢字漢字漢字漢字", "é́", "", "a b", "\n"] * n_source
    weights = np.random.default_rng(0).dirichlet([0.2] * n_source, size=4)
    drawn = draw(source[:n_source], ["漢字漢字漢字漢字漢字", "donaudampfschifffahrt", "x", "<eos>"], weights)
    assert max(columns(line) for line in drawn.splitlines()) <= 80
    assert all(1 <= columns(line) for line in drawn.split("\n\n")[0].splitlines())


def test_every_weight_is_in_its_column() -> None:
    """Column k of row t is at 15 + 2 k terminal columns, with wide characters in labels too."""
    drawn = draw(["漢", "b", "c"], ["字", "xy"], [[0, 1, 0], [0, 0, 1]]).splitlines()
    assert drawn[1] == "            字  ·██ ·" and drawn[2] == "            xy  · ·██"


def test_no_number_is_no_failure() -> None:
    assert " ?" in draw(["a"], ["b"], [[float("nan")]])


def test_in_a_pipe_there_are_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    show(["a"], ["b"], [[1.0]])
    assert not re.search("\x1b", capsys.readouterr().out)
