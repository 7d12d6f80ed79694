"""Names of well-known sizes. Published parameter counts hold exactly (tests/models/test_presets.py)."""

from dataclasses import replace

from pellucid.errors import UserError, did_you_mean
from pellucid.models.config import ModelConfig
from pellucid.parts.config import Dropout, Norm, StackConfig


def _original(d_model: int, n_heads: int, d_ff: int, n_layers: int = 6, dropout: float = 0.1) -> ModelConfig:
    """Post-norm, sinusoidal positions, scaled embeddings shared by both sides and the head (Vaswani et al. 2017, table 3)."""
    rates = Dropout(embedding=dropout, residual=dropout)
    stack = StackConfig(d_model, n_layers, n_heads, None, d_ff, "relu", residual="post", dropout=rates)
    return ModelConfig(
        "seq2seq", stack, 37000, positions="sinusoidal", scale_embedding=True, pad_id=0, bos_id=1, eos_id=2
    )


def _gpt2(d_model: int, n_layers: int, n_heads: int) -> ModelConfig:
    rates = Dropout(0.1, 0.1, 0.0, 0.1)
    stack = StackConfig(d_model, n_layers, n_heads, None, 4 * d_model, "gelu_tanh", dropout=rates)
    return ModelConfig("gpt", stack, 50257, 1024, "learned", bos_id=50256, eos_id=50256)


def _llama(d_model: int, n_layers: int, n_heads: int, n_kv_heads: int, d_ff: int) -> ModelConfig:
    """RMS norm, rotary positions, SwiGLU, grouped queries, no biases (Touvron et al. 2023)."""
    stack = StackConfig(d_model, n_layers, n_heads, n_kv_heads, d_ff, "swiglu", Norm("rms"), bias=False)
    return ModelConfig("gpt", stack, 8000, 512, "rotary", pad_id=0, bos_id=1, eos_id=2)


_BERT = StackConfig(768, 12, 12, None, 3072, "gelu", Norm("layer", 1e-12), "post", dropout=Dropout(0.1, 0.1, 0.0, 0.1))
_VIT = StackConfig(768, 12, 12, None, 3072, "gelu", Norm("layer", 1e-12))

PRESETS: dict[str, ModelConfig] = {
    "original-base": _original(512, 8, 2048),
    "original-big": _original(1024, 16, 4096, dropout=0.3),
    "original-laptop": replace(_original(256, 4, 1024, 3), vocab_size=8000),
    "gpt2": _gpt2(768, 12, 12),
    "gpt2-medium": _gpt2(1024, 24, 16),
    "gpt2-large": _gpt2(1280, 36, 20),
    "gpt2-xl": _gpt2(1600, 48, 25),
    "llama-like": _llama(384, 6, 6, 2, 1024),
    "llama-like-laptop": _llama(256, 4, 4, 2, 688),
    "bert-base": ModelConfig("bert", _BERT, 30522, 512, "learned", pad_id=0),
    "bert-laptop": ModelConfig(
        "bert", replace(_BERT, d_model=256, n_layers=4, n_heads=4, d_ff=1024), 8000, 256, "learned", pad_id=0
    ),
    "vit-b16": ModelConfig("vit", _VIT, positions="learned", head="labels", n_labels=1000),
    "vit-laptop": ModelConfig(
        "vit",
        replace(_VIT, d_model=128, n_layers=4, n_heads=4, d_ff=512),
        positions="learned",
        head="labels",
        n_labels=10,
        image_size=28,
        patch_size=7,
        channels=1,
    ),
}


def preset(name: str) -> ModelConfig:
    """The config of that name; an unknown one is a UserError with the closest known."""
    if name not in PRESETS:
        raise UserError(f"no preset is called {name!r}", did_you_mean(name, PRESETS))
    return PRESETS[name]
