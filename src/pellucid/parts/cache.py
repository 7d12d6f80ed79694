"""What attention remembers: keys and values of the past, and those of a memory, which are computed once.

State lives with its user: generation makes a cache, passes it to the model and reorders it when beams move.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Compute = Callable[[], tuple[Tensor, Tensor]]


class Growing:
    """Keys and values of one layer's own past, [B,G,T,C] each; room is doubled when it runs out."""

    def __init__(self) -> None:
        self.length = 0
        self._room: tuple[Tensor, Tensor] | None = None

    def recall(self, compute: Compute) -> tuple[Tensor, Tensor]:
        """Computes keys and values of the new tokens, appends them, returns all."""
        new = compute()
        start, self.length = self.length, self.length + new[0].shape[2]
        if self._room is None or self._room[0].shape[2] < self.length:
            self._room = self._grown(0, new[0], start), self._grown(1, new[1], start)
        keys, values = self._room
        keys[:, :, start : self.length], values[:, :, start : self.length] = new
        return keys[:, :, : self.length], values[:, :, : self.length]

    def _grown(self, which: int, new: Tensor, used: int) -> Tensor:
        room = new.new_empty(*new.shape[:2], max(64, 2 * self.length), new.shape[3])
        if self._room is not None:
            room[:, :, :used] = self._room[which][:, :, :used]
        return room

    def select(self, rows: Tensor, moved: Tensor | None = None) -> None:
        if self._room is not None:
            self._room = tuple(_selected(side, rows, moved) for side in self._room)  # type: ignore[assignment]

    def pick(self, keys: Tensor) -> None:
        if self._room is not None:
            keys, self.length = keys[:, None, :, None], keys.shape[1]
            keys, values = (side.gather(2, keys.expand(-1, side.shape[1], -1, side.shape[3])) for side in self._room)
            self._room = keys, values

    def fold(self, n: int) -> None:
        if self._room is not None:
            used = (side[:, :, : self.length].unflatten(0, (-1, n)) for side in self._room)  # [B,n,G,T,C]
            self._room = tuple(side.transpose(1, 2).flatten(2, 3) for side in used)  # type: ignore[assignment]
            self.length *= n


class Fixed:
    """Keys and values of a memory: computed at the first call, then returned."""

    def __init__(self) -> None:
        self._kept: tuple[Tensor, Tensor] | None = None

    def recall(self, compute: Compute) -> tuple[Tensor, Tensor]:
        """Returns what is kept; computes it the first time."""
        if self._kept is None:
            self._kept = compute()
        return self._kept

    def select(self, rows: Tensor, moved: Tensor | None = None) -> None:
        if self._kept is not None:
            self._kept = tuple(_selected(side, rows, moved) for side in self._kept)  # type: ignore[assignment]


def _selected(side: Tensor, rows: Tensor, moved: Tensor | None) -> Tensor:
    """These rows; where only those at `moved` are not in their place already, and come from behind, the others stay where they are."""
    if moved is None:
        return side[rows]
    side[moved] = side[rows[moved]]
    return side[: len(rows)]


@dataclass
class LayerCache:
    """One layer's two slots; None = do not remember."""

    own: Growing | None = field(default_factory=Growing)
    memory: Fixed | None = field(default_factory=Fixed)


NO_CACHE = LayerCache(None, None)


class KeyValueCache:
    """One `LayerCache` per layer. `length` = tokens remembered."""

    def __init__(self, n_layers: int) -> None:
        self.layers = [LayerCache() for _ in range(n_layers)]

    @property
    def length(self) -> int:
        own = self.layers[0].own if self.layers else None
        return own.length if own else 0

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in this order, repeats allowed (int64 [B']). Rows at the end that fill the places of others that
        go are all that is copied."""
        elsewhere = (rows != torch.arange(len(rows), device=rows.device)).nonzero().squeeze(1)
        from_behind = bool((rows[elsewhere] >= len(rows)).all())
        for layer in self.layers:
            for slot in (layer.own, layer.memory):
                if slot is not None:
                    slot.select(rows, elsewhere if from_behind else None)

    def pick(self, keys: Tensor) -> None:
        """Of each row's own past, keep the keys at these places (int64 [B,K'])."""
        for layer in self.layers:
            if layer.own is not None:
                layer.own.pick(keys)

    def fold(self, n: int) -> None:
        """The own pasts of every n rows in a row become one row's, behind one another: [B·n,G,T,C] to [B,G,n·T,C]."""
        for layer in self.layers:
            if layer.own is not None:
                layer.own.fold(n)


def past(cache: KeyValueCache | None) -> int:
    """Tokens already remembered; 0 without a cache."""
    return 0 if cache is None else cache.length


def positions_of(keep: Tensor | None, n_new: int, n_past: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Position ids of the new tokens [B|1,T] and of all keys [B|1,K]: counted over real tokens, so padding on either side shifts
    nothing.
    """
    if keep is None:
        keys = torch.arange(n_past + n_new, device=device).unsqueeze(0)
    else:
        keys = (keep.long().cumsum(-1) - 1).clamp_(min=0)
    return keys[:, n_past:], keys
