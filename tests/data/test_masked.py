"""Masking: whole words, the shares of the paper, every target once an epoch, and a pure function of seed and step."""

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.masked import LONGEST_WORD, MaskedData, Vocabulary
from pellucid.data.text import IGNORE
from pellucid.text.tokenizer import Kind, train

BOS, EOS, MASK = 1, 2, 4
WORDS, PIECES = range(10, 30), range(30, 40)  # a piece goes on with the word before it


def vocabulary() -> Vocabulary:
    continues = [token in PIECES for token in range(40)]
    return Vocabulary.of(BOS, EOS, MASK, (continues, [token >= 10 for token in range(40)]))


def text(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(10, 40, n)


def words_of(row: np.ndarray) -> np.ndarray:
    """The number of the word that each token belongs to."""
    begins = ~np.isin(row, list(PIECES))
    begins[0] = True
    return begins.cumsum()


@given(st.integers(0, 3), st.integers(0, 50))
def test_a_batch_is_pure_and_hides_whole_words(seed: int, step: int) -> None:
    stream = text(400)
    data = MaskedData(stream, vocabulary(), 20, 6, seed)
    batch, again = data.batch(step), MaskedData(stream, vocabulary(), 20, 6, seed).batch(step)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    ids, targets = batch["ids"].numpy(), batch["targets"].numpy()
    assert ids.shape == targets.shape == (6, 20)
    assert (ids[:, 0] == BOS).all() and (ids[:, -1] == EOS).all()
    assert (targets[:, [0, -1]] == IGNORE).all() and ((targets != IGNORE).sum(1) >= 1).all()
    for shown, target in zip(ids[:, 1:-1], targets[:, 1:-1], strict=True):
        hidden = target != IGNORE
        original = np.where(hidden, target, shown)
        for word in np.unique(words_of(original)):
            its = hidden[words_of(original) == word]
            assert len(set(its)) == 1 or len(its) > 18 * LONGEST_WORD, "a word is hidden whole or not at all"


def test_the_shares_are_the_papers() -> None:
    data = MaskedData(text(200_000), vocabulary(), 130, 64)
    batches = [data.batch(step) for step in range(20)]
    ids, targets = (np.concatenate([b[name].numpy()[:, 1:-1].ravel() for b in batches]) for name in ("ids", "targets"))
    hidden = targets != IGNORE
    assert hidden.mean() == pytest.approx(0.15, abs=0.005)
    shown, asked = ids[hidden], targets[hidden]
    assert (shown == MASK).mean() == pytest.approx(0.8, abs=0.02)
    same = (shown == asked).mean()
    assert same == pytest.approx(0.1 + 0.1 / 36, abs=0.015), "kept, or drawn by chance"
    drawn = shown[(shown != MASK) & (shown != asked)]
    assert not np.isin(drawn, [BOS, EOS, MASK]).any() and len(np.unique(drawn)) > 30


def test_the_held_out_text_is_always_masked_alike() -> None:
    data = MaskedData(text(205), vocabulary(), 22, 3)
    by_size = [
        [
            row
            for batch in data.windows(size)
            for row in zip(batch["ids"].tolist(), batch["targets"].tolist(), strict=True)
        ]
        for size in (1, 4, 100)
    ]
    assert by_size[0] == by_size[1] == by_size[2]
    originals = [
        i if t == IGNORE else t for ids, targets in by_size[0] for i, t in zip(ids[1:-1], targets[1:-1], strict=True)
    ]
    assert originals == text(205)[:-1].tolist(), "the text in its order, each token once"


def test_what_is_no_word_is_hidden_token_by_token() -> None:
    one_word = np.random.default_rng(0).integers(30, 40, 20_000)
    data = MaskedData(one_word, vocabulary(), 102, 50)
    hidden = np.concatenate([data.batch(step)["targets"].numpy()[:, 1:-1] != IGNORE for step in range(4)])
    assert hidden.mean() == pytest.approx(0.15, abs=0.01) and not hidden.all(1).any()
    words = np.tile([10, *[30] * 29], 700)  # as long as a word may be
    hidden = MaskedData(words, vocabulary(), 102, 50).batch(0)["targets"].numpy()[:, 1:-1] != IGNORE
    inner = np.diff(hidden.astype(int), axis=1) != 0
    assert 0.1 < hidden.mean() < 0.6 and inner.sum(1).max() <= 4, "whole words are still hidden whole"


POEM = "春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。床前明月光，疑是地上霜。舉頭望明月，低頭思故鄉。"


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("mixed", [False, True])
def test_as_much_of_unspaced_text_is_hidden_as_of_any(kind: Kind, mixed: bool) -> None:
    """Chinese is written without spaces: a sentence is no word. Mixed with English, words stay whole."""
    rng = np.random.default_rng(0)
    phrases = POEM.replace("，", "。").strip("。").split("。")
    lines = ["，".join(rng.choice(phrases, 2)) + "。" + "the old dog sees a cat " * mixed for _ in range(600)]
    lines += ["".join(rng.choice(list(POEM), 12)) for _ in range(600)]
    tokenizer = train(lines, kind, vocab_size=300, specials=["<mask>"])
    stream = np.array([i for line in tokenizer.encode_batch(lines) for i in line])
    v = Vocabulary.of(BOS, EOS, MASK, tokenizer.word_joins())
    data = MaskedData(stream, v, 130, 32)
    hidden = np.concatenate([data.batch(step)["targets"].numpy()[:, 1:-1].ravel() for step in range(12)]) != IGNORE
    assert hidden.mean() == pytest.approx(0.15, abs=0.02)
    ids = tokenizer.encode(POEM)
    joined = (v.continues[ids[1:]] & v.continued[ids[:-1]]).sum()
    assert kind == "byte-bpe" or not joined


def test_the_bytes_of_an_ideograph_are_one_word() -> None:
    tokenizer = train(["the old dog"], "byte-bpe", 270, specials=["<mask>"])
    continues, continued = tokenizer.word_joins()
    ids = tokenizer.encode("春眠ab")
    joins = [continues[b] and continued[a] for a, b in zip(ids, ids[1:], strict=False)]
    assert len(ids) == 8 and joins[:5] == [True, True, False, True, True] and joins[-1]


@pytest.mark.parametrize("text", ["สวัสดีชาวโลก", "ສະບາຍດີ", "សួស្តី", "မင်္ဂလာပါ", "カタカナひらがな"])
def test_other_scripts_without_spaces_join_nothing(text: str) -> None:
    for kind in ("bpe", "unigram", "char", "wordpiece"):
        tokenizer = train([text, "한국어는 단어"], kind, 60, specials=["<mask>"])
        continues, continued = tokenizer.word_joins()
        ids = tokenizer.encode(text)
        assert not any(continues[b] and continued[a] for a, b in zip(ids, ids[1:], strict=False))
        korean = tokenizer.encode("한국어는")
        assert len(korean) == 1 or continues[korean[-1]] and continued[korean[-2]], "Korean has spaces"


def test_epochs_are_masked_otherwise() -> None:
    data = MaskedData(text(101), vocabulary(), 12, 10)  # ten windows: an epoch a batch
    first, second = data.batch(0), data.batch(1)
    assert not torch.equal(first["targets"], second["targets"])


@pytest.mark.parametrize("kind", ["byte-bpe", "wordpiece", "bpe", "unigram"])
def test_words_are_told_by_every_tokenizer(kind: str) -> None:
    """Pieces of a word are joined, words are not: what white space and punctuation part stays apart."""
    sentence = "unbelievably slow turtles, running"
    tokenizer = train(
        [sentence, "un able ly be lie slow slow turtle run"] * 3,
        kind,
        vocab_size=320 if kind == "byte-bpe" else 60,
        specials=["<mask>"],
    )
    ids = tokenizer.encode(sentence)
    continues, continued = tokenizer.word_joins()
    joined = [False] + [continues[b] and continued[a] for a, b in zip(ids, ids[1:], strict=False)]
    words: list[str] = []
    for i, joins in zip(ids, joined, strict=True):
        piece = tokenizer.tokens([i])[0].replace("##", "").replace("▁", "").replace("</w>", "").strip()
        words = [*words[:-1], words[-1] + piece] if joins and words else [*words, piece]
    assert [word for word in words if word][:3] in (
        ["unbelievably", "slow", "turtles"],
        ["unbelievably", "slow", "turtles,"],
    )
    assert not any(continues[i] or continued[i] for i in tokenizer.specials.values())
