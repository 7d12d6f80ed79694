"""A config becomes an initialised model."""

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from pellucid.models.bert import BERT
from pellucid.models.config import ModelConfig
from pellucid.models.gpt import GPT
from pellucid.models.seq2seq import Seq2Seq
from pellucid.models.vit import ViT
from pellucid.parts.init import initialise

FAMILIES: dict[str, tuple[type[nn.Module], str]] = {
    "seq2seq": (Seq2Seq, "xavier"),
    "gpt": (GPT, "gpt2"),
    "bert": (BERT, "normal"),
    "vit": (ViT, "normal"),
}


def build(config: ModelConfig, seed: int = 0) -> nn.Module:
    """The model a config describes, its parameters filled from `seed`; under `torch.device("meta")` nothing is allocated."""
    family, scheme = FAMILIES[config.family]
    model = family(config)
    initialise(model, scheme, config.stack.n_layers, seed)
    return model


class _Unfilled(TorchFunctionMode):
    """Nothing is filled: without memory there is nothing to fill, and on the meta device random numbers cost seconds of imports."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        fills = func.__name__ in ("normal_", "uniform_", "kaiming_uniform_", "zero_")
        return (args or (kwargs["tensor"],))[0] if fills else func(*args, **kwargs)


def skeleton(config: ModelConfig) -> nn.Module:
    """The model a config describes, its parameters on the meta device: names and shapes without memory."""
    with torch.device("meta"), _Unfilled():
        return FAMILIES[config.family][0](config)


def count(config: ModelConfig) -> int:
    """The number of parameters, shared ones once, without allocating any."""
    return sum(p.numel() for p in skeleton(config).parameters())
