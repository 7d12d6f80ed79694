"""Law 1: no gradient flows from an output to later inputs. Law 2 has the same for padding."""

import pytest
import torch

from tests.families import GPTS, SEQ2SEQS, ids, make


def influence(outputs: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """[T,T]: how strongly output t depends on input s, by gradients of a random projection."""
    direction = torch.randn(outputs.shape[-1], generator=torch.Generator().manual_seed(1))
    rows = []
    for t in range(outputs.shape[1]):
        (gradient,) = torch.autograd.grad((outputs[0, t] @ direction), inputs, retain_graph=True)
        rows.append(gradient[0].abs().sum(-1))
    return torch.stack(rows)


@pytest.mark.parametrize("name", GPTS)
@pytest.mark.parametrize("length", [1, 2, 9])
def test_gpt_sees_no_future(name: str, length: int) -> None:
    model = make(name)
    kept = []
    hook = model.embed.register_forward_hook(lambda m, a, out: kept.append(out.requires_grad_()) or out)
    logits = model(ids(1, length))
    hook.remove()
    matrix = influence(logits, kept[0])
    window = model.config.window or length  # each layer sees so far, and together they see farther
    reach = model.config.stack.n_layers * (window - 1)
    assert (matrix.triu(1) == 0).all() and (matrix.tril(-reach - 1) == 0).all()
    assert ((matrix > 0) == torch.ones(length, length).tril().triu(-reach).bool()).all()


@pytest.mark.parametrize("name", SEQ2SEQS)
def test_decoder_sees_no_future_but_the_whole_source(name: str) -> None:
    model = make(name)
    memory = model.encode(ids(1, 5)).detach().requires_grad_()
    kept = []
    hook = model.embed_target.register_forward_hook(lambda m, a, out: kept.append(out.requires_grad_()) or out)
    logits = model.head(model.decode(ids(1, 7, seed=1), memory))
    hook.remove()
    assert (influence(logits, kept[0]).triu(1) == 0).all()
    assert (influence(logits, memory) > 0).all()
