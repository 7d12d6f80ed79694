"""Pictures: they show what was measured, nothing in them is cut off or overlaps, and no text or setting of a user breaks them."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from pellucid.data.prepare import TextSet
from pellucid.errors import DataError, UserError
from pellucid.inspection import plots, plots_attention, plots_confusion, plots_curves, plots_positions
from pellucid.inspection.plots_style import fonts, readable, save, style, without_glyphs
from pellucid.parts.positions import Alibi
from pellucid.text.tokenizer import train
from tests.families import ALL, make

pytestmark = pytest.mark.slow  # each is quick, together they are a quarter of the quick ones

ODD = ("龍", "$x$", "\n", " ", "a_very_long_token_that_never_ends", "\u200b", "🙂", "é</w>", "<eos>")


@pytest.fixture(autouse=True)
def styled() -> Iterator[None]:
    with style():
        yield


def ticks(axes: Any, axis: Any) -> list[Any]:
    """The labels of an axis that are drawn: those of ticks within the field."""
    low, high = sorted(axis.get_view_interval())
    inside = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high] if axes.get_visible() else []
    return [
        label for tick in inside for label in (tick.label1, tick.label2) if label.get_visible() and label.get_text()
    ]


def texts(picture: Figure) -> list[tuple[str, Any]]:
    """What is written in a picture, and the box around it in pixels."""
    canvas = FigureCanvasAgg(picture)
    canvas.draw()
    axes = [(one, axis) for one in picture.axes for axis in (one.xaxis, one.yaxis)]
    unseen = {
        id(label)
        for _, axis in axes
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in tick.findobj(Text)
    }
    unseen |= {id(text) for one in picture.axes if not one.get_visible() for text in one.findobj(Text)}
    shown = [t for t in picture.findobj(Text) if t.get_visible() and t.get_text().strip() and id(t) not in unseen]
    shown += [label for one, axis in axes for label in ticks(one, axis)]
    return [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in shown]  # type: ignore[attr-defined]


def check_readable(picture: Figure) -> None:
    """Nothing that is written leaves the picture; labels of an axis do not lie over each other; nothing is tiny."""
    edge = picture.bbox
    for text, box in texts(picture):
        assert edge.x0 - 2 <= box.x0 and box.x1 <= edge.x1 + 2, (text, box)
        assert edge.y0 - 2 <= box.y0 and box.y1 <= edge.y1 + 2, (text, box)
    for axes in picture.axes:
        for axis, along in ((axes.xaxis, "x"), (axes.yaxis, "y")):
            labels = ticks(axes, axis)
            boxes = [label.get_window_extent() for label in labels]
            spans = sorted((getattr(box, along + "0"), getattr(box, along + "1")) for box in boxes)
            assert all(a[1] <= b[0] + 1 for a, b in pairwise(spans)), (axis, [label.get_text() for label in labels])
            assert all(label.get_fontsize() >= 5 for label in labels)


def history(n: int = 60, name: str = "run", **more: Any) -> plots_curves.History:
    steps = np.arange(1, n + 1) * 10.0
    loss = 4 / np.sqrt(steps) + 1
    columns = {
        "step": steps,
        "loss": loss,
        "lr": steps[::-1] * 1e-5,
        "grad_norm": loss / 2,
        "tokens_per_second": loss * 900,
    }
    return plots_curves.History(
        name, columns, {"step": steps[4::5], "loss": loss[4::5] + 0.1, "accuracy": 1 / loss[4::5]}, **more
    )


# ---- curves


def test_records_are_read_to_the_last_whole_line(tmp_path: Path) -> None:
    lines = [
        {"kind": "train", "step": 10, "loss": 3.5, "lr": 0.1},
        {"kind": "valid", "step": 10, "loss": 3.0, "samples": ["x"]},
    ]
    lines += [
        {"kind": "train", "step": 20, "loss": None, "lr": 0.1},
        {"kind": "valid", "step": 20, "loss": 3.25, "accuracy": 0.5},
    ]
    whole = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_bytes((whole + '{"kind": "train", "step": 30, "lo').encode() + b"\xc3")
    found = plots_curves.read(tmp_path, "name")
    assert (
        found.train["step"].tolist() == [10, 20] and found.train["loss"][0] == 3.5 and np.isnan(found.train["loss"][1])
    )
    assert found.best("loss") == (10, 3.0) and found.best("accuracy") == (20, 0.5) and found.best("bleu") is None
    assert "samples" not in found.valid
    for picture in plots_curves.draw([found]).values():
        check_readable(picture)
    (tmp_path / "metrics.jsonl").write_text('{"kind": "tr', encoding="utf-8")
    with pytest.raises(DataError, match="no records yet"):
        plots_curves.read(tmp_path)


@given(st.lists(st.one_of(st.floats(-100, 100), st.just(float("nan"))), min_size=1, max_size=200))
def test_smoothing_stays_within_what_it_smooths(values: list[float]) -> None:
    smooth = plots_curves.smooth(np.array(values))
    known = [value for value in values if value == value]
    assert len(smooth) == len(values)
    assert all(np.isfinite(out) for value, out in zip(values, smooth, strict=True) if value == value)
    if known:
        inside = smooth[np.isfinite(smooth)]
        assert min(known) - 1e-6 <= inside.min() and inside.max() <= max(known) + 1e-6
    assert np.allclose(plots_curves.smooth(np.full(len(values), 2.5)), 2.5)


@pytest.mark.parametrize("n", [1, 2, 30, 3000])
def test_curves_hold_what_was_measured(n: int) -> None:
    one = history(n, metric="accuracy", smoothing=0.1, unit="images")
    pictures = plots_curves.draw([one])
    drawn = [line for axes in pictures["loss"].axes for line in axes.get_lines()]
    assert np.array_equal(drawn[0].get_ydata(), one.train["loss"]) and np.array_equal(
        drawn[0].get_xdata(), one.train["step"]
    )
    told = [text for text, _ in texts(pictures["loss"])]
    best = f"best {one.valid['loss'].min():.4f}" if n > 4 else "best"
    assert any("label smoothing 0.1" in text for text in told) and any(best in text for text in told) == (n > 4)
    assert ("quality" in pictures) == (n > 4) and "images per second" in [
        text for text, _ in texts(pictures["training"])
    ]
    for picture in pictures.values():
        check_readable(picture)


def test_several_runs_share_a_picture_and_differ_in_colour() -> None:
    runs = [history(60, f"run {i}" + "龍" * (i == 2)) for i in range(8)]
    pictures = plots_curves.draw(runs)
    colours = {line.get_color() for line in pictures["loss"].axes[0].get_lines()}
    assert len(colours) == 8 and "run 2□: best" in " ".join(text for text, _ in texts(pictures["loss"]))
    for picture in pictures.values():
        check_readable(picture)
    assert plots_curves.names_apart([Path("a/x"), Path("b/x")]) == ["a/x", "b/x"]


def test_losses_that_fall_far_are_drawn_by_decades() -> None:
    steps = np.arange(1.0, 301)
    falling = plots_curves.History("far", {"step": steps, "loss": 5 * np.exp(-steps / 40)}, {"step": steps[:0]})
    assert plots_curves.loss([falling]).axes[0].get_yscale() == "log"
    assert plots_curves.loss([history(500)]).axes[0].get_yscale() == "linear"
    broken = plots_curves.History("nan", {"step": steps, "loss": np.full(300, np.nan)}, {"step": steps[:0]})
    check_readable(plots_curves.loss([broken]))


# ---- attention


def pipeline(name: str) -> Any:
    """A tiny model with a tokenizer of as many characters as it knows."""
    model: Any = make(name)
    return SimpleNamespace(model=model, config=model.config, tokenizer=train(["abcdefghijklm"], "char", vocab_size=17))


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "original", "bert", "modern"])
def test_maps_are_the_models_own_attention(name: str) -> None:
    one = pipeline(name)
    maps = {found.name: found for found in plots_attention.record(one, "abcab")}
    expected = {"seq2seq": {"encoder", "decoder", "cross"}}.get(one.config.family, {"attention"})
    assert set(maps) == expected
    for found in maps.values():
        assert found.weights.shape[2:] == (len(found.queries), len(found.keys))
        assert np.allclose(found.weights.sum(-1), 1, atol=1e-5)
    hidden = maps.get("decoder") or maps["attention"]
    assert (np.triu(hidden.weights, 1) == 0).all() == (one.config.family != "bert")
    if "cross" in maps:
        assert maps["cross"].keys == tuple("abcab") == maps["encoder"].queries and maps["cross"].queries[-1] == "<eos>"
        assert maps["decoder"].queries[1:] == maps["cross"].queries[:-1]
    assert maps.get("attention") is None or maps["attention"].keys[-5:][:3] in (tuple("abc"), tuple("bca"))
    for picture in plots_attention.draw([*maps.values()]).values():
        check_readable(picture)


@pytest.mark.parametrize(
    "layers, heads, n_query, n_key", [(1, 1, 1, 1), (2, 4, 9, 14), (3, 6, 40, 40), (4, 16, 5, 3), (1, 2, 3, 90)]
)
def test_maps_of_any_shape_and_text_can_be_read(layers: int, heads: int, n_query: int, n_key: int) -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(n_key), (layers, heads, n_query)).astype(np.float32)
    queries, keys = ((ODD * n)[:n] for n in (n_query, n_key))
    pictures = plots_attention.draw([plots_attention.Maps("cross", weights, queries, keys)])
    assert ("alignment" in pictures) == (n_key <= 80)
    for name, picture in pictures.items():
        check_readable(picture)
        tokens = [readable(token) for token in keys]
        told = " ".join(" ".join(text.split()) for text, _ in texts(picture))
        assert all(token in told for token in tokens[:8]), name


def test_the_class_token_is_laid_over_the_image() -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(50), (3, 4, 50))
    picture = plots_attention.class_token(weights, np.zeros((28, 28, 1), np.uint8))
    grid = picture.axes[1].get_images()[0].get_array()
    assert np.allclose(grid, weights[0, 0, 0, 1:].reshape(7, 7)) and len(picture.axes) == 3 * 5 + 1
    check_readable(picture)


# ---- positions


@pytest.mark.parametrize("name", ALL)
def test_positions_are_the_models_own(name: str) -> None:
    config = ALL[name]
    pictures = plots_positions.draw(make(name), 0 if config.family == "vit" else config.max_length)
    t5 = config.positions == "t5" and config.family == "seq2seq"
    assert list(pictures) == (["positions-encoder", "positions-decoder"] if t5 else ["positions"])
    for picture in pictures.values():
        check_readable(picture)


def test_alibi_falls_with_the_slope_of_each_head() -> None:
    lines = plots_positions.bias(Alibi(4), 33).axes[0].get_lines()[:4]
    slopes = [(line.get_ydata()[-1] - line.get_ydata()[0]) / 32 for line in lines]
    assert np.allclose(slopes, Alibi(4).slopes()) and np.array_equal(lines[0].get_xdata(), np.arange(-32, 1))


def test_tables_are_drawn_as_they_are() -> None:
    model: Any = make("gpt2")
    image = plots_positions.draw(model, 64)["positions"].axes[0].get_images()[0].get_array()
    assert np.allclose(image, model.embed.positions.weight.detach().T)


# ---- confusions


@pytest.mark.parametrize("n", [2, 10, 20, 60])
def test_confusions_count_and_can_be_read(n: int) -> None:
    matrix = np.eye(n, dtype=np.int64) * 1200 + np.eye(n, k=1, dtype=np.int64) * 300
    names = [f"label {i} 龍 of a long name" for i in range(n)]
    picture = plots_confusion.draw(names, matrix)["confusion"]
    told = [text for text, _ in texts(picture)]
    assert f"{1200 * n / matrix.sum():.1%} of {matrix.sum():,} are right" in told and ("1,200" in told) == (n <= 20)
    assert np.allclose(picture.axes[0].get_images()[0].get_array().sum(1), 1)
    check_readable(picture)
    with pytest.raises(DataError, match="no examples"):
        plots_confusion.draw(names, matrix * 0)


# ---- all of them, fonts, files


def test_each_kind_is_drawn_or_its_absence_explained(tmp_path: Path) -> None:
    one = pipeline("gpt2")
    one.recipe = None
    loads: list[Path] = []
    asked = plots.Asked([tmp_path], lambda folder: loads.append(folder) or one, "ab\u9f8d")  # type: ignore[func-returns-value]
    done = plots.plot(asked, tmp_path / "out", formats=("png", "svg"))
    assert [file.name for file in done.files] == [
        f"{name}.{kind}" for name in ("attention", "positions") for kind in ("png", "svg")
    ]
    assert set(done.skipped) == {"curves", "confusion"} and len(loads) == 1
    assert all(file.stat().st_size > 1000 for file in done.files) and len(list((tmp_path / "out").iterdir())) == 4
    for only, text, problem in [
        (["curves"], "a", "metrics.jsonl"),
        (["confusion"], "a", "no labels"),
        (["attention"], None, "its data"),
    ]:
        with pytest.raises(UserError, match=problem):
            plots.plot(plots.Asked([tmp_path], lambda folder: one, text), tmp_path / "out", only)
    with pytest.raises(UserError, match="several were given"):
        plots.plot(plots.Asked([tmp_path, tmp_path], lambda folder: one), tmp_path / "out", ["positions"])
    with pytest.raises(DataError, match="no folder"):
        plots.plot(plots.Asked([tmp_path / "none"], lambda folder: one), tmp_path)


def test_a_vit_looks_at_an_image_and_confuses_labels(tmp_path: Path) -> None:
    Image.new("L", (20, 30), 128).save(tmp_path / "grey.png")
    model: Any = make("vit")
    counts = np.array([[3, 1, 0], [0, 4, 0], [1, 1, 2]])
    config = replace(model.config, labels=("a", "b", "c"))
    one = SimpleNamespace(model=model, config=config, recipe=None, confusion=lambda: (config.labels, counts))
    asked = plots.Asked([tmp_path], lambda folder: one, str(tmp_path / "grey.png"))
    done = plots.plot(asked, tmp_path / "out")
    assert [file.stem for file in done.files] == ["attention-image", "positions", "confusion"] and set(
        done.skipped
    ) == {"curves"}


def test_running_text_is_looked_at_from_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    one = pipeline("gpt2")
    tokens = np.array(one.tokenizer.encode("abcdefghijklm" * 3))
    monkeypatch.setattr(plots, "held_out", lambda asked: TextSet(tokens, 39))
    assert plots.held_out_text(one) == "abcdefghijklmabc"


def test_the_same_picture_is_the_same_file(tmp_path: Path) -> None:
    for kind in ("png", "svg"):
        first, second = (save(plots_curves.loss([history()]), tmp_path / name, [kind])[0] for name in "ab")
        assert first.read_bytes() == second.read_bytes()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_every_token_becomes_something_a_font_can_show(token: str) -> None:
    assert without_glyphs([readable(token)]) == "" and len(readable(token)) <= 8 * 16
    assert readable(token, 4) == readable(token, 4) and (not token or readable(token))


def test_the_users_settings_are_neither_used_nor_changed() -> None:
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"figure.facecolor": "black", "font.size": 30}):
        with style():
            assert matplotlib.rcParams["figure.facecolor"] == "white" and matplotlib.rcParams["font.family"] == [
                *fonts()
            ]
        assert matplotlib.rcParams["figure.facecolor"] == "black"
    assert dict(matplotlib.rcParams) == before


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pellucid\[plot\]"), style():
        pass


def test_recording_leaves_the_model_as_it_was() -> None:
    model: Any = make("gpt2", dropout=0.5).train()
    ids = torch.tensor([[5, 6, 7]])
    first, second = (plots_attention.run(model, {"ids": ids})["attention"] for _ in range(2))
    assert np.array_equal(first, second) and model.training
