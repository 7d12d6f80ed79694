"""Seq2Seq: an encoder reads the source, a decoder writes the target and looks back at it (Vaswani et al. 2017)."""

from dataclasses import replace
from functools import partial

from torch import nn

from pellucid.models.config import ModelConfig
from pellucid.models.inputs import in_line, make_embedding, make_relative, make_tokens, refuse_too_long
from pellucid.parts.cache import KeyValueCache, positions_of
from pellucid.parts.heads import make_head
from pellucid.parts.masks import Mask
from pellucid.parts.norms import make_norm, working
from pellucid.parts.places import Places
from pellucid.parts.shapes import Ids, Keep, Logits, Memory, SourceIds, SourceKeep, States
from pellucid.parts.stack import Block, CrossBlock, Stack


class Seq2Seq(nn.Module):
    """One table of tokens for both sides, tied to the head, as in the paper; with `decoder_vocab_size` the decoder has its own, as
    tutorials write it. Learned positions and norms of the embeddings are each side's own.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, c = config, config
        decoder = replace(c.stack, n_layers=c.stack.n_layers if c.decoder_layers is None else c.decoder_layers)
        tokens = make_tokens(c, c.vocab_size)
        theirs = make_tokens(c, c.decoder_vocab_size) if c.decoder_vocab_size else tokens
        self.embed, self.embed_target = (make_embedding(c, one, norm=self._norm()) for one in (tokens, theirs))
        self.encoder = Stack(c.stack, partial(Block, heads=c.heads), make_relative(c, bidirectional=True))
        self.decoder = Stack(decoder, partial(CrossBlock, heads=c.heads), make_relative(c))
        self.head = make_head(self.embed_target.tokens, c.tied, c.head_bias, c.head_scale)

    def _norm(self) -> nn.Module | None:
        return make_norm(self.config.stack.norm, self.config.stack.d_model) if self.config.embedding_norm else None

    def forward(
        self, source: SourceIds, target: Ids, source_keep: SourceKeep | None = None, target_keep: Keep | None = None
    ) -> Logits:
        """source [B,S], target [B,T] (starting with the start token) to logits [B,T,V]; keep True on real tokens."""
        memory = self.encode(source, source_keep)
        return self.head(self.decode(target, memory, source_keep, target_keep))

    def encode(self, source: SourceIds, keep: SourceKeep | None = None) -> Memory:
        """The source [B,S] as memory [B,S,D]. Raises UserError when it is longer than the model's positions."""
        positions, keys = positions_of(keep, source.shape[1], 0, source.device)
        refuse_too_long(self.config, source.shape[1])
        mask = Mask(window=self.config.window, keep=keep)
        return working(self.encoder(self.embed(source, positions), positions, keys, mask=mask))

    def decode(
        self,
        ids: Ids,
        memory: Memory,
        memory_keep: SourceKeep | None = None,
        keep: Keep | None = None,
        cache: KeyValueCache | None = None,
        places: Places | None = None,
    ) -> States:
        """Target ids [B,T] to states [B,T,D] before the head. keep [B,K], K = cache.length + T. places: where the tokens stand, if not one
        behind the other. With a cache, the memory's keys and values are computed at the first call and then remembered."""
        positions, keys, mask = places or in_line(self.config, ids, keep, cache)
        side = {"mask": mask, "memory": memory, "memory_mask": Mask(keep=memory_keep)}
        return self.decoder(self.embed_target(ids, positions), positions, keys, cache, **side)

    def new_cache(self) -> KeyValueCache:
        """An empty cache for generation."""
        return KeyValueCache(len(self.decoder.blocks))
