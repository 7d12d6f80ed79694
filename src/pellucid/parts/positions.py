"""Where things are: every classic way to tell a Transformer the order of its tokens.

Three kinds, told apart by where they enter. *Added to the embeddings*: `Sinusoidal`, `Learned`,
`Sinusoidal2d`. *Turning queries and keys*: `Rotary` makes the angles once for the whole stack, `rotate`
applies them in each layer. *Added to the scores*: `Alibi`, `T5Bias`, `Swin2d`.

Positions are given as ids, long tensors [B|1,T], of queries and of keys; nothing here assumes that they start
at 0 or are the same in every row, so left padding, caching and packing need no special case. What can be
computed is computed where it is used, in float32 or better, and is no buffer: casting a model to bf16 cannot
spoil it.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pellucid.errors import UserError
from pellucid.parts.rotary_scaling import FREQUENCIES, check_scaling, yarn_magnitude

Positions = Int[Tensor, "#B T"]
Angles = Float[Tensor, "2 #B 1 T half"]  # cosine, sine


def _exact(device: torch.device) -> torch.dtype:
    """The finest floating type of a device: at position 512 a float32 angle is already 3e-5 off, more than
    parity allows.
    """
    return torch.float32 if device.type == "mps" else torch.float64


class Sinusoidal(nn.Module):
    """Sine and cosine in turns, wavelengths from 2 pi to 10000 * 2 pi (Vaswani et al. 2017, section 3.5). Any
    length; no parameters.

    Dimension 2i is sin(p / base^(2i/d_model)), dimension 2i+1 the cosine of the same angle; an odd width ends
    on a sine.
    """

    def __init__(self, d_model: int, base: float = 10000.0) -> None:
        super().__init__()
        self.d_model, self.base = d_model, base

    def forward(self, positions: Positions) -> Float[Tensor, "#B T D"]:
        """Positions [B|1,T] to float32 vectors [B|1,T,D]."""
        exact = _exact(positions.device)
        exponent = torch.arange(0, self.d_model, 2, device=positions.device, dtype=exact) / self.d_model
        angles = positions.unsqueeze(-1).to(exact) * self.base**-exponent
        pairs = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)
        return pairs[..., : self.d_model].float()

    def extra_repr(self) -> str:
        return f"d_model={self.d_model}, base={self.base:g}"


class Learned(nn.Module):
    """One trained vector per position (Gehring et al. 2017; BERT, GPT-2). It knows `n_positions` of them: the
    model refuses longer inputs.
    """

    def __init__(self, n_positions: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_positions, d_model))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, positions: Positions) -> Float[Tensor, "#B T D"]:
        """Positions [B|1,T] below `n_positions` to vectors [B|1,T,D]."""
        return nn.functional.embedding(positions, self.weight)


class Sinusoidal2d(nn.Module):
    """Fixed vectors of patches on a grid of any height, numbered row by row. The layout of MAE (He et al. 2022, appendix A).

    The first half of `d_model` tells the column, the second half the row ("here w goes first" in MAE's code); each half is all sines,
    then all cosines. d_model must be a multiple of 4. `width`: patches in a row of the grid.
    """

    def __init__(self, d_model: int, width: int, base: float = 10000.0) -> None:
        super().__init__()
        if d_model % 4:
            raise UserError(
                f"2-D sinusoidal positions need a width that is a multiple of 4, not {d_model}", "change d_model"
            )
        self.d_model, self.width, self.base = d_model, width, base

    def forward(self, positions: Positions) -> Float[Tensor, "#B T D"]:
        """Numbers of patches [B|1,P] to float32 vectors [B|1,P,D]."""
        exact = _exact(positions.device)
        quarter = self.d_model // 4
        frequency = self.base ** -(torch.arange(quarter, device=positions.device, dtype=exact) / quarter)
        places = (positions % self.width, positions // self.width)
        angles = [place.unsqueeze(-1).to(exact) * frequency for place in places]
        return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=-1).float()


class Rotary(nn.Module):
    """Angles that turn queries and keys so that their dot product depends on the distance only (Su et al.
    2021, RoFormer).

    The angles of a set of positions are made once and serve every layer: `rotate(x, angles)`. `scaling`
    stretches positions for contexts longer than those trained on: None, a number (linear; Chen et al. 2023)
    or a dict as Hugging Face's config.json writes it (`rope_parameters` or `rope_scaling`) of type default,
    linear, llama3 or yarn (Peng et al. 2023, which also lengthens queries and keys); a `rope_theta` in it stands
    for `base`. Angles and rotation are computed in float32. Raises UserError naming what is not supported.
    """

    def __init__(self, head_dim: int, base: float = 10000.0, scaling: float | Mapping | None = None) -> None:
        super().__init__()
        if head_dim % 2:
            raise UserError(f"rotary positions need an even head width, not {head_dim}", "change d_model or n_heads")
        linear = {"rope_type": "linear", "factor": scaling} if scaling else {}
        given: Mapping[str, Any] = scaling if isinstance(scaling, Mapping) else linear
        self.head_dim, self.base = head_dim, float(given.get("rope_theta") or base)
        self.scaling = dict(given)
        self.kind = str(given.get("rope_type") or given.get("type") or "default")
        check_scaling(self.kind, given)

    def forward(self, positions: Positions) -> Angles:
        """Cosine and sine of the angles at positions [B|1,T]: float32 [2,B|1,1,T,C/2]."""
        angles = positions[:, None, :, None].float() * self.frequencies(positions.device)
        return torch.stack((angles.cos(), angles.sin())) * self.magnitude()

    def frequencies(self, device: torch.device) -> Float[Tensor, "half"]:
        """Radians per position for each of the C/2 pairs, scaling included."""
        waves = self.base ** (torch.arange(0, self.head_dim, 2, device=device).float() / self.head_dim)
        return FREQUENCIES[self.kind](waves, self.scaling, self.base)

    def magnitude(self) -> float:
        """What queries and keys are multiplied with: 1, but for yarn."""
        return yarn_magnitude(self.scaling) if self.kind == "yarn" else 1.0

    def extra_repr(self) -> str:
        return f"head_dim={self.head_dim}, base={self.base:g}, scaling={self.kind}"


def rotate(x: Float[Tensor, "B H T C"], angles: Angles | None) -> Float[Tensor, "B H T C"]:
    """Turn heads x [B,H,T,C] by the angles of `Rotary`; None = not at all.

    Dimension i turns with dimension i + C/2 (half-split, the layout of Llama's weights).
    """
    if angles is None:
        return x
    cos, sin = angles.unbind(0)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


class Alibi(nn.Module):
    """The farther, the less: -slope * |query - key| is added to the scores, one fixed slope per head (Press
    et al. 2022). No parameters.

    With 2^n heads the slopes are 2^(-8/H), 2^(-16/H), …, 2^-8; another number of heads takes those of the
    next lower power of two, then every other one of the next higher, as the authors' code does. Symmetric, so
    encoders may use it; who may look at all is the mask's matter.
    """

    def __init__(self, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads

    def slopes(self, device: torch.device | None = None) -> Float[Tensor, "H"]:
        """The slope of each head [H], float32, all positive."""
        lower = 2 ** (self.n_heads.bit_length() - 1)
        first = torch.arange(1, lower + 1, device=device) * (-8.0 / lower)
        between = (2 * torch.arange(self.n_heads - lower, device=device) + 1) * (-4.0 / lower)
        return torch.exp2(torch.cat((first, between)))

    def forward(
        self, query_positions: Int[Tensor, "#B Q"], key_positions: Int[Tensor, "#B K"]
    ) -> Float[Tensor, "#B H Q K"]:
        """Positions of queries [B|1,Q] and keys [B|1,K] to a float32 bias [B|1,H,Q,K]."""
        distance = (query_positions[:, None, :, None] - key_positions[:, None, None, :]).abs()
        return -self.slopes(query_positions.device)[:, None, None] * distance

    def extra_repr(self) -> str:
        return f"n_heads={self.n_heads}"


class T5Bias(nn.Module):
    """A trained bias per head and bucket of distances (Raffel et al. 2020, section 2.1). Near distances have
    a bucket each, far ones share.

    bidirectional: half of the buckets for keys after the query (encoders); otherwise those all count as
    distance 0 (decoders, where the mask hides them). All distances from `max_distance` on share the last
    bucket. `weight` is [n_buckets, n_heads].
    """

    def __init__(self, n_heads: int, n_buckets: int = 32, max_distance: int = 128, bidirectional: bool = True) -> None:
        super().__init__()
        self.n_buckets, self.max_distance, self.bidirectional = n_buckets, max_distance, bidirectional
        self.weight = nn.Parameter(torch.empty(n_buckets, n_heads))
        nn.init.normal_(self.weight, std=0.02)

    def forward(
        self, query_positions: Int[Tensor, "#B Q"], key_positions: Int[Tensor, "#B K"]
    ) -> Float[Tensor, "#B H Q K"]:
        """Positions of queries [B|1,Q] and keys [B|1,K] to a bias [B|1,H,Q,K] in the type of the weights."""
        buckets = self.buckets(key_positions[:, None, :] - query_positions[:, :, None])
        return nn.functional.embedding(buckets, self.weight).permute(0, 3, 1, 2)

    def buckets(self, offsets: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """The bucket of each offset (key - query), of any shape."""
        count = self.n_buckets // 2 if self.bidirectional else self.n_buckets
        side = (offsets > 0).long() * count if self.bidirectional else 0
        distance = offsets.abs() if self.bidirectional else (-offsets).clamp(min=0)
        exact = count // 2
        growth = torch.log(distance.clamp(min=exact).float() / exact) / math.log(self.max_distance / exact)
        far = (exact + (growth * (count - exact)).long()).clamp(max=count - 1)
        return side + torch.where(distance < exact, distance, far)

    def extra_repr(self) -> str:
        buckets, heads = self.weight.shape
        sides = f"bidirectional={self.bidirectional}"
        return f"n_heads={heads}, n_buckets={buckets}, max_distance={self.max_distance}, {sides}"


class Swin2d(nn.Module):
    """A trained bias per head and 2-D offset within a window of height x width patches (Liu et al. 2021,
    section 3.2).

    `weight` is [(2*height-1) * (2*width-1), n_heads], offsets (query - key) row by row, as in Swin's
    checkpoints.
    """

    def __init__(self, n_heads: int, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        self.weight = nn.Parameter(torch.empty((2 * height - 1) * (2 * width - 1), n_heads))
        nn.init.normal_(self.weight, std=0.02)

    def forward(
        self, query_positions: Int[Tensor, "#B Q"], key_positions: Int[Tensor, "#B K"]
    ) -> Float[Tensor, "#B H Q K"]:
        """Numbers of patches in the window, row by row, of queries [B|1,Q] and keys [B|1,K], to a bias [B|1,H,Q,K]."""
        query, key = query_positions.unsqueeze(-1), key_positions.unsqueeze(-2)
        down = query // self.width - key // self.width + self.height - 1
        right = query % self.width - key % self.width + self.width - 1
        return self.weight[down * (2 * self.width - 1) + right].permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"n_heads={self.weight.shape[1]}, height={self.height}, width={self.width}"
