"""Everything a forward pass does, kept as a tree: modules, and in them the operations that PyTorch runs (ATen).

The recorder stands beside the computation and changes no number. It works the same on real tensors, where it measures time, and on
tensors without memory (`FakeTensorMode`), where it tells what would happen.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from pellucid.inspection.flops import flops
from pellucid.parts.attention import Attend
from pellucid.parts.masks import Mask


@dataclass
class Value:
    """A tensor that was seen. `axes`: the name of each axis, "" where it has none."""

    shape: tuple[int, ...]
    dtype: str
    bytes: int
    axes: tuple[str, ...] = ()

    @classmethod
    def of(cls, tensor: Tensor) -> "Value":
        """What a tensor looks like."""
        return cls(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.numel() * tensor.itemsize)

    def __str__(self) -> str:
        names = self.axes or ("",) * len(self.shape)
        return "[" + ", ".join(f"{name} {size}".strip() for name, size in zip(names, self.shape, strict=True)) + "]"


@dataclass
class Step:
    """A module's call, with its steps, or one operation.

    path: the module's name in the model, or the operation. flops, seconds: of everything inside. moved: bytes an operation reads and
    writes. view: its result is another look at memory that was there. reads: parameters of other modules it uses. again: the module ran
    before. ended: no error came out of it.
    """

    path: str
    kind: str
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    parameters: int = 0
    flops: int = 0
    seconds: float = 0.0
    moved: int = 0
    view: bool = False
    reads: list[str] = field(default_factory=list)
    again: bool = False
    ended: bool = True
    steps: list["Step"] = field(default_factory=list)

    @property
    def is_operation(self) -> bool:
        return self.kind == ""

    def operations(self) -> Iterator["Step"]:
        """Every operation inside, in order."""
        if self.is_operation:
            yield self
        for step in self.steps:
            yield from step.operations()

    def walk(self) -> Iterator["Step"]:
        """This step and every one inside, in order."""
        yield self
        for step in self.steps:
            yield from step.walk()


@dataclass
class MaskUse:
    """The mask an attention was given: at which module, for how many queries and keys, and whether a bias came with it."""

    path: str
    mask: Mask
    n_query: int
    n_key: int
    biased: bool
    device: torch.device


class Recorder(TorchDispatchMode):
    """Within the block, what runs is kept in `top.steps`. `open` holds the modules that have not ended: after an error, where it was."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.top = Step("", "recording")
        self.open = [self.top]
        self.masks: list[MaskUse] = []
        self.origins: Any = WeakTensorKeyDictionary()  # tensor -> (the step that made it, its value)
        self.parameters = dict(module.named_parameters())
        self._owners = {p.untyped_storage()._cdata: name for name, p in self.parameters.items()}
        self._seen: set[str] = set()
        self._hooks = ExitStack()

    def __enter__(self) -> "Recorder":
        for path, module in self.module.named_modules():
            for handle in (
                module.register_forward_pre_hook(partial(self._begin, path), with_kwargs=True),
                module.register_forward_hook(self._end),
            ):
                self._hooks.callback(handle.remove)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hooks.close()
        for step in self.top.steps:
            _sum_up(step)

    def _begin(self, path: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        inside = path + "." if path else ""
        step = Step(path, type(module).__name__, [Value.of(t) for t in tensors((args, kwargs))], ended=False)
        step.again = path in self._seen
        if not step.again:
            step.parameters = sum(p.numel() for name, p in self.parameters.items() if name.startswith(inside))
        self._seen.add(path)
        self.open[-1].steps.append(step)
        self.open.append(step)
        if isinstance(module, Attend):
            q, k, _, mask, bias = args
            self.masks.append(MaskUse(path, mask, q.shape[2], k.shape[2], bias is not None, q.device))

    def _end(self, module: nn.Module, args: tuple, out: Any) -> None:
        step = self.open.pop()
        step.outputs, step.ended = [Value.of(t) for t in tensors(out)], True

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":
            return func(*args, **kwargs)
        operands = list(tensors((args, kwargs)))
        start = time.perf_counter()
        out = func(*args, **kwargs)
        if any(t.is_cuda for t in operands) and not hasattr(out, "fake_mode"):
            torch.cuda.synchronize()
        self._keep(func, operands, list(tensors(out)), args, time.perf_counter() - start)
        return out

    def _keep(self, func: Any, operands: list[Tensor], results: list[Tensor], args: tuple, seconds: float) -> None:
        name = func.overloadpacket.__name__
        step = Step(name, "", [Value.of(t) for t in operands], [Value.of(t) for t in results], seconds=seconds)
        storages = [t.untyped_storage()._cdata for t in operands]
        step.view = bool(results) and not name.endswith("_") and results[0].untyped_storage()._cdata in storages
        step.moved = 0 if step.view else sum(value.bytes for value in step.inputs + step.outputs)
        step.flops = flops(name, [v.shape for v in step.inputs], step.outputs[0].shape if results else (), args)
        inside = self.open[-1].path + "." if self.open[-1].path else ""
        for parameter in {self._owners[s] for s in storages if s in self._owners}:
            if not parameter.startswith(inside) and parameter not in self.open[-1].reads:
                self.open[-1].reads.append(parameter)
        self.open[-1].steps.append(step)
        for result, value in zip(results, step.outputs, strict=True):
            self.origins[result] = (self.open[-1], value)


def tensors(x: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dictionaries, in order."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, dict):
        yield from tensors(tuple(x.values()))
    elif isinstance(x, tuple | list):
        for item in x:
            yield from tensors(item)


def _sum_up(step: Step) -> None:
    for inner in step.steps:
        _sum_up(inner)
    if not step.is_operation:
        step.flops = sum(inner.flops for inner in step.steps)
        step.seconds = sum(inner.seconds for inner in step.steps)
