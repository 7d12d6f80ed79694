"""The one core of all families: blocks of attention and feed-forward, one above the other."""

from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any, Literal

from torch import nn

from pellucid.parts.attention import OPEN, Attention
from pellucid.parts.cache import NO_CACHE, KeyValueCache, LayerCache
from pellucid.parts.config import StackConfig
from pellucid.parts.feedforward import make_feedforward
from pellucid.parts.masks import Mask
from pellucid.parts.norms import make_norm
from pellucid.parts.positions import Alibi, Rotary, T5Bias
from pellucid.parts.residual import Residual
from pellucid.parts.shapes import KeyPositions, Memory, Positions, States


def _attention(config: StackConfig) -> Attention:
    return Attention(
        config.d_model, config.n_heads, config.n_kv_heads, bias=config.bias, dropout=config.dropout.attention
    )


def _residual(config: StackConfig, branch: nn.Module) -> Residual:
    return Residual(branch, make_norm(config.norm, config.d_model), config.residual, config.dropout.residual)


def _feedforward(config: StackConfig) -> Residual:
    c = config
    return _residual(c, make_feedforward(c.feedforward, c.d_model, c.d_ff, c.bias, c.dropout.hidden))


class Block(nn.Module):
    """Self-attention, then feed-forward: an encoder's layer, or with a causal mask a GPT's."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.attention = _residual(config, _attention(config))
        self.feedforward = _feedforward(config)

    def forward(self, x: States, cache: LayerCache = NO_CACHE, **side: Any) -> States:
        """side: mask, bias, angles of the self-attention."""
        return self.feedforward(self.attention(x, cache=cache.own, **side))


class CrossBlock(nn.Module):
    """Self-attention, attention to a memory, feed-forward: a decoder's layer (Vaswani et al. 2017, section 3.1)."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.attention = _residual(config, _attention(config))
        self.cross = _residual(config, _attention(config))
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


PositionKind = Literal["sinusoidal", "learned", "rotary", "alibi", "t5"]

RELATIVE: dict[str, Callable[..., nn.Module]] = {
    "sinusoidal": lambda config, bidirectional, rope: NotRelative(),
    "learned": lambda config, bidirectional, rope: NotRelative(),
    "rotary": lambda config, bidirectional, rope: AsAngles(rope(config.d_model // config.n_heads)),
    "alibi": lambda config, bidirectional, rope: AsBias(Alibi(config.n_heads)),
    "t5": lambda config, bidirectional, rope: AsBias(T5Bias(config.n_heads, bidirectional=bidirectional)),
}


def make_relative(
    kind: PositionKind, config: StackConfig, bidirectional: bool = False, base: float = 10000.0, scaling: Any = None
) -> nn.Module:
    """The relative positions a config names, as the stack takes them."""
    return RELATIVE[kind](config, bidirectional, partial(Rotary, base=base, scaling=scaling))
