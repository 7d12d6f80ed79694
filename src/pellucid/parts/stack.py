"""The one core of all families: blocks of attention and feed-forward, one above the other."""

from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any

from torch import nn

from pellucid.parts.attention import OPEN, Attention, Widths
from pellucid.parts.cache import NO_CACHE, KeyValueCache, LayerCache
from pellucid.parts.config import Heads, StackConfig
from pellucid.parts.feedforward import make_feedforward
from pellucid.parts.masks import Mask
from pellucid.parts.norms import HeadNorm, make_norm
from pellucid.parts.positions import Rotary
from pellucid.parts.residual import Residual
from pellucid.parts.scores import Dot, ScaledDot
from pellucid.parts.shapes import KeyPositions, Memory, Positions, States

SCORES: dict[str, type[nn.Module]] = {"scaled_dot": ScaledDot, "dot": Dot}
USUAL = Heads()


def _attention(config: StackConfig, heads: Heads) -> Attention:
    c = config
    return Attention(
        c.d_model,
        c.n_heads,
        c.n_kv_heads,
        Widths(c.d_model, c.d_model, c.d_model, heads.width),
        {None: c.bias, "none": False, "inputs": "inputs", "all": True}[heads.bias],  # type: ignore[arg-type]
        SCORES[heads.score](),
        partial(HeadNorm, eps=c.norm.eps) if heads.norm == "rms" else None,
        c.dropout.attention,
    )


def _residual(config: StackConfig, branch: nn.Module) -> Residual:
    return Residual(branch, make_norm(config.norm, config.d_model), config.residual, config.dropout.residual)


def _feedforward(config: StackConfig) -> Residual:
    c = config
    return _residual(c, make_feedforward(c.feedforward, c.d_model, c.d_ff, c.bias, c.dropout.hidden))


class Block(nn.Module):
    """Self-attention, then feed-forward: an encoder's layer, or with a causal mask a GPT's."""

    def __init__(self, config: StackConfig, heads: Heads = USUAL) -> None:
        super().__init__()
        self.attention = _residual(config, _attention(config, heads))
        self.feedforward = _feedforward(config)

    def forward(self, x: States, cache: LayerCache = NO_CACHE, **side: Any) -> States:
        """side: mask, bias, angles of the self-attention."""
        return self.feedforward(self.attention(x, cache=cache.own, **side))


class CrossBlock(nn.Module):
    """Self-attention, attention to a memory, feed-forward: a decoder's layer (Vaswani et al. 2017, section 3.1)."""

    def __init__(self, config: StackConfig, heads: Heads = USUAL) -> None:
        super().__init__()
        self.attention = _residual(config, _attention(config, heads))
        self.cross = _residual(config, _attention(config, heads))
        self.feedforward = _feedforward(config)

    def forward(
        self, x: States, memory: Memory, memory_mask: Mask = OPEN, cache: LayerCache = NO_CACHE, **side: Any
    ) -> States:
        """memory [B,S,D]; side: mask, bias, angles of the self-attention."""
        x = self.attention(x, cache=cache.own, **side)
        x = self.cross(x, keys=memory, mask=memory_mask, cache=cache.memory)
        return self.feedforward(x)


class NotRelative(nn.Module):
    """The unused slot of relative positions."""

    def forward(self, query_positions: Positions, key_positions: KeyPositions) -> dict[str, Any]:
        """Nothing for attention to know."""
        return {}


class AsAngles(nn.Module):
    """Positions that turn queries and keys."""

    def __init__(self, rotary: Rotary) -> None:
        super().__init__()
        self.rotary = rotary

    def forward(self, query_positions: Positions, key_positions: KeyPositions) -> dict[str, Any]:
        """The angles of the new tokens; remembered keys are turned already."""
        angles = self.rotary(query_positions)
        return {"angles": (angles, angles)}


class AsBias(nn.Module):
    """Positions that are added to the scores."""

    def __init__(self, relative: nn.Module) -> None:
        super().__init__()
        self.relative = relative

    def forward(self, query_positions: Positions, key_positions: KeyPositions) -> dict[str, Any]:
        """The bias [1|B,H,Q,K] all layers share."""
        return {"bias": self.relative(query_positions, key_positions)}


class Stack(nn.Module):
    """n_layers blocks; a final norm where the residuals are pre-norm; relative positions worked out once for all layers."""

    def __init__(
        self, config: StackConfig, block: Callable[[StackConfig], nn.Module] = Block, relative: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.relative = relative or NotRelative()
        self.blocks = nn.ModuleList(block(config) for _ in range(config.n_layers))
        self.norm = make_norm(config.norm, config.d_model) if config.residual == "pre" else nn.Identity()

    def forward(
        self,
        x: States,
        positions: Positions,
        key_positions: KeyPositions | None = None,
        cache: KeyValueCache | None = None,
        **side: Any,
    ) -> States:
        """[B,T,D] to [B,T,D]. positions of the tokens in x, key_positions of all they may look at, past ones included (None = the same)."""
        side |= self.relative(positions, positions if key_positions is None else key_positions)
        for block, layer in zip(self.blocks, cache.layers if cache else repeat(NO_CACHE), strict=False):
            x = block(x, cache=layer, **side)
        return self.norm(x)
