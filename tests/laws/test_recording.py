"""Law 7: recording changes no output."""

import pytest
import torch

from pellucid.errors import UserError
from pellucid.parts.taps import edit, record, record_attention
from tests.families import ALL, SEQ2SEQS, TEXT, close, ids, make


def run(model: torch.nn.Module) -> torch.Tensor:
    if model.config.family == "vit":
        return model(torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    return model(ids(2, 6), ids(2, 5)) if hasattr(model, "encode") else model(ids(2, 6))


@pytest.mark.parametrize("name", ALL)
def test_recording_changes_no_output(name: str) -> None:
    model = make(name)
    with torch.no_grad():
        plain = run(model)
        with record(model, "*.attention", "*.feedforward") as states, record_attention(model) as weights:
            recorded = run(model)
        after = run(model)
    assert torch.equal(plain, recorded) and torch.equal(plain, after)
    assert states and all(len(kept) == 1 for kept in states.values())
    for (kept,) in weights.values():
        assert close(kept.sum(-1), torch.ones(kept.shape[:-1]))


@pytest.mark.parametrize("name", TEXT)
def test_recorded_weights_give_the_recorded_result(name: str) -> None:
    """The proof that the weights shown are those used: weights @ values is what the kernel gave."""
    model = make(name)
    stack = "decoder" if name in SEQ2SEQS else "stack"
    attend = f"{stack}.blocks.0.attention.branch.attend"
    values: list[torch.Tensor] = []
    hook = model.get_submodule(attend).register_forward_hook(lambda m, args, out: values.append(args[2]))
    with torch.no_grad(), record(model, attend) as mixed, record_attention(model, attend) as weights:
        run(model)
    hook.remove()
    v = values[0].repeat_interleave(weights[attend][0].shape[1] // values[0].shape[1], dim=1)
    assert close(weights[attend][0] @ v, mixed[attend][0])


def test_an_edit_reaches_the_output_and_ends() -> None:
    model = make("llama")
    with torch.no_grad():
        plain = run(model)
        with edit(model, {"stack.blocks.0.attention": torch.zeros_like}):
            edited = run(model)
        assert not close(plain, edited) and torch.equal(plain, run(model))


def test_an_unknown_name_is_said() -> None:
    with pytest.raises(UserError, match="did you mean 'stack'"):
        with record(make("llama"), "stak"):
            pass
