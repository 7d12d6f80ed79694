"""A tree of beams gives each leaf the logits of its text alone, however it grew, was thinned out or begun anew."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speaking import BOS, tiny
from torch import Tensor, nn

from pellucid.generation.trees import Prompts, Trees, encoded
from pellucid.parts.cache import KeyValueCache
from pellucid.parts.places import Places

POSITIONS = ["sinusoidal", "learned", "rotary", "alibi", "t5"]
INPUTS = [[3, 4, 5, 6, 7], [8], [4, 4, 3]]
PREFIXES = [[5, 6], [], [7]]


@torch.no_grad()
def alone(model: nn.Module, source: list[int], text: list[int]) -> Tensor:
    """Logits of the next token: no tree, no cache, no company."""
    if model.config.family == "gpt":
        return model(torch.tensor([source + text]))[0, -1]
    return model(torch.tensor([source]), torch.tensor([[BOS, *text]]))[0, -1]


def grown(model: nn.Module, n_steps: int, width: int, seed: int) -> Trees:
    """Trees that have grown at random, each leaf's logits compared on the way."""
    draw = random.Random(seed)
    trees, texts = Trees(model, INPUTS, PREFIXES), [[prefix] for prefix in PREFIXES]
    inputs, parents, tokens = list(INPUTS), None, None
    for step in range(n_steps):
        logits = trees.next_logits(parents, tokens)
        for row, leaves in enumerate(texts):
            for leaf, text in enumerate(leaves):
                if model.config.family == "gpt":
                    whole, seen = inputs[row] + text, list(trees.history[row][leaf])
                    assert whole[-len(seen) :] == seen and len(seen) >= min(len(whole), model.config.max_length // 2)
                    truth = alone(model, [], seen)
                else:
                    truth = alone(model, inputs[row], text)
                assert (logits[row, leaf] - truth).abs().max() <= 1e-5 * max(1, truth.abs().max())
        if step == 3:
            trees.select([2, 0])
            texts, inputs = [texts[2], texts[0]], [inputs[2], inputs[0]]
        parents = [[draw.randrange(len(leaves)) for _ in range(width)] for leaves in texts]
        tokens = [[draw.randint(2, 8) for _ in range(width)] for _ in texts]
        old = texts
        texts = [
            [[*leaves[p], t] for p, t in zip(*new, strict=True)]
            for leaves, *new in zip(old, parents, tokens, strict=True)
        ]
    return trees


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(["gpt", "seq2seq"]), st.sampled_from(POSITIONS), st.integers(1, 5), st.integers(0, 99))
def test_each_leaf_is_as_its_text_alone(family: str, positions: str, width: int, seed: int) -> None:
    grown(tiny(family, seed, positions=positions), 8, width, seed)


@pytest.mark.parametrize("positions", POSITIONS)
def test_contexts_that_are_full_are_read_again_each_by_itself(positions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not as one row of all leaves, every key beside every query."""
    read: list[tuple[int, int]] = []
    states = Prompts.states

    def watched(self: Prompts, ids: Tensor, keep: Tensor | None, cache: KeyValueCache, places: Places | None) -> Tensor:
        assert places is None or places.mask.pairs.shape[1] == ids.shape[1] == 3
        read.append(tuple(ids.shape))
        return states(self, ids, keep, cache, places)

    monkeypatch.setattr(Prompts, "states", watched)
    grown(tiny("gpt", 4, max_length=10, positions=positions), 16, 3, seed=2)
    assert any(rows == 2 * 3 for rows, _ in read)  # two trees of three leaves


@pytest.mark.parametrize("family", ["gpt", "seq2seq"])
def test_keys_that_no_leaf_sees_are_thrown_away(family: str) -> None:
    trees = grown(tiny(family, 2), 30, 4, seed=1)
    assert trees.cache.length == trees.keys.shape[1] < 29 * 4


def test_a_window_counts_places_in_the_text() -> None:
    model = tiny("seq2seq", 3)
    object.__setattr__(model.config, "window", 3)
    grown(model, 8, 3, seed=5)


def test_sources_are_read_in_groups_and_padded_alike() -> None:
    model = tiny("seq2seq", 1)
    inputs = [[3] * 20, [4] * 19, [5] * 9, [6], []]
    with torch.no_grad():
        memory, keep = encoded(model, inputs)
        for ids, states, real in zip(inputs, memory, keep, strict=True):
            assert real.tolist() == [i < len(ids) for i in range(20)]
            if ids:
                truth = model.encode(torch.tensor([ids]))[0]
                assert (states[real] - truth).abs().max() <= 1e-5 * max(1, truth.abs().max())
