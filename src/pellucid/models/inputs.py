"""What families share at their input: the embedding and the positions a config names, and the limit of those."""

from collections.abc import Callable

from torch import Tensor, nn

from pellucid.errors import UserError
from pellucid.models.config import ModelConfig
from pellucid.parts.cache import KeyValueCache, past, positions_of
from pellucid.parts.embeddings import Embedding, Tokens
from pellucid.parts.masks import Mask
from pellucid.parts.places import Places
from pellucid.parts.positions import Alibi, Learned, Rotary, Sinusoidal, T5Bias
from pellucid.parts.stack import AsAngles, AsBias

Absolute = Callable[[ModelConfig], nn.Module | None]
Relative = Callable[[ModelConfig, bool], nn.Module | None]

POSITIONS: dict[str, tuple[Absolute, Relative]] = {
    "sinusoidal": (lambda c: Sinusoidal(c.stack.d_model), lambda c, both: None),
    "learned": (lambda c: Learned(c.max_length, c.stack.d_model), lambda c, both: None),
    "rotary": (lambda c: None, lambda c, both: AsAngles(Rotary(c.head_dim, c.rope_base, c.rope_scaling))),
    "alibi": (lambda c: None, lambda c, both: AsBias(Alibi(c.stack.n_heads))),
    "t5": (
        lambda c: None,
        lambda c, both: AsBias(T5Bias(c.stack.n_heads, c.relative_buckets, c.relative_distance, both)),
    ),
}
"""What is added to the embeddings, and what attention is told: (config, whether tokens see what comes after them)."""


def make_tokens(config: ModelConfig, vocab_size: int) -> Tokens:
    """A table of vectors; a padding token that also starts or ends texts is trained like any other."""
    c = config
    speaks = c.pad_id in (c.bos_id, c.eos_id, *c.start, *c.ends)
    return Tokens(vocab_size, c.stack.d_model, None if speaks else c.pad_id)


def make_embedding(
    config: ModelConfig, tokens: Tokens, segments: nn.Module | None = None, norm: nn.Module | None = None
) -> Embedding:
    """Tokens and absolute positions as the config names them; segments and norm where a family has them."""
    c = config
    return Embedding(tokens, _of(c)[0](c), segments, norm, c.scale_embedding, c.stack.dropout.embedding)


def make_relative(config: ModelConfig, bidirectional: bool = False) -> nn.Module | None:
    """The relative positions a config names, as the stack takes them."""
    return _of(config)[1](config, bidirectional)


def _of(config: ModelConfig) -> tuple[Absolute, Relative]:
    if config.positions not in POSITIONS:
        raise UserError(f"a {config.family} has no positions {config.positions!r}", f"choose {', '.join(POSITIONS)}")
    return POSITIONS[config.positions]


def refuse_too_long(config: ModelConfig, length: int) -> None:
    """Raises UserError when a table of learned positions is too short for `length` tokens; other positions know no end."""
    if config.positions == "learned" and length > config.max_length:
        raise UserError(
            f"the input has {length} tokens, the model knows {config.max_length} positions",
            "shorten the input, or train with a larger model.max_length",
        )


def in_line(config: ModelConfig, ids: Tensor, keep: Tensor | None, cache: KeyValueCache | None) -> Places:
    """New tokens [B,T] one behind the other, behind those in the cache; each sees what is before it and within the window. keep [B,K] True
    on real tokens. Raises UserError when the positions would exceed the model's table."""
    positions, keys = positions_of(keep, ids.shape[1], past(cache), ids.device)
    refuse_too_long(config, keys.shape[1])
    return Places(positions, keys, Mask(causal=True, window=config.window, keep=keep))
