"""A training step on tensors without memory: what the real one will hold is counted, not estimated.

It runs the code of the run itself (task, model, optimizer, average) on shapes alone, so that nothing here has to follow when they change.
"""

import copy
import weakref
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pellucid.training import ranks
from pellucid.training.config import TrainingConfig
from pellucid.training.contracts import Batch
from pellucid.training.devices import Choices
from pellucid.training.ema import Ema
from pellucid.training.optimizers import Optimizer

Loss = Callable[[nn.Module, Batch], Tensor]
Count = Callable[[Batch], int]
LARGE = 2**25
"""Bytes from which on blocks are few, and mostly find their old place again: they leave no gaps that count."""

OFTEN = 12


class Watch(TorchDispatchMode):
    """Within the block, the bytes of all tensors that were made there and are still held: `live`, and the most there were, `peak`.

    chosen: how many places a mask of places lets through, which shapes do not tell; set before it is needed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.chosen, self.in_backward = 0, False
        self.live = self.peak = 0
        self._known: dict[int, Any] = {}
        self._made: list[int] = []

    @property
    def block(self) -> int:
        """The usual size of a large one: the OFTEN-th largest of those that come from an allocator's heap while gradients are sought, when
        some stay and others go."""
        return sorted([0] * OFTEN + self._made)[-OFTEN]

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = self._run(func, args, kwargs or {})
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        self.peak = max(self.peak, self.live)
        return out

    def _run(self, func: Any, args: tuple, kwargs: dict) -> Any:
        aten = torch.ops.aten
        if func is aten.index.Tensor and len(args[1]) == 1 and args[1][0].dtype == torch.bool:
            places = args[1][0]
            return args[0].new_empty(min(self.chosen, places.numel()), *args[0].shape[places.dim() :])
        sums = self.in_backward and not torch.is_grad_enabled()  # not what is worked out again there
        if sums and func is aten.add.Tensor and args[0].shape == args[1].shape:
            return args[0]  # real gradients of one tensor are summed in place
        return func(*args, **kwargs)

    def _see(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known[key] = weakref.ref(storage, lambda _: self._forget(key, size))
            seeks = self.in_backward or torch.is_grad_enabled()
            self._made += [size] if size < LARGE and seeks else []
            self.live += size

    def _forget(self, key: int, size: int) -> None:
        del self._known[key]
        self.live -= size

    @contextmanager
    def backward(self) -> Any:
        """Within, autograd is at work."""
        self.in_backward = True
        yield
        self.in_backward = False


def rehearse(model: nn.Module, loss: Loss, batch: Batch, count: Count, t: TrainingConfig, choices: Choices) -> Watch:
    """What a step holds beside the weights themselves: gradients, state of the optimizer, average of the weights, activations; or an
    evaluation, where that is more.

    model: as it will be trained, nothing of it is touched; batch: the global one; loss, count: of a task.
    """
    n_parts = t.accumulate * ranks.world()
    parts = [ranks.rows(batch, i, n_parts) for i in range(min(t.accumulate, 2))]  # the second finds gradients there
    counted = [(count(part), part) for part in (*parts, batch) if ranks.n_rows(part)]
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device(choices.device):
        fake = without_memory(model, choices.device)
        *steps, (chosen, whole) = [(n, alike(part)) for n, part in counted]
        trained = [p for p in fake.parameters() if p.requires_grad]
        optimizer = Optimizer(fake, t, choices.precision)
        with Watch() as watch:
            for p in trained:
                p.grad = torch.empty_like(p)
            optimizer.step(1.0)  # makes its state
            average = Ema(fake, t.ema) if t.ema else None
            for watch.chosen, micro in steps:
                with choices.autocast():
                    value = loss(fake, micro) / 1.0
                with watch.backward():
                    value.backward()
                del value
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step(1.0)
            if average:
                average.update(fake, 1)
            if n_parts > 1:  # an evaluation reads whole batches
                watch.chosen = chosen
                with average.used_by(fake) if average else nullcontext(), torch.no_grad(), choices.autocast():
                    loss(fake.eval(), whole)
    return watch


def alike(batch: Batch) -> Batch:
    """Tensors of the same shapes and types."""
    return {name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in batch.items()}


def without_memory(model: nn.Module, device: str) -> nn.Module:
    """A twin for FakeTensorMode, in which this is called: shapes, types and what is trained are the model's."""
    twins: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device=device), p.requires_grad) for p in model.parameters()
    }
    twins |= {id(b): torch.empty_like(b, device=device) for b in model.buffers()}
    return copy.deepcopy(model, twins).train()
