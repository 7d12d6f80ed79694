"""Prompts and answers: only answers are learned, each once an epoch; what is too long is said."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.prompts import PromptData
from pellucid.data.text import IGNORE
from pellucid.data.tokenised import Ragged
from pellucid.errors import DataError

ids = st.lists(st.integers(5, 30), min_size=1, max_size=9)


def data(pairs: list[tuple[list[int], list[int]]], batch_tokens: int = 40, max_length: int | None = None) -> PromptData:
    prompts, answers = (Ragged.of([pair[side] for pair in pairs]) for side in (0, 1))
    edges = ([1], [4])
    return PromptData(
        prompts, answers, pad_id=0, eos_id=2, edges=edges, batch_tokens=batch_tokens, max_length=max_length
    )


@given(st.lists(st.tuples(ids, ids), min_size=1, max_size=30))
def test_every_answer_is_learned_once_an_epoch_and_no_prompt_ever(pairs: list[tuple[list[int], list[int]]]) -> None:
    d = data(pairs)
    seen = []
    for step in range(d.steps_per_epoch):
        batch = d.batch(step)
        for row, target in zip(batch["ids"].tolist(), batch["targets"].tolist(), strict=True):
            answer = [t for t in target if t != IGNORE]
            n = len(answer)
            first = target.index(answer[0])
            assert row[first] == 4 and answer[-1] == 2, "the token that asks foresees the answer, the answer ends"
            assert row[first + 1 : first + n] == answer[:-1] and target[first : first + n] == answer
            assert all(t == IGNORE for t in target[:first]) and set(row[first + n :]) <= {0}
            assert row[0] == 1
            seen.append((row[1:first], answer[:-1]))
    assert sorted(seen) == sorted((list(a), list(b)) for a, b in pairs)


def test_sequential_gives_every_place_once() -> None:
    pairs = [([5] * (i % 7 + 1), [6] * (i % 3 + 1)) for i in range(25)]
    d = data(pairs)
    rows = [row for batch in d.sequential() for row in batch["rows"].tolist()]
    assert sorted(rows) == list(range(25))
    again = d.collate(np.array(rows[:3]))
    first = next(iter(d.sequential()))
    n = again["ids"].shape[1]
    assert torch.equal(first["ids"][:3, :n], again["ids"])


def test_what_is_too_long_is_left_out_and_said() -> None:
    pairs = [([5, 6], [7])] * 20 + [([5] * 30, [7])]
    d = data(pairs, max_length=10)
    assert len(d) == 20 and "1 of 21" in d.notes[0]
    with pytest.raises(DataError, match="longer than the model's 4 positions"):
        data(pairs, max_length=4)
