"""A config becomes an initialised model."""

import torch
from torch import nn

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


def count(config: ModelConfig) -> int:
    """The number of parameters, shared ones once, without allocating any."""
    with torch.device("meta"):
        return sum(p.numel() for p in build(config).parameters())
