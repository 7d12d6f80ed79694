"""A forward pass that failed, explained: where, at which operation, on which operands, what does not agree, what usually causes it."""

import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pellucid.inspection.diagnoses import judge, plain_name
from pellucid.inspection.recorder import Recorder, Step, Value, tensors

OWN = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


@dataclass(frozen=True)
class Clash:
    """What went wrong. `operands`: "name [axes]"; `said`: the error as PyTorch words it."""

    module: str
    line: str
    operation: str
    operands: tuple[str, ...]
    problem: str
    cause: str
    said: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [("in", self.module), ("at", self.line), ("operation", self.operation)]
        rows += [("" if i else "operands", operand) for i, operand in enumerate(self.operands)]
        rows += [("the clash", self.problem), ("usual cause", self.cause), ("PyTorch said", self.said)]
        lines = "\n".join(f"  {name:14}{text}" for name, text in rows if text)
        return f"The forward pass stopped here:\n{lines}"


class Watch(TorchFunctionMode):
    """Remembers the call, as its author wrote it, that failed last, and its error."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.failed: tuple[str, list[Tensor], tuple, dict[str, Any]] = ("", [], (), {})

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        try:
            return func(*args, **kwargs)
        except Exception as error:
            self.error = error
            self.failed = (getattr(func, "__name__", str(func)), list(tensors((args, kwargs))), args, kwargs)
            raise


def explain(error: Exception, watch: Watch, recorder: Recorder, module: nn.Module, inputs: dict[str, Any]) -> Clash:
    """The clash behind an error of a recorded forward pass; axes must be named already."""
    name, found, args, kwargs = watch.failed if watch.error is error else ("", [], (), {})
    named = Names(recorder, module, inputs)
    values = [named.value(tensor) for tensor in found]
    problem, cause = judge(name, found, values, args, kwargs)
    step = recorder.open[-1]
    where = f"{step.path or 'the model itself'} ({step.kind})" if len(recorder.open) > 1 else "the call of the model"
    operands = tuple(f"{named.name(tensor)} {value}" for tensor, value in zip(found, values, strict=True))
    said = " ".join(str(error).split()) or type(error).__name__
    return Clash(where, _line(error), plain_name(name), operands, problem, cause, said)


class Names:
    """What tensors are called: parameters and inputs by their names, others by the module that made them."""

    def __init__(self, recorder: Recorder, module: nn.Module, inputs: dict[str, Any]) -> None:
        self.known = {id(p): f"parameter {name}" for name, p in module.named_parameters()}
        self.known |= {id(b): f"buffer {name}" for name, b in module.named_buffers()}
        given = {name: x for name, x in inputs.items() if isinstance(x, Tensor)}
        self.known |= {id(x): f"input {name}" for name, x in given.items()}
        first = recorder.top.steps[0].inputs if recorder.top.steps else []
        self.values = {id(x): value for x, value in zip(given.values(), first, strict=False)}
        self.origins = recorder.origins

    def value(self, tensor: Tensor) -> Value:
        """Its shape, with the names its axes have."""
        made: tuple[Step, Value] | None = self.origins.get(tensor)
        value = self.values.get(id(tensor)) or (made[1] if made else None)
        return value if value and value.shape == tuple(tensor.shape) else Value.of(tensor)

    def name(self, tensor: Tensor) -> str:
        """Where it comes from."""
        made: tuple[Step, Value] | None = self.origins.get(tensor)
        if id(tensor) in self.known:
            return self.known[id(tensor)]
        return f"from {made[0].path or 'the model itself'}" if made else "a tensor"


def _line(error: Exception) -> str:
    """The last line of the author's own code that the error passed through."""
    frames = traceback.extract_tb(error.__traceback__ or sys.exc_info()[2])
    mine = [frame for frame in frames if not frame.filename.startswith(OWN)]
    return f"{Path(mine[-1].filename).name}, line {mine[-1].lineno}: {mine[-1].line or ''}".rstrip(": ") if mine else ""
