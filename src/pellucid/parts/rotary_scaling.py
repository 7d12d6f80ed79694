"""Rotary scalings: how fast pairs turn in texts longer than those trained on, as Hugging Face's config.json names it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import UserError, did_you_mean

SCALINGS: dict[str, tuple[str, ...]] = {  # the kinds of rotary scaling and the fields that each one needs
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
}
OF_ALL = ("rope_type", "type", "rope_theta", "partial_rotary_factor")
OPTIONAL = {"yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")}


def check_scaling(kind: str, given: Mapping[str, Any]) -> None:
    """Raises UserError naming a kind or a field that is not supported, or one that is missing."""
    if kind == "dynamic":  # neither cached nor padded batches would give what a text gives alone
        problem = "rotary scaling 'dynamic' is not supported: its angles change with the longest text of a batch"
        raise UserError(problem, "leave rope_scaling out: up to max_position_embeddings tokens it has no effect")
    if kind not in SCALINGS:
        raise UserError(f"rotary scaling {kind!r} is not supported", did_you_mean(kind, SCALINGS))
    if given.get("partial_rotary_factor", 1.0) != 1.0:
        raise UserError("rotary positions on a part of the head (partial_rotary_factor) are not supported")
    missing = [name for name in SCALINGS[kind] if name not in given]
    if missing:
        raise UserError(f"rotary scaling {kind!r} lacks {', '.join(missing)}", "add the field to rope_scaling")
    strange = given.keys() - {*OF_ALL, *SCALINGS[kind], *OPTIONAL.get(kind, ())}
    if strange:
        raise UserError(f"rotary scaling {kind!r} has no {', '.join(sorted(strange))}", "take it out of rope_scaling")


def _llama3(waves: Tensor, scaling: Mapping[str, Any], base: float) -> Tensor:
    """Llama 3.1's scaling: long waves are slowed by `factor`, short ones kept, those between blended.

    `low` and `high` count how often a wave fits into the context `trained` on: below `low` it is long, above
    `high` short.
    """
    factor, low, high, trained = (float(scaling[name]) for name in SCALINGS["llama3"])
    plain = 1.0 / waves
    fits = trained / (2 * math.pi / plain)  # rounds as the reference does
    blend = ((fits - low) / (high - low)).clamp(0, 1)
    return (1 - blend) * plain / factor + blend * plain


def _yarn(waves: Tensor, scaling: Mapping[str, Any], base: float) -> Tensor:
    """YaRN (Peng et al. 2023, section 3.2): as `_llama3`, but blended along the pairs, between those two whose wave fits `beta_fast` and
    `beta_slow` times into the context trained on.
    """
    factor, trained = float(scaling["factor"]), scaling["original_max_position_embeddings"]
    width = 2 * len(waves)
    turns = (scaling.get("beta_fast") or 32, scaling.get("beta_slow") or 1)
    low, high = (width * math.log(trained / (n * 2 * math.pi)) / (2 * math.log(base)) for n in turns)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    ramp = (torch.arange(len(waves), device=waves.device).float() - low) / ((high - low) or 0.001)
    keep = 1 - ramp.clamp(0, 1)
    return 1.0 / (factor * waves) * (1 - keep) + 1.0 / waves * keep


def yarn_magnitude(scaling: Mapping[str, Any]) -> float:
    """What stands in for a temperature of attention (section 3.4): given, or 0.1 ln(factor) + 1, with `mscale` in both parts of a ratio."""
    if scaling.get("attention_factor") is not None:
        return float(scaling["attention_factor"])
    growth = math.log(max(1.0, scaling["factor"]))
    above, below = scaling.get("mscale"), scaling.get("mscale_all_dim")
    return (0.1 * above * growth + 1) / (0.1 * below * growth + 1) if above and below else 0.1 * growth + 1


Scaled = Callable[[Tensor, Mapping[str, Any], float], Tensor]
FREQUENCIES: dict[str, Scaled] = {  # radians per position from base^(2i/C), the fields of the scaling and the base
    "default": lambda waves, scaling, base: 1.0 / waves,
    "linear": lambda waves, scaling, base: 1.0 / waves / float(scaling["factor"]),
    "llama3": _llama3,
    "yarn": _yarn,
}
SCALED_FROM = tuple(kind for kind, fields in SCALINGS.items() if "original_max_position_embeddings" in fields)
