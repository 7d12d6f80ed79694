"""Beam search against enumeration of all texts, against a search that never stops early, and against greedy."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speaking import BOS, EOS, PAD, Bigram, assert_same, tiny
from torch import nn

from pellucid.generation import beam
from pellucid.generation.hypotheses import Partial, Request, Rules, largest
from pellucid.generation.options import GenerationOptions
from pellucid.generation.search import generate, speak
from pellucid.generation.speakers import speaker_of
from pellucid.generation.trees import Trees

PENALTIES = [-0.7, 0.0, 0.6, 1.0, 2.0]
SOURCE = [4, 3]


@torch.no_grad()
def all_texts(model: nn.Module, longest: int) -> list[tuple[list[int], float, int]]:
    """Every text that ends within `longest` tokens or is cut off there: ids, log-probability, length with <eos>. Read afresh, without
    cache or padding.
    """
    words = [token for token in range(model.config.vocab_size) if token not in (PAD, BOS, EOS)]
    texts = []
    for n in range(longest + 1):
        for ids in product(words, repeat=n):
            chosen = torch.tensor([[*ids, EOS][:longest]])
            if model.config.family == "gpt":
                logits = model(torch.cat((torch.tensor([SOURCE]), chosen[:, :-1]), 1))[:, len(SOURCE) - 1 :]
            else:
                logits = model(torch.tensor([SOURCE]), torch.cat((torch.tensor([[BOS]]), chosen[:, :-1]), 1))
            chances = logits.log_softmax(-1)
            chances[..., [PAD, BOS]] = -torch.inf
            chances = chances.gather(-1, chosen[..., None])
            texts.append((list(ids), chances.sum().item(), chosen.shape[1]))
    return texts


@pytest.mark.parametrize("family", ["gpt", "seq2seq"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_beam_as_wide_as_all_texts_finds_the_best_ones(family: str, penalty: float) -> None:
    model = tiny(family, seed=int(penalty * 10) % 7, vocab_size=5)
    best = sorted(
        ((chance / n**penalty, ids) for ids, chance, n in all_texts(model, 5)), reverse=True
    )  # no two are equal
    for n_best in (1, 4):
        options = GenerationOptions(max_new=5, beam=64, n_best=n_best, length_penalty=penalty)
        got = generate(model, [SOURCE], options)[0]
        assert [h.ids for h in got] == [ids for _, ids in best[:n_best]]
        assert [h.score for h in got] == pytest.approx([score for score, _ in best[:n_best]], abs=1e-5)
        assert [h.finished for h in got] == [len(h.ids) < 5 for h in got]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 4), st.sampled_from(PENALTIES), st.integers(1, 12))
def test_stopping_early_changes_nothing(seed: int, width: int, n_best: int, penalty: float, limit: int) -> None:
    options = GenerationOptions(max_new=limit, beam=width, n_best=min(n_best, width), length_penalty=penalty)
    model = tiny("gpt", seed, vocab_size=6)
    got = generate(model, [SOURCE, [3]], options)
    decided = beam._decided
    beam._decided = lambda alive, ended, rules: not alive or len(alive[0].chosen) >= limit
    try:
        assert_same(generate(model, [SOURCE, [3]], options), got)
    finally:
        beam._decided = decided
    for best in got:
        assert best == sorted(best, key=lambda h: -h.score)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["gpt", "seq2seq"]), st.sampled_from(PENALTIES))
def test_one_beam_is_greedy(seed: int, family: str, penalty: float) -> None:
    model = tiny(family, seed)
    rules = Rules(GenerationOptions(max_new=15, length_penalty=penalty), model.config, None)
    requests = [Request(i, ids, (), 15) for i, ids in enumerate([(3, 4, 5), (6,), (7, 8, 3, 3, 4)])]

    begun = model, [request.ids for request in requests], [()] * 3
    greedy = dict(event for event in speak(speaker_of(model)(*begun), requests, rules) if isinstance(event[1], list))
    events = list(beam.beam_search(Trees(*begun), requests, rules))
    searched = dict(event for event in events if event is not None)
    assert events.count(None) >= max(
        len(best[0].ids) for best in searched.values()
    )  # who listens may end it at any step
    for index in range(3):
        ours, other = greedy[index][0], searched[index][0]
        assert (ours.ids, ours.finished) == (other.ids, other.finished)
        assert ours.score == pytest.approx(other.score, abs=1e-5 * max(1, abs(other.score)))


def chances(**rows: dict[str, float]) -> Bigram:
    """A bigram model over <pad> <bos> <eos> a b, from "a" given b etc."""
    names = ["pad", "bos", "eos", "a", "b"]
    return Bigram([[rows.get(row, {"eos": 1.0}).get(column, 0.0) for column in names] for row in names])


def test_a_longer_text_overtakes_a_finished_one() -> None:
    """ "a" ends at once with 0.55; "ab" would have 0.45 · 0.99 · 0.99…: with penalty 1 it wins, far later than
    a beam's first ending.
    """
    model = chances(bos={"eos": 0.55, "a": 0.45}, a={"b": 0.98, "eos": 0.02}, b={"a": 0.98, "eos": 0.02})
    short, long = (
        generate(model, [[]], GenerationOptions(max_new=20, beam=3, length_penalty=penalty))[0][0]
        for penalty in (0.0, 1.0)
    )
    assert short.ids == [] and short.score == pytest.approx(math.log(0.55))
    assert len(long.ids) > 5 and long.score > math.log(0.55)


def test_it_stops_as_soon_as_nothing_can_win() -> None:
    model = chances(bos={"eos": 0.9, "a": 0.1}, a={"a": 0.5, "eos": 0.5})
    steps = []
    hidden = model.hidden
    model.hidden = lambda *args: steps.append(1) or hidden(*args)  # type: ignore[assignment,func-returns-value]
    best = generate(model, [[]], GenerationOptions(max_new=50, beam=2, length_penalty=0.0))[0][0]
    assert best.ids == [] and best.finished and len(steps) == 1


def test_what_the_limit_cuts_off_stands_by_its_score() -> None:
    model = chances(bos={"a": 0.9, "eos": 0.1}, a={"a": 1.0})
    got = generate(model, [[]], GenerationOptions(max_new=3, beam=2, n_best=2))[0]
    assert [(h.ids, h.finished) for h in got] == [([3, 3, 3], False), ([], True)]
    assert got[0].score > got[1].score


def test_the_bound_is_the_best_that_can_be_reached() -> None:
    config = tiny("gpt").config
    request = Request(0, (), (), 10)
    alive, ended = Partial(request, (3, 3), -2.0), Partial(request, (2,), -0.5)
    for penalty, decided in ((0.0, True), (1.0, False), (-1.0, True), (0.5, True)):
        # best to come: -2 (of any length), -2/10, -2*3, -2/sqrt(10) = -0.63; ended: -0.5
        rules = Rules(GenerationOptions(length_penalty=penalty), config, None)
        assert beam._decided([alive], [ended], rules) is decided
    alive, ended = Partial(request, (3, 3), -0.2), Partial(request, (2,), -1.0)
    for penalty, decided in ((0.0, False), (-1.0, False), (-2.0, True)):
        # best to come: -0.2, -0.2*3, -0.2*9; ended: -1
        rules = Rules(GenerationOptions(length_penalty=penalty), config, None)
        assert beam._decided([alive], [ended], rules) is decided


def test_other_ways_to_stop_are_satisfied_sooner() -> None:
    """The short texts end at once with 0.55, and what goes on would win at its full length only: "never" waits for it."""
    model = chances(bos={"eos": 0.55, "a": 0.45}, a={"b": 0.98, "eos": 0.02}, b={"a": 0.98, "eos": 0.02})
    said = {}
    for stopping in ("never", "heuristic", "full"):
        options = GenerationOptions(max_new=20, beam=2, stopping=stopping)  # type: ignore[arg-type]
        said[stopping] = generate(model, [[]], options)[0][0]
    assert said["never"].score > said["full"].score and len(said["full"].ids) <= len(said["heuristic"].ids) <= 20
    assert len(said["full"].ids) < len(said["never"].ids)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 500), st.integers(1, 9), st.integers(0, 99))
def test_the_largest_are_those_of_topk(n_rows: int, width: int, n: int, seed: int) -> None:
    """Whether a row is cut into pieces or not, with ties, and with -inf."""
    scores = torch.randint(0, 40, (n_rows, width), generator=torch.Generator().manual_seed(seed)).float()
    scores[scores < 9] = -torch.inf
    values, tokens = largest(scores, n, width=4)
    assert torch.equal(values, scores.topk(min(n, width)).values)
    assert torch.equal(scores.gather(1, tokens), values)
    assert all(len(set(row)) == len(row) for row in tokens.tolist())
