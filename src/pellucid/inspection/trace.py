"""`trace(module, *inputs)`: the real forward pass of any module, told step by step; after an error, everything up to it and why.

from pellucid.inspection.trace import trace
print(trace(model, ids))
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from pellucid.errors import UserError
from pellucid.inspection import tell
from pellucid.inspection.axes import name_axes
from pellucid.inspection.clash import Clash, Watch, explain
from pellucid.inspection.masks import Picture, pictures
from pellucid.inspection.recorder import Recorder, Step
from pellucid.inspection.twins import bind, twins


@dataclass
class Story:
    """What a forward pass did. `root`: the module's own step; `result`: what the module gave, None after an error."""

    root: Step
    result: Any = None
    masks: list[Picture] = field(default_factory=list)
    tied: dict[str, str] = field(default_factory=dict)
    clash: Clash | None = None

    @cached_property
    def totals(self) -> dict[str, Any]:
        """parameters (tied ones once), flops, seconds, operations, largest: the biggest tensor an operation made (bytes, where)."""
        made = [
            (step.outputs[0].bytes, place, step)
            for place, step in _placed(self.root)
            if step.outputs and not step.view and step.moved
        ]
        size, place, step = max(made, key=lambda one: one[0], default=(0, "", Step("", "")))
        largest = {
            "bytes": size,
            "module": place,
            "operation": step.path,
            "value": str(step.outputs[0]) if made else "",
        }
        return {
            "parameters": self.root.parameters,
            "flops": self.root.flops,
            "seconds": self.root.seconds,
            "operations": sum(1 for _ in self.root.operations()),
            "largest": largest,
        }

    def __str__(self) -> str:
        return tell.plain(self)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: nested steps, totals, masks, what is tied, the clash."""
        return {
            "steps": tell.step_to_dict(self.root),
            "totals": self.totals,
            "masks": [picture.to_dict() for picture in self.masks],
            "tied": self.tied,
            "clash": self.clash.to_dict() if self.clash else None,
        }


def trace(
    module: nn.Module,
    *args: Any,
    axes: dict[str, tuple[str, ...]] | None = None,
    labels: dict[str, list[str]] | None = None,
    **kwargs: Any,
) -> Story:
    """Runs `module(*args, **kwargs)` once, as it is (its mode, gradients on or off), and tells what happened; no number changes.

    axes: names for the axes of inputs, by argument ("" = none), where those guessed are not wanted: {"x": ("batch", "tokens", "")}.
    labels: axis -> words for its places, for the pictures of masks. An error of the forward pass does not come out: it is
    `story.clash`. A UserError does: it says itself what is wrong.
    """
    inputs = bind(module, args, kwargs)
    tried = list(twins(module, inputs, axes or {}))  # before the pass: a module may keep tensors of its own
    recorder, watch = Recorder(module), Watch()
    error: Exception | None = None
    result = None
    try:
        with watch, recorder:
            result = module(*args, **kwargs)
    except UserError:
        raise
    except Exception as failure:  # noqa: BLE001 (whatever it is, it is told)
        error = failure
    root = recorder.top.steps[0] if recorder.top.steps else Step("", type(module).__name__)
    _name(root, tried, inputs)
    clash = explain(error, watch, recorder, module, inputs) if error else None
    return Story(root, result, pictures(recorder.masks, root, labels or {}), tied(module), clash)


def tied(module: nn.Module) -> dict[str, str]:
    """Names of parameters that are others under a second name -> the first one."""
    first: dict[int, str] = {}
    again = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            again[name] = first[id(parameter)]
    return again


def _name(root: Step, tried: list, inputs: dict[str, Any]) -> None:
    """Names axes by the first twin that came as far as the real pass."""
    for twin in tried:
        steps = twin.steps(inputs).steps
        if steps and (len(list(steps[0].operations())) >= len(list(root.operations())) or twin is tried[-1]):
            return name_axes(root, steps[0], twin.sizes)


def _placed(step: Step, module: str = "") -> list[tuple[str, Step]]:
    """Every operation with the path of the module that runs it."""
    if step.is_operation:
        return [(module, step)]
    return [pair for inner in step.steps for pair in _placed(inner, step.path)]
