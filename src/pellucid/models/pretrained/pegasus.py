"""Pegasus as `transformers` lays it out (Zhang et al. 2020): Marian's encoder-decoder with its norms before each part and one at the end.

The layout that an encoder-decoder of the paper has when it is pre-norm.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pellucid.models.config import ModelConfig
from pellucid.models.pretrained import marian
from pellucid.models.pretrained.family import Family, Theirs
from pellucid.models.pretrained.fields import start_misfits
from pellucid.models.pretrained.mapping import Row, both
from pellucid.parts.positions import Sinusoidal

OWN = {"extra_pos_embeddings"}
ONLY = {
    "normalize_before": True,
    "add_final_layer_norm": True,
    "normalize_embedding": False,
    "static_position_embeddings": True,
    "tie_word_embeddings": True,
}


def to_config(theirs: Theirs, names: Collection[str]) -> ModelConfig:
    """config.json as a ModelConfig. Raises DataError naming a field that cannot be honoured."""
    stack, common = marian.sides(theirs, OWN, ONLY)
    bias = "final_logits_bias" in names
    return ModelConfig(**common, stack=replace(stack, residual="pre"), positions="sinusoidal", head_bias=bias)


def rows(c: ModelConfig) -> list[Row]:
    """The table of names: Marian's, norms at the other end of their parts, and one behind each side."""
    there = [replace(r, ours=tuple(name.replace(".norm_out.", ".norm_in.") for name in r.ours)) for r in marian.rows(c)]
    return there + both("model.encoder.layer_norm", "encoder.norm") + both("model.decoder.layer_norm", "decoder.norm")


def from_config(c: ModelConfig) -> dict[str, Any]:
    """A ModelConfig as config.json."""
    return marian.fields(c)


def computed(c: ModelConfig) -> dict[str, Tensor]:
    """The sines and cosines that files carry along, [max_length, D] for each side."""
    table = Sinusoidal(c.stack.d_model)(torch.arange(c.max_length).unsqueeze(0))[0]
    theirs = table.index_select(1, torch.argsort(marian.order(c)))
    return {f"model.{side}.embed_positions.weight": theirs.clone() for side in ("encoder", "decoder")}


PEGASUS = Family(
    model_type="pegasus",
    standard=marian.STANDARD | {"positions": "sinusoidal", "stack.residual": "pre"},
    free=marian.FREE,
    to_config=to_config,
    from_config=from_config,
    architecture=lambda c: "PegasusForConditionalGeneration",
    rows=rows,
    tidy=marian.tidy,
    order=marian.order,
    computed=computed,
    misfits=start_misfits,
)
