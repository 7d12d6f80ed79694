"""Law 2: padding changes nothing, on either side; a row alone equals the same row in any batch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.models.gpt import GPT
from tests.families import SEQ2SEQS, TEXT, VOCABULARY, close, ids, make

lengths = st.lists(st.integers(1, 12), min_size=1, max_size=4)


def padded(rows: list[torch.Tensor], left: bool, extra: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of different lengths as one batch [B,T], filled with junk tokens, and keep."""
    width = max(len(row) for row in rows) + extra
    batch, keep = torch.full((len(rows), width), 5), torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        batch[i, place], keep[i, place] = row, True
    return batch, keep


def run(model: torch.nn.Module, batch: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
    """States of the side that reads the batch."""
    if hasattr(model, "encode"):
        return model.encode(batch, keep)
    return model.hidden(batch, keep)


@pytest.mark.parametrize("name", TEXT)
@given(lengths=lengths, left=st.booleans(), extra=st.integers(0, 3))
def test_padding_changes_nothing(name: str, lengths: list[int], left: bool, extra: int) -> None:
    model = make(name)
    rows = [ids(1, n, seed=i)[0] for i, n in enumerate(lengths)]
    batch, keep = padded(rows, left, extra)
    with torch.no_grad():
        states = run(model, batch, keep)
        for i, row in enumerate(rows):
            assert close(states[i][keep[i]], run(model, row[None], None)[0])
    assert states.isfinite().all()


@pytest.mark.parametrize("name", SEQ2SEQS)
@given(lengths=lengths, left=st.booleans())
def test_padded_source_changes_no_target(name: str, lengths: list[int], left: bool) -> None:
    model = make(name)
    rows = [ids(1, n, seed=i)[0] for i, n in enumerate(lengths)]
    batch, keep = padded(rows, left, 2)
    target = ids(len(rows), 6, seed=9)
    with torch.no_grad():
        logits = model(batch, target, keep)
        for i, row in enumerate(rows):
            assert close(logits[i], model(row[None], target[i : i + 1])[0])


@pytest.mark.parametrize("name", ["bert-labels", "bert-vector"])
@given(lengths=lengths, left=st.booleans())
def test_padding_changes_no_answer_about_a_text(name: str, lengths: list[int], left: bool) -> None:
    model = make(name)
    rows = [ids(1, n, seed=i)[0] for i, n in enumerate(lengths)]
    batch, keep = padded(rows, left, 2)
    with torch.no_grad():
        answers = model(batch, keep)
        for i, row in enumerate(rows):
            assert close(answers[i], model(row[None])[0])


@pytest.mark.parametrize("name", TEXT)
def test_padding_takes_and_gives_no_gradient(name: str) -> None:
    """Neither the padding token's row nor the embedding of padded places is ever trained, tied head included."""
    model = make(name).train()
    batch, keep = padded([ids(1, 4)[0], ids(1, 7, seed=1)[0]], left=False, extra=1)
    batch = batch.masked_fill(~keep, 0)
    logits = model(batch, batch, keep, keep) if hasattr(model, "encode") else model(batch, keep)
    if logits.shape[-1] == VOCABULARY:
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.flatten()).backward()
    else:
        (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    tables = [m for m in model.modules() if getattr(m, "pad_id", None) == 0]
    assert tables
    for table in tables:
        assert (table.weight[0] == 0).all() and (table.weight.grad[0] == 0).all()
        assert table.weight.grad[3:].abs().sum() > 0


def test_rows_of_padding_only_stay_finite() -> None:
    model = make("llama")
    assert isinstance(model, GPT)
    batch, keep = ids(2, 5), torch.zeros(2, 5, dtype=torch.bool)
    keep[0] = True
    out = model(batch, keep)
    out[0].sum().backward()
    assert out.isfinite().all() and all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
