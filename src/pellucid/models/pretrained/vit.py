"""ViT (Dosovitskiy et al. 2021) and the encoder of a masked autoencoder (ViT-MAE, He et al. 2022) as `transformers` lays them out."""

import re
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import DataError
from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.bert import stack_of, stack_said
from pellucid.models.pretrained.family import Family, Theirs, head_of
from pellucid.models.pretrained.fields import (
    OTHER_DROPOUT,
    honour,
    is_size,
    labels_of,
    labels_said,
)
from pellucid.models.pretrained.mapping import IN_ONE_ROW, Row, both, per_layer, row
from pellucid.parts.embeddings import BehindClass
from pellucid.parts.positions import Sinusoidal2d

POSITIONS = "pellucid_positions"  # a field of ours, where the stored positions are computed ones
HONOURED = {
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "hidden_dropout_prob", "layer_norm_eps",
    "attention_probs_dropout_prob", "image_size", "patch_size", "num_channels", "vocab_size", OTHER_DROPOUT,
    "num_labels", "_num_labels", "encoder_stride",  # encoder_stride is the decoder's
}  # fmt: skip
ONLY: dict[str, Any] = {"qkv_bias": True}
FEEDFORWARDS = ("gelu", "gelu_tanh", "relu", "silu")


# --- what they share -----------------------------------------------------------------------------------------------------


def _config(theirs: Theirs, positions: Any, **said: Any) -> ModelConfig:
    """config.json, whose fields are known to be honoured, as a ModelConfig."""
    stack = stack_of(theirs, "pre")
    sizes: dict[str, Any] = {"image_size": _square(theirs, "image_size"), "patch_size": _square(theirs, "patch_size")}
    channels, size = theirs.get("num_channels", 3), theirs.get("vocab_size") or 0
    return ModelConfig("vit", stack, size, positions=positions, channels=channels, **sizes, **said)


def _square(theirs: Theirs, name: str) -> int:
    """A side. Raises DataError where height and width differ."""
    sides = theirs[name] if isinstance(theirs[name], list) else [theirs[name]] * 2
    if len(sides) != 2 or sides[0] != sides[1] or not is_size(sides[0]):
        raise DataError(f"config.json: {name} = {theirs[name]!r} is not supported, only squares")
    return sides[0]


def _fields(c: ModelConfig) -> dict[str, Any]:
    """A ModelConfig as config.json."""
    sizes = {"image_size": c.image_size, "patch_size": c.patch_size, "num_channels": c.channels}
    return stack_said(c) | sizes | {"qkv_bias": True}


LAYER = {
    **{f"attention.attention.{name}": f"attention.branch.{name}" for name in ("query", "key", "value")},
    "attention.output.dense": "attention.branch.out",
    "layernorm_before": "attention.norm_in",
    "layernorm_after": "feedforward.norm_in",
    "intermediate.dense": "feedforward.branch.up",
    "output.dense": "feedforward.branch.down",
}


def _base(c: ModelConfig) -> str:
    return "vit." if c.n_labels else ""


def rows(c: ModelConfig) -> list[Row]:
    """The table of names."""
    base = _base(c)
    embeddings = [
        row(base + "embeddings.cls_token", "embed.class_token"),
        *both(base + "embeddings.patch_embeddings.projection", "embed.project"),
    ]
    if c.positions == "learned":
        embeddings.append(row(base + "embeddings.position_embeddings", "embed.positions.weight", form=IN_ONE_ROW))
    layer = base + "encoder.layer.{i}."
    layers = [line for name, of in LAYER.items() for line in both(layer + name, "stack.blocks.{i}." + of)]
    head = both("classifier", "classifier") if c.n_labels else []
    if c.head == "vector":
        head = both("pooler.dense", "classifier.dense")
    return [*embeddings, *per_layer(layers, c.stack.n_layers), *both(base + "layernorm", "stack.norm"), *head]


def computed(c: ModelConfig) -> dict[str, Tensor]:
    """The table of positions that are computed here and stored there, [1,1+P,D]."""
    if c.positions == "learned":
        return {}
    side = c.image_size // c.patch_size
    positions = BehindClass(Sinusoidal2d(c.stack.d_model, side))
    return {_base(c) + "embeddings.position_embeddings": positions(torch.arange(1 + side**2).unsqueeze(0))}


IN_MEMORY = {
    r"layers\.(\d+)\.attention\.o_proj": r"encoder.layer.\1.attention.output.dense",
    r"layers\.(\d+)\.attention\.q_proj": r"encoder.layer.\1.attention.attention.query",
    r"layers\.(\d+)\.attention\.k_proj": r"encoder.layer.\1.attention.attention.key",
    r"layers\.(\d+)\.attention\.v_proj": r"encoder.layer.\1.attention.attention.value",
    r"layers\.(\d+)\.mlp\.fc1": r"encoder.layer.\1.intermediate.dense",
    r"layers\.(\d+)\.mlp\.fc2": r"encoder.layer.\1.output.dense",
    r"layers\.(\d+)\.layernorm": r"encoder.layer.\1.layernorm",
}
"""Names of version 5 while a model is in memory (`state_dict`) -> those of all its files."""


def tidy(name: str, c: ModelConfig) -> str | None:
    """The name of a tensor in a file as the table has it; None for what fills and paints masked patches, and for a pooled vector where
    there are labels."""
    name = name.removeprefix("vit.")
    if name.startswith("decoder.") or name == "embeddings.mask_token" or (name.startswith("pooler.") and c.n_labels):
        return None
    for pattern, stored in IN_MEMORY.items():
        name = re.sub("^" + pattern, stored, name)
    return name if name.startswith("classifier.") else _base(c) + name


# --- ViT -----------------------------------------------------------------------------------------------------------------

HEADS = {
    "ViTModel": "vector",
    "ViTForImageClassification": "labels",
    "ViTForMaskedImageModeling": "states",
}
MARKS = {"labels": ["classifier."], "vector": ["pooler."], "states": []}


def to_config(theirs: Theirs, names: Collection[str]) -> ModelConfig:
    """config.json as a ModelConfig. Raises DataError naming a field that cannot be honoured."""
    head = head_of(theirs, names, HEADS, MARKS)
    only: dict[str, Any] = ONLY | {POSITIONS: "sinusoidal2d"}
    if head == "vector":
        only |= {"pooler_act": ("tanh", "relu"), "pooler_output_size": (None, theirs["hidden_size"])}
    honour(theirs, HONOURED if head == "vector" else {*HONOURED, "pooler_act", "pooler_output_size"}, only)
    said: dict[str, Any] = {"head": head} | (labels_of(theirs, regresses=True) if head == "labels" else {})
    pooler = theirs.get("pooler_act")
    return _config(theirs, theirs.get(POSITIONS) or "learned", pooler="relu" if pooler == "relu" else "tanh", **said)


def from_config(c: ModelConfig) -> dict[str, Any]:
    """A ModelConfig as config.json."""
    positions = {} if c.positions == "learned" else {POSITIONS: c.positions}
    return _fields(c) | {"pooler_act": c.pooler} | positions | labels_said(c)


VIT = Family(
    model_type="vit",
    standard={
        "family": "vit",
        "positions": ("learned", "sinusoidal2d"),
        "stack.feedforward": FEEDFORWARDS,
        "head": ("labels", "vector", "states", "words"),  # "words", which it has none of: as its labels say
        "pooler": ("tanh", "relu"),
    },
    free=("image_size", "patch_size", "channels"),
    to_config=to_config,
    from_config=from_config,
    architecture=lambda c: "ViTForImageClassification" if c.n_labels else "ViTModel",
    rows=rows,
    tidy=tidy,
    computed=computed,
)

# --- ViT-MAE -------------------------------------------------------------------------------------------------------------

MAE_HEADS = {"ViTMAEModel": "states", "ViTMAEForPreTraining": "states"}
MAE_HONOURED = {
    "decoder_hidden_size", "decoder_intermediate_size", "decoder_num_attention_heads", "decoder_num_hidden_layers", "mask_ratio",
    "norm_pix_loss",
}  # fmt: skip


def mae_config(theirs: Theirs, names: Collection[str]) -> ModelConfig:
    """config.json as a ModelConfig: of the encoder, which sees every patch; what is masked, and the decoder, are pre-training's."""
    head_of(theirs, names, MAE_HEADS, {"states": []})
    honour(theirs, HONOURED | MAE_HONOURED, ONLY)
    return _config(theirs, "sinusoidal2d", head="states")


VIT_MAE = Family(
    model_type="vit_mae",
    standard={
        "family": "vit",
        "positions": "sinusoidal2d",
        "stack.feedforward": FEEDFORWARDS,
        "head": ("states", "words"),
        "n_labels": 0,
    },
    free=("image_size", "patch_size", "channels"),
    to_config=mae_config,
    from_config=lambda c: _fields(c) | {"mask_ratio": 0.0},  # nothing is masked: it is an encoder
    architecture=lambda c: "ViTMAEModel",
    rows=rows,
    tidy=tidy,
    computed=computed,
)
