"""The pre-norm homes: an encoder-decoder is a Pegasus, a BERT a RoBERTa with its norms first; both ways, to 1e-5."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.pegasus import PEGASUS
from pellucid.parts.config import Norm, StackConfig
from tests.models import parity

pytestmark = pytest.mark.reference
IDS = {"pad_id": 0, "bos_id": 1, "eos_id": 2}
few = settings(max_examples=4)


@st.composite
def stacks(draw: st.DrawFn, feedforward: str) -> StackConfig:
    heads = draw(st.integers(1, 3))
    norm = Norm("layer", 1e-5)
    sizes = {"d_model": heads * draw(st.sampled_from([4, 6])), "n_layers": draw(st.integers(1, 3)), "n_heads": heads}
    return StackConfig(**sizes, d_ff=draw(st.integers(5, 30)), feedforward=feedforward, norm=norm)  # type: ignore[arg-type]


def answers(ours: Any, theirs: Any, seed: int) -> None:
    """Logits, hidden states of both sides, gradients, greedy and beam tokens of an encoder-decoder."""
    source, keep = parity.words(3, 7, ours.config.vocab_size, seed), parity.kept(3, 7)
    source = source.masked_fill(~keep, 0)
    target = parity.words(3, 5, ours.config.vocab_size, seed + 1)
    order = PEGASUS.order(ours.config)
    with parity.watched(ours.encoder) as read, parity.watched(ours.decoder) as said:
        logits = ours(source, target, keep)
    out = theirs(source, keep.long(), target, output_hidden_states=True)
    parity.same(logits, out.logits, "logits")
    parity.same_states(read, out.encoder_hidden_states, keep, order)
    parity.same_states(said, out.decoder_hidden_states, torch.ones_like(target, dtype=torch.bool), order)
    ours.zero_grad()
    theirs.zero_grad()
    for one in (logits, out.logits):
        F.cross_entropy(one.flatten(0, 1), target.flatten()).backward()
    if not ours.config.head_bias:  # which is no parameter of theirs
        parity.same_gradients(ours, theirs, but=[0])
    rows = [row[real].tolist() for row, real in zip(source, keep, strict=True)]
    for beam in (1, 3):
        assert parity.said(ours, rows, beam) == parity.said_by_theirs(theirs, source, keep, beam)


@few
@given(stacks("relu"), st.booleans(), st.booleans(), st.sampled_from([None, 1]), st.integers(0, 99))
def test_a_pegasus_both_ways(
    tmp_path_factory: Any, stack: StackConfig, scaled: bool, bias: bool, layers: int | None, seed: int
) -> None:
    layers = None if layers == stack.n_layers else layers
    config = ModelConfig(
        "seq2seq", stack, 19, 32, "sinusoidal", scale_embedding=scaled, head_bias=bias, decoder_layers=layers, **IDS
    )
    ours, theirs = parity.returned(config, tmp_path_factory.mktemp("out"), seed)
    assert type(theirs).__name__ == "PegasusForConditionalGeneration"
    answers(ours, theirs, seed)
    back = parity.loaded(theirs, tmp_path_factory.mktemp("in"))
    assert replace(back.config, head_bias=bias) == config  # theirs writes a bias that is not there as zeros
    answers(back.eval(), theirs, seed)


@few
@given(stacks("gelu"), st.sampled_from(["words", "labels", "tags", "vector"]), st.integers(0, 99))
def test_a_pre_norm_bert_both_ways(tmp_path_factory: Any, stack: StackConfig, head: str, seed: int) -> None:
    labels: dict[str, Any] = {"labels": ("a", "b", "c"), "n_labels": 3} if head in ("labels", "tags") else {}
    ids = {"pad_id": seed % 3, "bos_id": None, "eos_id": None}
    config = ModelConfig("bert", stack, 19, 16, "learned", head=head, **labels, **ids)  # type: ignore[arg-type]
    ours, theirs = parity.returned(config, tmp_path_factory.mktemp("out"), seed)
    assert type(theirs).__name__.startswith("RobertaPreLayerNorm")
    alike(ours, theirs, seed)
    alike(parity.loaded(theirs, tmp_path_factory.mktemp("in")), theirs, seed)


def alike(ours: Any, theirs: Any, seed: int) -> None:
    """Answers and gradients; padding on either side, for there, too, places are counted over real tokens. (A label theirs reads from the
    first place, which must not be padding.)"""
    by_place = ours.config.head in ("words", "tags")
    for left in (True, False) if by_place else (False,):
        keep = parity.kept(3, 7, left)
        ids = parity.words(3, 7, 19, seed).masked_fill(~keep, ours.config.pad_id)
        segments = (parity.words(3, 7, 19, seed + 1) % 2).masked_fill(~keep, 0)
        said, out = ours(ids, keep, segments), theirs(ids, keep.long(), segments)
        reference = out.pooler_output if ours.config.head == "vector" else out.logits
        said, reference = (said[keep], reference[keep]) if by_place else (said, reference)
        parity.same(said, reference, "answers")
        push = torch.randn(said.shape, generator=torch.Generator().manual_seed(seed))
        for model, answer in ((ours, said), (theirs, reference)):
            model.zero_grad()
            (answer * push).mean().backward()
        parity.same_gradients(ours, theirs, but=[ours.config.pad_id])
