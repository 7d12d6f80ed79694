"""Taps: read or edit what flows through a model, from outside, by name. Free when off: nothing stands in the way.

Every module of the stack is a tap, named as in `model.named_modules()`: "stack.blocks.3.attention" is the residual stream behind layer 3's
attention, "stack.blocks.3.attention.branch.attend" its mixed values [B,H,Q,C]. Names may hold * and ?.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import UserError, did_you_mean
from pellucid.parts.attention import Attend, attend_explicit


def find(model: nn.Module, pattern: str) -> dict[str, nn.Module]:
    """The modules whose names match; a UserError when none does."""
    modules = dict(model.named_modules())
    found = {name: module for name, module in modules.items() if fnmatchcase(name, pattern)}
    if not found:
        raise UserError(f"no part of this model is called {pattern!r}", did_you_mean(pattern, filter(None, modules)))
    return found


@contextmanager
def record(model: nn.Module, *patterns: str) -> Iterator[dict[str, list[Tensor]]]:
    """Within the block, what the named parts give is kept: name -> one detached tensor per call."""
    kept: dict[str, list[Tensor]] = {}

    def keeper(name: str) -> Callable:
        return lambda module, args, out: kept.setdefault(name, []).append(out.detach())

    found = {name: module for pattern in patterns for name, module in find(model, pattern).items()}
    with _removed([module.register_forward_hook(keeper(name)) for name, module in found.items()]):
        yield kept


@contextmanager
def edit(model: nn.Module, edits: dict[str, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Within the block, what each named part gives is replaced by its function's result."""

    def editor(change: Callable[[Tensor], Tensor]) -> Callable:
        return lambda module, args, out: change(out)

    pairs = [(module, change) for pattern, change in edits.items() for module in find(model, pattern).values()]
    with _removed([module.register_forward_hook(editor(change)) for module, change in pairs]):
        yield


@contextmanager
def record_attention(model: nn.Module, pattern: str = "*attend") -> Iterator[dict[str, list[Tensor]]]:
    """Within the block, attention weights [B,H,Q,K] are worked out beside whatever kernel runs: name -> one float32 tensor per call."""
    kept: dict[str, list[Tensor]] = {}

    def keeper(name: str) -> Callable:
        @torch.no_grad()
        def keep(module: Attend, args: tuple[Any, ...], out: Tensor) -> None:
            q, k, v, mask, bias = args
            kept.setdefault(name, []).append(
                attend_explicit(q.float(), k.float(), v.float(), mask, bias, module.score)[1]
            )

        return keep

    found = {name: module for name, module in find(model, pattern).items() if isinstance(module, Attend)}
    with _removed([module.register_forward_hook(keeper(name)) for name, module in found.items()]):
        yield kept


@contextmanager
def _removed(handles: list) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
