"""What families share at their input: the embedding a config names, and the limit of its positions."""

from collections.abc import Callable

from torch import nn

from pellucid.errors import UserError
from pellucid.models.config import ModelConfig
from pellucid.parts.embeddings import Embedding, Tokens
from pellucid.parts.positions import Learned, Sinusoidal

ABSOLUTE: dict[str, Callable[[ModelConfig], nn.Module | None]] = {
    "sinusoidal": lambda c: Sinusoidal(c.stack.d_model),
    "learned": lambda c: Learned(c.max_length, c.stack.d_model),
    "rotary": lambda c: None,
    "alibi": lambda c: None,
    "t5": lambda c: None,
}


def make_embedding(
    config: ModelConfig, vocab_size: int, segments: nn.Module | None = None, norm: nn.Module | None = None
) -> Embedding:
    """Tokens and absolute positions as the config names them; segments and norm where a family has them."""
    tokens = Tokens(vocab_size, config.stack.d_model, config.pad_id)
    positions = ABSOLUTE[config.positions](config)
    return Embedding(tokens, positions, segments, norm, config.scale_embedding, config.stack.dropout.embedding)


def refuse_too_long(config: ModelConfig, length: int) -> None:
    """Raises UserError when a table of learned positions is too short for `length` tokens; other positions know no end."""
    if config.positions == "learned" and length > config.max_length:
        raise UserError(
            f"the input has {length} tokens, the model knows {config.max_length} positions",
            "shorten the input, or train with a larger model.max_length",
        )
