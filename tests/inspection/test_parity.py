"""Parity: two libraries agree on every family, a difference is found where it is, and what cannot be compared is said."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import DataError, UserError
from pellucid.inspection import parity
from pellucid.inspection.parity import TOLERANCE, Stage, verify
from pellucid.models import storage
from pellucid.models.build import build
from pellucid.models.pretrained.families import home
from pellucid.text.tokenizer import train
from tests.families import ALL, make
from tests.models.parity import shaken
from tests.runs import TEXT

KNOWN = [name for name, config in ALL.items() if home(config)[0]]


def saved(name: str, folder: Path) -> Path:
    storage.save(make(name), folder)
    return folder


def with_tokenizer(folder: Path) -> Path:
    """A Llama that reads text."""
    tokenizer = train(TEXT.splitlines(), "byte-bpe", 320)
    config = replace(ALL["llama"], vocab_size=tokenizer.vocab_size)
    storage.save(build(config), folder, tokenizer)
    return folder


@pytest.mark.reference
@pytest.mark.parametrize("name", KNOWN)
def test_the_libraries_agree_at_every_stage(name: str, tmp_path: Path) -> None:
    found, config = verify(saved(name, tmp_path)), ALL[name]
    stages = [stage.stage for stage in found.stages]
    for part in ("encoder ", "decoder ") if config.family == "seq2seq" else ("",):
        assert {part + "embedding", part + "block 0", part + "block 1", part + "final states"} <= set(stages)
    assert found.equal, found
    assert ("loss" in stages) == (config.head in ("words", "labels", "tags"))
    assert found.tokens_equal is (True if config.family in ("gpt", "seq2seq") else None)
    assert found.tokenizer_equal is None and found.first_difference is None
    assert all("pooler" in name for name in found.missing_keys) and (not found.missing_keys or config.head == "states")


@pytest.mark.reference
def test_what_they_hide_by_chance_is_shown(tmp_path: Path) -> None:
    """A masked autoencoder of theirs shuffles the patches and drops most."""
    storage.save(build(replace(ALL["vit-2d"], head="states", n_labels=0)), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"mask_ratio": 0.75}))
    found = verify(tmp_path)
    assert found.equal and found.architecture == "ViTMAEModel", found


@pytest.mark.reference
@pytest.mark.parametrize("layer", [0, 1])
def test_a_difference_is_found_where_it_begins(layer: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = parity._their_model

    def changed(*given: Any) -> Any:
        theirs, told = load(*given)
        with torch.no_grad():
            theirs.model.layers[layer].mlp.down_proj.weight[0] += 0.5
        return theirs, told

    monkeypatch.setattr(parity, "_their_model", changed)
    found = verify(saved("llama", tmp_path))
    assert found.first_difference == f"block {layer}" and not found.equal
    assert [stage.equal for stage in found.stages[: layer + 1]] == [True] * (layer + 1)
    assert found.rounding is False and not found.stages[-1].equal and found.to_dict()["max_abs_difference"] > 0.1


@pytest.mark.reference
def test_rounding_is_told_from_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tolerance that float32 cannot keep, everything is different, and nothing is wrong."""
    monkeypatch.setattr(parity, "TOLERANCE", 0.0)
    found = verify(saved("gpt2", tmp_path))
    assert found.first_difference is not None and found.rounding is True and found.tokens_equal


@pytest.mark.reference
def test_texts_are_read_by_both_tokenizers(tmp_path: Path) -> None:
    folder = with_tokenizer(tmp_path)
    found = verify(folder)
    assert found.equal and found.tokenizer_equal is True
    assert verify(folder, "the old dog").tokenizer_equal is True
    named = verify(folder, "the <eos> dog")  # there a special token's name in a text is that token, here it is text
    assert named.tokenizer_equal is False and not named.equal and named.first_difference is None
    assert any("theirs" in note for note in named.notes)


@pytest.mark.reference
def test_a_shape_that_no_one_else_has_is_said(tmp_path: Path) -> None:
    assert "alibi" not in KNOWN
    with pytest.raises(DataError, match="no class for this model") as error:
        verify(saved("alibi", tmp_path))
    assert "positions" in str(error.value)


@pytest.mark.reference
def test_text_needs_a_tokenizer_and_random_ids_do_not(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tokenizer"):
        verify(saved("llama", tmp_path), "a text")


def test_without_transformers_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="pip install 'pellucid\\[reference\\]'"):
        verify(saved("llama", tmp_path))


@given(st.floats(-1e4, 1e4, width=32), st.floats(0, 4))
def test_equal_is_the_tolerance_and_nothing_else(reference: float, times: float) -> None:
    theirs = torch.tensor([reference], dtype=torch.float64)
    ours = theirs + times * TOLERANCE * max(1.0, abs(reference))
    stage = parity._stage("x", ours, theirs)
    if abs(times - 1) > 1e-3:
        assert stage.equal == (times < 1)
    assert stage.max_abs_difference == pytest.approx(times * TOLERANCE * max(1.0, abs(reference)), rel=1e-3, abs=1e-9)
    assert stage.max_rel_difference == pytest.approx(times * TOLERANCE, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_a_number_is_never_equal(wrong: float) -> None:
    ours, theirs = torch.tensor([[1.0, wrong]]), torch.tensor([[1.0, wrong]])
    assert parity._stage("x", ours, theirs) == Stage("x", None, None, False)


def test_shapes_that_do_not_fit_are_said() -> None:
    with pytest.raises(DataError, match=r"logits cannot be compared: ours is \[1, 2\], theirs \[1, 3\]"):
        parity._stage("logits", torch.ones(1, 2), torch.ones(1, 3))


@pytest.mark.reference
def test_what_the_folder_asks_for_is_compared_or_named(tmp_path: Path) -> None:
    """What both do is done on both sides; what only they do is said, and done on neither."""
    file = with_tokenizer(tmp_path) / "generation_config.json"
    says = json.loads(file.read_text())
    for asked, notes in (
        ({"repetition_penalty": 1.8, "no_repeat_ngram_size": 2, "min_new_tokens": 9, "do_sample": True, "top_k": 3}, 0),
        ({"encoder_no_repeat_ngram_size": 2, "bad_words_ids": [[5, 6]], "sequence_bias": [[[7], 50.0]]}, 1),
    ):
        file.write_text(json.dumps(says | asked))
        found = verify(tmp_path, "the old dog")
        assert found.equal and len(found.notes) == notes, found
        assert all(name in note for note in found.notes for name in asked)


@pytest.mark.reference
def test_rows_that_no_token_has_are_said_by_neither(tmp_path: Path) -> None:
    """Where the folder says so; where it does not, theirs says them, and that is shown."""
    tokenizer = train(TEXT.splitlines(), "byte-bpe", 280)
    config = replace(ALL["llama"], vocab_size=tokenizer.vocab_size + 400)
    storage.save(shaken(build(config), by=0.3), tmp_path, tokenizer)
    assert verify(tmp_path, "the old dog").tokens_equal is True
    file = tmp_path / "generation_config.json"
    file.write_text(
        json.dumps({name: v for name, v in json.loads(file.read_text()).items() if name != "suppress_tokens"})
    )
    assert verify(tmp_path, "the old dog").tokens_equal is False
