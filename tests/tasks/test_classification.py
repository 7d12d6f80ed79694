"""Classification: the loss is the plain one, weights balance labels, unseen labels are wrong, spans are those a person sees."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pellucid.data.text import IGNORE
from pellucid.tasks.classification import Classification, Weighted, judge, predictions, tag_scores
from pellucid.tasks.spans import spans
from tests.families import ids, make

NAMES = ("a", "b", "c")


def texts(labels: list[int], seed: int = 0) -> dict[str, Tensor]:
    keep = torch.ones(len(labels), 6, dtype=torch.bool)
    keep[0, 4:] = False
    return {"ids": ids(len(labels), 6, seed), "keep": keep, "labels": torch.tensor(labels)}


def tags(targets: list[list[int]]) -> dict[str, Tensor]:
    size = len(targets), len(targets[0])
    return {"ids": ids(*size), "keep": torch.ones(size, dtype=torch.bool), "targets": torch.tensor(targets)}


def task(**given: Any) -> Classification:
    return Classification(lambda: [], 0, NAMES, **given)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_labels_is_cross_entropy(smoothing: float) -> None:
    model, batch = make("bert-labels"), texts([0, 2, 1, -1])
    plain = F.cross_entropy(
        model(batch["ids"], batch["keep"])[:3], batch["labels"][:3], reduction="sum", label_smoothing=smoothing
    )
    ours = task(label_smoothing=smoothing)
    torch.testing.assert_close(ours.loss(model, batch), plain)
    assert ours.count(batch) == 3, "an unseen label is nothing to learn"


def test_the_loss_of_tags_counts_words_only() -> None:
    model, batch = make("bert-tags"), tags([[IGNORE, 0, IGNORE, 2, -1], [1, 1, 1, IGNORE, IGNORE]])
    logits, targets = model(batch["ids"], batch["keep"]).flatten(0, 1), batch["targets"].flatten()
    plain = F.cross_entropy(logits[targets >= 0], targets[targets >= 0], reduction="sum")
    torch.testing.assert_close(task().loss(model, batch), plain)
    assert task().count(batch) == 5


@pytest.mark.parametrize("name", ["bert-labels", "vit"])
def test_accumulated_is_the_big_batch(name: str) -> None:
    """Law 6, with weights."""
    images = {"images": torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))}
    whole = texts([0, 2, 1, 1, 0, 0, 2]) if name != "vit" else images | {"labels": torch.tensor([0, 2, 1, 1, 0, 0, 2])}
    whole["weights"] = torch.tensor([0.5, 2.0, 1.0])[whole["labels"]]
    model, t = make(name), task(label_smoothing=0.1)
    parameters = list(model.parameters())
    big = torch.autograd.grad(t.loss(model, whole) / t.count(whole), parameters)
    for i in range(3):
        (t.loss(model, {name: rows[i::3] for name, rows in whole.items()}) / t.count(whole)).backward()
    for p, gradient in zip(parameters, big, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-4, atol=1e-6)


def test_balanced_labels_weigh_the_same_together_and_a_target_one_on_average() -> None:
    labels = np.array([0] * 80 + [1] * 15 + [2] * 5 + [-1] * 3)

    class Data:
        def batch(self, step: int) -> dict[str, Tensor]:
            return {"labels": torch.from_numpy(labels)}

    weights = Weighted(Data(), labels, 3).batch(0)["weights"]
    sums = [float(weights[labels == k].sum()) for k in range(3)]
    assert sums == pytest.approx([100 / 3] * 3) and float(weights[labels >= 0].mean()) == pytest.approx(1)


class Says(nn.Module):
    """Answers to text i, by its first id, what the table says."""

    def __init__(self, table: list[int]) -> None:
        super().__init__()
        self.logits = nn.Parameter(F.one_hot(torch.tensor(table), 3).float() * 5)

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        return self.logits[ids[:, 0]]


def test_unseen_labels_count_as_wrong_and_answers_keep_their_order() -> None:
    def held() -> Iterator[dict[str, Tensor]]:
        for rows in ([2, 0], [3, 1]):
            places = torch.tensor(rows)
            labels = torch.tensor([0, 1, -1, 2])[places]
            yield {"ids": places[:, None], "keep": torch.ones(2, 1, dtype=torch.bool), "labels": labels, "rows": places}

    model = Says([0, 2, 1, 2]).eval()
    true, predicted, nats = predictions(model, held(), 4)
    assert [int(t[0]) for t in true] == [0, 1, -1, 2] and [int(p[0]) for p in predicted] == [0, 2, 1, 2]
    assert nats[2] == 0 and nats[1] > 4 and nats[0] < 0.1
    judged = judge(model, held(), 4, NAMES)
    assert judged.numbers()["accuracy"] == 0.5 and judged.asked == [("a",), ("b",), ("?",), ("c",)]
    assert judged.numbers()["loss"] == pytest.approx(sum(nats) / 3)


def test_samples_tell_what_was_right() -> None:
    def held() -> Iterator[dict[str, Tensor]]:
        rows = torch.arange(2)
        labels = torch.tensor([0, 1])
        yield {"ids": rows[:, None], "keep": torch.ones(2, 1, dtype=torch.bool), "labels": labels, "rows": rows}

    shown = Classification(held, 2, NAMES, [("first", ["a"]), ("second", ["b"])])
    model = Says([0, 2]).eval()
    shown.judge(model)
    assert shown.samples(model) == ["first → a", "second → c   (should be: b)"]


BIO = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


@pytest.mark.parametrize(
    ("tags_", "found"),
    [
        ("O O", set()),
        ("B-PER I-PER O B-LOC", {(0, 2, "PER"), (3, 4, "LOC")}),
        ("B-PER B-PER", {(0, 1, "PER"), (1, 2, "PER")}),
        ("I-PER I-PER", {(0, 2, "PER")}),
        ("B-PER I-LOC", {(0, 1, "PER"), (1, 2, "LOC")}),
        ("B-PER ? I-PER", {(0, 1, "PER"), (2, 3, "PER")}),
        ("B-PER I-PER E-PER O S-PER", {(0, 3, "PER"), (4, 5, "PER")}),
        ("B-PER L-PER U-LOC B-LOC", {(0, 2, "PER"), (2, 3, "LOC"), (3, 4, "LOC")}),
        ("S-PER I-PER E-PER", {(0, 1, "PER"), (1, 3, "PER")}),
    ],
)
def test_spans(tags_: str, found: set) -> None:
    names = sorted(set(tags_.split()) - {"?"})
    assert spans([names.index(tag) if tag in names else -1 for tag in tags_.split()], names) == found


def test_words_that_were_not_read_are_missed() -> None:
    """Five words, the model reads two of them: the span behind the cut is not found, its words are not right."""
    whole = [np.array([1, 2, 0, 3, 0])]

    def held() -> Iterator[dict[str, Tensor]]:
        batch = tags([[1, 2]])
        yield {**batch, "rows": torch.tensor([0])}

    class Right(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Parameter(F.one_hot(torch.tensor([[1, 2]]), 5).float())

        def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
            return self.out

    numbers = judge(Right().eval(), held(), 1, BIO, tag_scores, whole).numbers()
    assert numbers["accuracy"] == pytest.approx(2 / 5) and numbers["f1"] == pytest.approx(2 / 3)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["PER", "LOC"]), st.integers(1, 3)), max_size=6))
def test_spans_that_are_written_are_read(parts: list[tuple[int, str, int]]) -> None:
    tags_, expected = [], set()
    for gap, kind, length in parts:
        tags_ += ["O"] * gap
        expected.add((len(tags_), len(tags_) + length, kind))
        tags_ += [f"B-{kind}"] + [f"I-{kind}"] * (length - 1)
    assert spans([BIO.index(tag) for tag in tags_], BIO) == expected
