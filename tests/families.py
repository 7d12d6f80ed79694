"""Tiny models of every family and shape, for the laws."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from pellucid.models.build import build
from pellucid.models.config import ModelConfig
from pellucid.parts.config import Dropout, Heads, Norm, StackConfig

VOCABULARY = 17
STACK = StackConfig(d_model=16, n_layers=2, n_heads=4, d_ff=32)
MODERN = replace(STACK, n_kv_heads=2, feedforward="swiglu", norm=Norm("rms"), bias=False)
IDS = {"pad_id": 0, "bos_id": 1, "eos_id": 2}

GPTS: dict[str, ModelConfig] = {
    "gpt2": ModelConfig("gpt", replace(STACK, feedforward="gelu_tanh"), VOCABULARY, 64, "learned", **IDS),
    "llama": ModelConfig("gpt", MODERN, VOCABULARY, 64, "rotary", **IDS),
    "alibi": ModelConfig(
        "gpt", replace(STACK, n_kv_heads=1), VOCABULARY, 64, "alibi", tied=False, head_bias=True, **IDS
    ),
    "t5-gpt": ModelConfig("gpt", replace(STACK, residual="post"), VOCABULARY, 64, "t5", **IDS),
    "mistral": ModelConfig("gpt", MODERN, VOCABULARY, 64, "rotary", window=3, tied=False, **IDS),
    "qwen2": ModelConfig("gpt", MODERN, VOCABULARY, 64, "rotary", Heads(bias="inputs"), **IDS),
    "qwen3": ModelConfig("gpt", MODERN, VOCABULARY, 64, "rotary", Heads(width=6, norm="rms"), **IDS),
}
SEQ2SEQS: dict[str, ModelConfig] = {
    "original": ModelConfig(
        "seq2seq",
        replace(STACK, feedforward="relu", residual="post"),
        VOCABULARY,
        64,
        "sinusoidal",
        scale_embedding=True,
        **IDS,
    ),
    "tutorial": ModelConfig(
        "seq2seq", STACK, VOCABULARY, 64, "learned", tied=False, head_bias=True, decoder_vocab_size=VOCABULARY, **IDS
    ),
    "modern": ModelConfig("seq2seq", MODERN, VOCABULARY, 64, "rotary", decoder_layers=1, **IDS),
    "t5": ModelConfig(
        "seq2seq",
        replace(STACK, bias=False, feedforward="geglu_tanh", norm=Norm("rms")),
        VOCABULARY,
        64,
        "t5",
        Heads(width=6, score="dot"),
        head_scale=0.25,
        **IDS,
    ),
    "bart": ModelConfig(
        "seq2seq", replace(STACK, residual="post"), VOCABULARY, 64, "learned", embedding_norm=True, start=(2, 1), **IDS
    ),
}
BERT = ModelConfig("bert", replace(STACK, residual="post"), VOCABULARY, 64, "learned", **IDS)
BERTS: dict[str, ModelConfig] = {
    "bert": BERT,
    "bert-labels": replace(BERT, head="labels", n_labels=3),
    "bert-tags": replace(BERT, head="tags", n_labels=3),
    "bert-vector": replace(BERT, head="vector"),
    "distilbert-labels": replace(BERT, head="labels", n_labels=3, n_segments=0, pooler="relu"),
    "bert-states": replace(BERT, head="states"),
}
VITS: dict[str, ModelConfig] = {
    "vit": ModelConfig(
        "vit", STACK, positions="learned", head="labels", n_labels=3, image_size=8, patch_size=4, channels=1
    ),
    "vit-2d": ModelConfig(
        "vit", STACK, positions="sinusoidal2d", head="labels", n_labels=3, image_size=8, patch_size=4, channels=1
    ),
}
TEXT: dict[str, ModelConfig] = GPTS | SEQ2SEQS | BERTS
ALL: dict[str, ModelConfig] = TEXT | VITS


def make(name: str, dropout: float = 0.0, seed: int = 3) -> nn.Module:
    """The tiny model of that name, with weights large enough for differences to show, in evaluation mode."""
    config = ALL[name]
    config = replace(config, stack=replace(config.stack, dropout=Dropout(*[dropout] * 4)))
    model = build(config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 0.1
        for module in model.modules():
            if getattr(module, "pad_id", None) is not None and hasattr(module, "weight"):
                module.weight[module.pad_id] = 0
    return model.eval()


def ids(batch: int, length: int, seed: int = 0) -> Tensor:
    """Random real tokens [batch, length]."""
    return torch.randint(3, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def close(ours: Tensor, reference: Tensor, tolerance: float = 1e-5) -> bool:
    """Within tolerance * max(1, |reference|) everywhere."""
    return bool(((ours - reference).abs() <= tolerance * reference.abs().clamp(min=1)).all())
