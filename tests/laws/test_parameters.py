"""Law 10: every parameter is initialised by the table and trained."""

import pytest
import torch
from torch import nn

from pellucid.models.build import FAMILIES, build
from pellucid.parts.init import initialise
from tests.families import ALL
from tests.laws.test_recording import run


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_is_filled_by_the_table_alone(name: str) -> None:
    config = ALL[name]
    family, scheme = FAMILIES[config.family]
    model = family(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    initialise(model, scheme, config.stack.n_layers, seed=5)
    for (name, filled), built in zip(model.named_parameters(), build(config, 5).parameters(), strict=True):
        assert filled.isfinite().all(), name
        assert torch.equal(filled, built), name


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_is_trained(name: str) -> None:
    model = build(ALL[name], 1).train()
    with torch.no_grad():
        for parameter in model.parameters():  # zeros hide dead ends
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    out = run(model)
    loss = (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))).sum()
    loss.backward()
    # a bias on keys shifts all scores of a query alike: the softmax does not feel it
    dead = [
        n for n, p in model.named_parameters() if p.grad is None or (p.grad.abs().sum() < 1e-7 and "key.bias" not in n)
    ]
    assert not dead


def test_a_parameter_no_line_fits_is_an_error() -> None:
    model = nn.Module()
    model.odd = nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match="fits odd"):
        initialise(model, "gpt2", 1)
