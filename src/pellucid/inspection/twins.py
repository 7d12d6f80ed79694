"""Twins: the same computation without memory, in sizes that tell the axes apart (see `axes`).

One of our families is built anew from a config whose sizes are all different, down to d_model ≠ heads·head_dim. Any other module is
copied as it is, and only the sizes of its inputs are changed: their axes can be followed, those of its weights stay numbers.
"""

import copy
import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from pellucid.inspection.axes import Sizes
from pellucid.inspection.recorder import Recorder, Step
from pellucid.models.build import FAMILIES, build
from pellucid.models.config import ModelConfig

NOISY = logging.getLogger("torch._subclasses.fake_tensor")
"""It prints a traceback for each error, also for those that are expected."""

INPUTS = {
    **dict.fromkeys(("ids", "keep", "segments", "target", "target_keep"), ("batch", "tokens")),
    **dict.fromkeys(("source", "source_keep"), ("batch", "source")),
    "images": ("batch", "channels", "height", "width"),
}
"""The axes of what our families read."""

# Sizes of a twin. Their products of up to three are all different (a test holds it); d_model is a multiple of 4, as 2-D positions need.
KV_HEADS, GROUP, PER_HEAD, HEAD_DIM, D_FF, VOCAB = 5, 7, 28, 26, 29, 31
TOKENS, SOURCE, BATCH, LABELS, CHANNELS, ROWS, COLUMNS, PATCH = 37, 41, 43, 47, 53, 59, 61, 67


@dataclass
class Twin:
    """A module on tensors without memory, its inputs by name, and what its sizes mean."""

    mode: FakeTensorMode
    module: nn.Module
    shapes: dict[str, tuple[int, ...]]
    sizes: Sizes

    def steps(self, inputs: Mapping[str, Any]) -> Step:
        """Runs on tensors like `inputs` in the twin's shapes; what was done until the end, or until an error."""
        with self.mode:
            fake = {
                name: torch.empty(self.shapes[name], dtype=x.dtype, device=x.device) if name in self.shapes else x
                for name, x in inputs.items()
            }
            recorder = Recorder(self.module)
            quiet, NOISY.disabled = NOISY.disabled, True
            try:
                with recorder, suppress(Exception):  # the real computation tells what is wrong
                    self.module(**fake)
            finally:
                NOISY.disabled = quiet
        return recorder.top


def bind(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a forward pass by name; those that cannot be named are left out."""
    try:
        bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    except TypeError:  # the call itself will say it
        return {}
    return {name: value for name, value in bound.items() if not isinstance(value, tuple | dict) or name in kwargs}


def twins(module: nn.Module, inputs: Mapping[str, Any], axes: Mapping[str, tuple[str, ...]]) -> Iterator[Twin]:
    """Twins to try, the most telling first. `axes`: names of the axes of inputs, where they are known."""
    config = getattr(module, "config", None)
    if isinstance(config, ModelConfig) and type(module) is FAMILIES[config.family][0]:
        yield family_twin(module, config, inputs)
        return
    named = guess_axes(module, inputs) | dict(axes)
    varied = [name for name in dict.fromkeys(sum(named.values(), ())) if name]
    for names in (varied, ["batch"], ["tokens"]):
        try:
            yield copied_twin(module, inputs, named, names)
        except Exception:  # noqa: BLE001 (a module that cannot be copied has no twin: its axes stay numbers)
            return


def family_twin(module: nn.Module, config: ModelConfig, inputs: Mapping[str, Any]) -> Twin:
    """One of our models again, in sizes of its own."""
    real = _real_sizes(config, inputs)
    twin = _twin_sizes(config)
    mode, first = FakeTensorMode(), next(module.parameters())
    before = torch.get_default_dtype()
    torch.set_default_dtype(first.dtype)
    try:
        with mode, first.device:
            model = build(_twin_config(config, twin))
    finally:
        torch.set_default_dtype(before)
    for ours, theirs in zip(model.modules(), module.modules(), strict=False):
        ours.training = theirs.training
    sizes = {"height": ROWS * PATCH, "width": COLUMNS * PATCH} | twin
    shapes = {name: tuple(sizes[axis] for axis in INPUTS[name]) for name, x in inputs.items() if isinstance(x, Tensor)}
    return Twin(mode, model, shapes, Sizes({name: size for name, size in twin.items() if name in real}, real))


def _twin_sizes(c: ModelConfig) -> dict[str, int]:
    grouped = c.stack.n_kv_heads not in (None, c.stack.n_heads)
    heads = KV_HEADS * GROUP if grouped else KV_HEADS
    sizes = {"batch": BATCH, "heads": heads}  # products are written in this order
    sizes |= {"kv_heads": KV_HEADS, "heads/kv_heads": GROUP} if grouped else {}
    sizes |= {"tokens": TOKENS, "source": SOURCE, "head_dim": HEAD_DIM, "head_dim/2": HEAD_DIM // 2}
    sizes |= {"d_model": heads * PER_HEAD, "d_model/2": heads * PER_HEAD // 2, "d_ff": D_FF}
    sizes |= {"labels": LABELS, "vocab": VOCAB}
    if c.family == "vit":
        sizes |= {"channels": CHANNELS, "height": ROWS * PATCH, "width": COLUMNS * PATCH, "patch rows": ROWS}
        sizes |= {"patch columns": COLUMNS, "patches": ROWS * COLUMNS, "1+patches": 1 + ROWS * COLUMNS}
    return sizes


def _real_sizes(c: ModelConfig, inputs: Mapping[str, Any]) -> dict[str, int]:
    s, side = c.stack, c.image_size // c.patch_size
    kv_heads, head_dim = s.n_kv_heads or s.n_heads, c.head_dim
    sizes = {"heads": s.n_heads, "kv_heads": kv_heads, "heads/kv_heads": s.n_heads // kv_heads}
    sizes |= {"head_dim": head_dim, "head_dim/2": head_dim // 2, "d_model": s.d_model}
    sizes |= {"d_model/2": (s.d_model + 1) // 2, "d_ff": s.d_ff, "vocab": c.decoder_vocab_size or c.vocab_size}
    sizes |= {"patch rows": side, "patch columns": side, "patches": side**2, "1+patches": 1 + side**2}
    sizes |= {"labels": c.n_labels}
    for name, x in inputs.items():
        sizes |= dict(zip(INPUTS[name], x.shape, strict=False)) if isinstance(x, Tensor) else {}
    return sizes


def _twin_config(c: ModelConfig, sizes: Mapping[str, int]) -> ModelConfig:
    stack = replace(
        c.stack,
        d_model=sizes["d_model"],
        n_heads=sizes["heads"],
        n_kv_heads=sizes.get("kv_heads"),
        d_ff=sizes["d_ff"],
    )
    return replace(
        c,
        stack=stack,
        heads=replace(c.heads, width=sizes["head_dim"]),  # heads·head_dim and d_model can be told apart
        vocab_size=VOCAB,
        decoder_vocab_size=VOCAB if c.decoder_vocab_size else None,
        pad_id=None if c.pad_id is None else 0,
        max_length=max(TOKENS, SOURCE),
        n_labels=LABELS if c.n_labels else 0,
        image_size=ROWS * PATCH,
        patch_size=PATCH,
        channels=CHANNELS,
    )


def guess_axes(module: nn.Module, inputs: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Names of the axes of a stranger's inputs, by their kind: [batch, tokens, …], [batch, channels, height, width].

    Where a part says `batch_first=False`, tokens come first. Another length than the first input's is named after its argument.
    """
    first = any(getattr(part, "batch_first", True) is False for part in module.modules())
    named: dict[str, tuple[str, ...]] = {}
    length = None
    for name, x in inputs.items():
        if not isinstance(x, Tensor) or x.dim() == 0:
            continue
        if x.dim() == 4:
            named[name] = ("batch", "", "height", "width")
        elif x.dim() == 2 and "mask" in name and x.shape[0] == x.shape[1]:
            named[name] = ("tokens", "tokens")
        elif x.dim() == 3 or (x.dim() == 2 and not x.is_floating_point()):
            size = x.shape[0 if first else 1]
            length = size if length is None else length
            place = "tokens" if size == length else f"{name} tokens"
            named[name] = ((place, "batch") if first else ("batch", place)) + ("",) * (x.dim() - 2)
        else:
            named[name] = ("batch",) + ("",) * (x.dim() - 1)
    return named


def copied_twin(
    module: nn.Module, inputs: Mapping[str, Any], axes: Mapping[str, tuple[str, ...]], varied: list[str]
) -> Twin:
    """A copy without memory; the axes in `varied` get sizes that nothing else has."""
    real = {axis: size for name, names in axes.items() for axis, size in zip(names, inputs[name].shape, strict=False)}
    taken = {size for tensor in module.state_dict().values() for size in tensor.shape} | set(real.values())
    free = (n for n in (37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83) if all(size % n for size in taken if size))
    twin = {name: next(free) for name in varied if name in real and real[name] > 0}
    shapes = {
        name: tuple(twin.get(axis, size) for axis, size in zip(names, inputs[name].shape, strict=True))
        for name, names in axes.items()
    }
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(mode):
        copied = copy.deepcopy(module)
    return Twin(mode, copied, shapes, Sizes(twin, {name: real[name] for name in twin}))
