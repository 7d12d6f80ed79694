"""GPT: a decoder alone. An input, a causal mask and a head (Radford et al. 2018; 2019; Touvron et al. 2023)."""

from functools import partial

from torch import nn

from pellucid.models.config import ModelConfig
from pellucid.models.inputs import in_line, make_embedding, make_relative, make_tokens
from pellucid.parts.cache import KeyValueCache
from pellucid.parts.heads import make_head
from pellucid.parts.places import Places
from pellucid.parts.shapes import Ids, Keep, Logits, States
from pellucid.parts.stack import Block, Stack


class GPT(nn.Module):
    """Each token's states know only the tokens before it. GPT-2's or Llama's shape is a matter of the config."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, c = config, config
        self.embed = make_embedding(c, make_tokens(c, c.vocab_size))
        self.stack = Stack(c.stack, partial(Block, heads=c.heads), make_relative(c))
        self.head = make_head(self.embed.tokens, c.tied, c.head_bias, c.head_scale)

    def forward(self, ids: Ids, keep: Keep | None = None, cache: KeyValueCache | None = None) -> Logits:
        """[B,T] to logits [B,T,V]. keep [B,K] True on real tokens, K = cache.length + T; None = all. The cache grows by T."""
        return self.head(self.hidden(ids, keep, cache))

    def hidden(
        self,
        ids: Ids,
        keep: Keep | None = None,
        cache: KeyValueCache | None = None,
        places: Places | None = None,
    ) -> States:
        """As forward, but the states [B,T,D] before the head. places: where the tokens stand, if not one behind the other. Raises
        UserError when the positions would exceed the model's table."""
        positions, keys, mask = places or in_line(self.config, ids, keep, cache)
        return self.stack(self.embed(ids, positions), positions, keys, cache, mask=mask)

    def new_cache(self) -> KeyValueCache:
        """An empty cache for generation."""
        return KeyValueCache(len(self.stack.blocks))
