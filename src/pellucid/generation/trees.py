"""What a beam search remembers: of each input a tree of tokens, whose leaves are the beams.

Each token is read once and its keys and values stay where they are, though its beam ends or several go on from it: what moves is a table of
which keys a leaf sees, its own ancestors. A memory is held once for each input, and its beams are queries beside one another. Keys that no
leaf sees any more are thrown away when half of them are such; texts part late, so few are left. (SpecInfer, Miao et al. 2024, section 4.2,
reads trees in this way to check guesses.)
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pellucid.generation.speakers import pad, start_ids
from pellucid.models.config import ModelConfig
from pellucid.parts.cache import KeyValueCache, positions_of
from pellucid.parts.masks import Mask
from pellucid.parts.places import Places

Text = tuple[int, ...]
FULL = 64
"""Keys from which it is looked whether some can be thrown away."""


class Sources:
    """Each input has been read by the encoder; texts start as the model does, then go on with their prefix."""

    def __init__(self, model: Any, inputs: Sequence[Sequence[int]], prefixes: Sequence[Sequence[int]]) -> None:
        self.model = model
        self.begun = [(*start_ids(model.config), *prefix) for prefix in prefixes]
        self.memory, self.keep = encoded(model, inputs)

    def states(self, ids: Tensor, keep: Tensor | None, cache: Any, places: Places | None) -> Tensor:
        """Of new tokens, before the head."""
        return self.model.decode(ids, self.memory, self.keep, keep, cache, places)

    def select(self, rows: Tensor) -> None:
        """Keep these inputs."""
        self.memory, self.keep = self.memory[rows], self.keep[rows]


class Prompts:
    """Texts go on from their inputs and prefixes."""

    def __init__(self, model: Any, inputs: Sequence[Sequence[int]], prefixes: Sequence[Sequence[int]]) -> None:
        self.model = model
        pairs = zip(inputs, prefixes, strict=True)
        self.begun = [(*(prompt or start_ids(model.config)), *prefix) for prompt, prefix in pairs]

    def states(self, ids: Tensor, keep: Tensor | None, cache: Any, places: Places | None) -> Tensor:
        """Of new tokens, before the head."""
        return self.model.hidden(ids, keep, cache, places)

    def select(self, rows: Tensor) -> None:
        """Nothing is kept but what the cache holds."""


ROOTS: dict[str, type[Prompts] | type[Sources]] = {"gpt": Prompts, "seq2seq": Sources}


def encoded(model: Any, inputs: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """The memory [B,S,D] of inputs, and keep [B,S], True where it is real. Inputs in a row that are about as long are read together."""
    device = next(model.parameters()).device
    groups: list[list[Sequence[int]]] = []
    for ids in inputs:
        last = groups[-1] if groups else []
        alike = last and 0.75 * max(map(len, last)) <= len(ids) <= 1.33 * min(map(len, last))
        if alike:
            last.append(ids)
        else:
            groups.append([ids])
    widest = max(1, *map(len, inputs)) if inputs else 1
    parts = []
    for group in groups:
        source, keep = pad(group, left=False, device=device)
        filled = (0, 0, 0, widest - source.shape[1])
        parts.append(nn.functional.pad(model.encode(source, keep), filled))
    return torch.cat(parts), pad(inputs, left=False, device=device)[1]


class Trees:
    """One tree per input, all with as many leaves. A context that has become longer than the model's `max_length` is cut to its last
    max_length // 2 tokens and read afresh."""

    def __init__(self, model: Any, inputs: Sequence[Sequence[int]], prefixes: Sequence[Sequence[int]]) -> None:
        self.model = model
        self.config: ModelConfig = model.config
        self.device = next(model.parameters()).device
        with torch.no_grad():
            self.root = ROOTS[self.config.family](self.model, inputs, prefixes)
        self.history: list[list[Text]] = [[self._view(begun)] for begun in self.root.begun]
        self.cache: KeyValueCache = self.model.new_cache()
        self.full = FULL
        self.places = torch.zeros(len(self.history), 1, dtype=torch.long, device=self.device)
        self.keys = self.places[:, :0]
        self.seen = self.keys[:, None].bool()

    @torch.no_grad()
    def next_logits(
        self, parents: Sequence[Sequence[int]] | None = None, tokens: Sequence[Sequence[int]] | None = None
    ) -> Float[Tensor, "B W V"]:
        """Logits [B,W,V], float32, behind the beginnings (W = 1), or when each tree has grown W new leaves: `tokens` behind those of its
        leaves that are its `parents` [B,W]."""
        if parents is None or tokens is None:
            states = self._read()
        else:
            grown = zip(self.history, parents, tokens, strict=True)
            self.history = [
                [(*leaves[parent], token) for parent, token in zip(*new, strict=True)] for leaves, *new in grown
            ]
            if max(map(len, (leaves[0] for leaves in self.history))) > self.config.max_length:
                self.history = [[self._view(text) for text in leaves] for leaves in self.history]
                states = self._read()
            else:
                states = self._grow(torch.tensor(parents), torch.tensor(tokens))
        return self.model.head(states).float()

    def select(self, rows: Sequence[int]) -> None:
        """Keep these trees, in this order."""
        if list(rows) == list(range(len(self.history))):
            return
        index = torch.tensor(rows, dtype=torch.long, device=self.device)
        self.history = [self.history[row] for row in rows]
        self.root.select(index)
        self.cache.select(index)
        self.seen, self.places, self.keys = self.seen[index], self.places[index], self.keys[index]

    def _view(self, text: Text) -> Text:
        return text if len(text) <= self.config.max_length else text[-max(1, self.config.max_length // 2) :]

    def _read(self) -> Tensor:
        """All texts from their beginnings, each by itself; the states [B,W,D] of their last tokens. Only prompts grow so long that several
        leaves are read: an answer ends at max_length."""
        n_trees, width = len(self.history), len(self.history[0])
        self.cache, self.full = self.model.new_cache(), FULL
        ids, keep = pad([text for leaves in self.history for text in leaves], left=True, device=self.device)
        length, keys = ids.shape[1], positions_of(keep, ids.shape[1], 0, self.device)[1]
        self.places, self.keys = keys[:, -1].view(n_trees, width), keys.reshape(n_trees, -1)
        own = torch.eye(width, dtype=torch.bool, device=self.device).repeat_interleave(length, 1)
        self.seen = keep.view(n_trees, 1, -1) & own
        states = self.root.states(ids, None if bool(keep.all()) else keep, self.cache, None)
        if width > 1:
            self.cache.fold(width)
        return states[:, -1].view(n_trees, width, -1)

    def _grow(self, parents: Tensor, tokens: Tensor) -> Tensor:
        parents, tokens = parents.to(self.device), tokens.to(self.device)
        rows = torch.arange(len(parents), device=self.device)[:, None]
        self._tidy(rows, parents)
        own = torch.eye(parents.shape[1], dtype=torch.bool, device=self.device).expand(len(parents), -1, -1)
        self.seen = torch.cat((self.seen[rows, parents], own), dim=-1)
        self.places = self.places[rows, parents] + 1
        self.keys = torch.cat((self.keys, self.places), dim=-1)
        return self.root.states(tokens, None, self.cache, self._in_tree(self.places, self.seen))

    def _in_tree(self, positions: Tensor, pairs: Tensor) -> Places:
        if self.config.window is not None:
            pairs = pairs & (positions[:, :, None] - self.keys[:, None] < self.config.window)
        return Places(positions, self.keys, Mask(pairs=pairs))

    def _tidy(self, rows: Tensor, parents: Tensor) -> None:
        """Throws away the keys that no parent sees, when they are half of all or more."""
        if self.keys.shape[1] < self.full:
            return
        alive = self.seen[rows, parents].any(1)
        n = int(alive.sum(1).max())
        self.full = max(FULL, 2 * n)
        if 2 * n <= alive.shape[1]:
            picked = alive.int().argsort(dim=1, descending=True, stable=True)[:, :n]
            self.cache.pick(picked)
            self.keys = self.keys.gather(1, picked)
            self.seen = self.seen.gather(2, picked[:, None].expand(-1, self.seen.shape[1], -1))
