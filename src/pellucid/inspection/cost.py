"""What a model costs before anything is allocated: the very forward pass and training step, run on tensors without memory.

Parameters, FLOPs and what autograd keeps are therefore counted, not estimated. A multiply-add is 2 FLOPs and only matrix products count
(see `flops`). On a CPU the choice of attention's kernel is the real one: short training inputs go the explicit way and keep [B,H,Q,K].
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pellucid.inspection.machine import UTILISATION, Machine
from pellucid.inspection.recorder import Recorder, Step
from pellucid.inspection.subject import random_subject
from pellucid.models.build import build
from pellucid.models.config import ModelConfig
from pellucid.parts.attention import Attend, Attention
from pellucid.parts.embeddings import Embedding, Patches
from pellucid.parts.feedforward import MLP, GatedMLP
from pellucid.training.config import TrainingConfig
from pellucid.training.devices import Choices
from pellucid.training.optimizers import groups
from pellucid.training.recompute import recompute
from pellucid.training.rehearsal import rehearse

FLOAT32 = 4
PARTS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("norms", (nn.LayerNorm, nn.RMSNorm)),
    ("attention", (Attention,)),
    ("feed-forward", (MLP, GatedMLP)),
    ("embeddings", (Embedding, Patches)),
)


@dataclass(frozen=True)
class Setting:
    """What is asked: tokens in a row (of a Seq2Seq: of source and of target), rows, precision of the products, where, which optimiser, and
    whether activations are worked out again (see `recompute`)."""

    length: int = 512
    batch: int = 1
    precision: str = "float32"
    device: str = "cpu"
    optimizer: Literal["adamw", "muon"] = "adamw"
    recompute: bool = False


@dataclass(frozen=True)
class Cost:
    """parameters: by part. forward: FLOPs by kind. step: FLOPs of forward, backward and the optimiser's own. memory: bytes by purpose.
    kernel: how attention is computed in training. passes: the operations of a forward pass and of a training step."""

    parameters: dict[str, int]
    forward: dict[str, int]
    step: dict[str, int]
    memory: dict[str, int]
    kernel: str
    passes: dict[str, list[Step]]

    def seconds(self, machine: Machine) -> dict[str, float]:
        """Predicted seconds of a forward pass and of a training step, update included; `_least`: all FLOPs at the measured peak."""
        forward, step = ([o for top in self.passes[name] for o in top.operations()] for name in ("forward", "step"))
        moved = (
            2 * self.memory["optimizer"] + 3 * self.memory["weights"]
        )  # read and written; weights, and gradients read
        update = moved / machine.large + self.step["optimizer"] / (UTILISATION * machine.peak)
        return {
            "forward_least": sum(self.forward.values()) / machine.peak,
            "forward": machine.seconds(forward, machine.forward),
            "step_least": sum(self.step.values()) / machine.peak,
            "step": machine.seconds(step, machine.step) + update,
        }

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with totals."""
        return {
            "parameters": self.parameters | {"total": sum(self.parameters.values())},
            "forward_flops": self.forward | {"total": sum(self.forward.values())},
            "step_flops": self.step | {"total": sum(self.step.values())},
            "memory_bytes": self.memory,
            "training_attention": self.kernel,
        }


def cost(config: ModelConfig, setting: Setting) -> Cost:
    """The cost of a model of this config. Raises UserError where the config or the length does not fit."""
    subject = random_subject(config, setting.length, setting.batch).inputs
    with FakeTensorMode(), torch.device(setting.device):
        model = recompute(build(config)) if setting.recompute else build(config)
        inputs = {name: torch.empty(x.shape, dtype=x.dtype) for name, x in subject.items()}
        forward = _forward(model, inputs, setting)
        training, kept = _training(model, inputs, setting)
        parameters = by_part(model)
        optimizer = optimizer_cost(model, setting.optimizer)
    most = peak(model, inputs, setting)
    kinds = by_kind(model, forward)
    total = sum(kinds.values())
    backward = sum(step.flops for step in training) - total
    return Cost(
        parameters,
        kinds,
        {"forward": total, "backward": backward, "optimizer": optimizer["flops"]},
        memory(config, setting, sum(parameters.values()), optimizer["bytes"], kept, most),
        kernel(training),
        {"forward": forward, "step": training},
    )


def peak(model: nn.Module, inputs: Mapping[str, Tensor], setting: Setting) -> int:
    """The most bytes of tensors that a training step holds at once, weights and what works on gradients included."""
    training = TrainingConfig(optimizer=setting.optimizer, recompute=setting.recompute)
    chosen = max(x.numel() for x in inputs.values())
    watch = rehearse(model, loss, inputs, lambda _: chosen, training, Choices(setting.device, setting.precision))
    return sum(p.nbytes for p in model.parameters()) + watch.peak


def kernel(steps: list[Step]) -> str:
    """How attention was computed in a training step, as its operations tell."""
    operations = [step for top in steps for step in top.operations()]
    fused = any(step.path.startswith("_scaled_dot_product") for step in operations)
    softmax = [step for step in operations if step.path in ("_softmax", "_safe_softmax")]
    explicit = any(len(step.outputs[0].shape) == 4 for step in softmax)  # that of the loss has two axes
    if explicit:
        return "step by step, keeping the weights [batch, heads, query, key]"
    return "by the fused kernel" if fused else "nowhere"


def memory(
    config: ModelConfig, setting: Setting, n_parameters: int, optimizer: int, kept: int, most: int
) -> dict[str, int]:
    """Bytes by purpose. A training step holds the first four at once, but for gradients not yet made, and with what is passing `most`;
    the key-value cache is generation's."""
    found = {
        "weights": n_parameters * FLOAT32,
        "gradients": n_parameters * FLOAT32,
        "optimizer": optimizer,
        "activations": kept,
    }
    found["training step"] = sum(found.values())
    found["peak"] = most
    if config.family in ("gpt", "seq2seq"):
        per_token = cache_bytes_per_token(config, setting.precision)
        sides = 2 if config.family == "seq2seq" else 1
        found["cache per token"] = per_token
        found["cache"] = per_token * setting.length * setting.batch * sides
    if config.family != "vit" and (config.family != "bert" or config.head == "words"):
        rows = setting.batch * setting.length
        found["logits"] = rows * (config.decoder_vocab_size or config.vocab_size) * _itemsize(setting.precision)
    return found


def cache_bytes_per_token(config: ModelConfig, precision: str) -> int:
    """Keys and values of one token in all layers (of a Seq2Seq: of one token of the target; one of the source costs as much)."""
    s = config.stack
    layers = config.decoder_layers if config.family == "seq2seq" and config.decoder_layers else s.n_layers
    return 2 * layers * (s.n_kv_heads or s.n_heads) * config.head_dim * _itemsize(precision)


def by_part(model: nn.Module) -> dict[str, int]:
    """Parameters of embeddings, attention, feed-forward, norms, head and what else there is; tied ones once, where they come first."""
    modules = dict(model.named_modules())
    found = dict.fromkeys(("embeddings", "attention", "feed-forward", "norms", "head", "other"), 0)
    for name, parameter in model.named_parameters():
        path = name.split(".")[:-1]
        owners = [modules[".".join(path[:n])] for n in range(len(path), 0, -1)]
        kinds = (part for part, types in PARTS for owner in owners if isinstance(owner, types))
        edge = "head" if path and path[0] in ("head", "classifier") else "other"
        found[next(kinds, edge)] += parameter.numel()
    return {part: n for part, n in found.items() if n}


def by_kind(model: nn.Module, steps: list[Step]) -> dict[str, int]:
    """Forward FLOPs: projections grow with N·D², attention with N²·D, the head with N·D·V."""
    modules = dict(model.named_modules())
    found = {"projections": 0, "attention": 0, "head": 0}

    def add(step: Step, kind: str) -> None:
        if step.is_operation:
            found[kind] += step.flops
        elif isinstance(modules.get(step.path), Attend):
            kind = "attention"
        elif step.path.split(".")[0] in ("head", "classifier"):
            kind = "head"
        for inner in step.steps:
            add(inner, kind)

    for step in steps:
        add(step, "projections")
    return found


def optimizer_cost(model: nn.Module, kind: str) -> dict[str, int]:
    """bytes of state, and FLOPs of an update: AdamW keeps two moments and a step number, Muon one momentum and multiplies matrices."""
    found = groups(model)
    muon = list(found.pop("matrix").values()) if kind == "muon" else []
    adam = [p for group in found.values() for p in group.values()]
    state = sum(2 * p.numel() * FLOAT32 + FLOAT32 for p in adam) + sum(p.numel() * FLOAT32 for p in muon)
    sizes = [(min(p.shape), max(p.shape)) for p in muon]
    products = sum(5 * (2 * a * a * b + 2 * a**3 + 2 * a * a * b) for a, b in sizes)  # five Newton-Schulz steps
    return {"bytes": state, "flops": products}


def _forward(model: nn.Module, inputs: Mapping[str, Tensor], setting: Setting) -> list[Step]:
    model.eval()
    recorder = Recorder(model)
    with torch.no_grad(), _autocast(setting), recorder:
        model(**inputs)
    return recorder.top.steps


def _training(model: nn.Module, inputs: Mapping[str, Tensor], setting: Setting) -> tuple[list[Step], int]:
    """The operations of forward and backward pass, and the bytes autograd keeps between them."""
    model.train()
    recorder = Recorder(model)
    with recorder:
        with _autocast(setting), kept_for_backward(model) as kept:
            value = loss(model, inputs)
        value.backward()
    return recorder.top.steps, kept()


def loss(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """As tasks compute it, every place a target; where batches hold padding it is told, but there is none."""
    config: ModelConfig = model.config
    real = {name: torch.ones(x.shape, dtype=torch.bool, device=x.device) for name, x in inputs.items() if x.dim() == 2}
    if config.family == "vit" or (config.family == "bert" and config.head != "words"):
        out = model(inputs["images"]) if config.family == "vit" else model(inputs["ids"], real["ids"])
        if config.head == "vector" or not config.n_labels:
            return out.float().sum()
        return F.cross_entropy(out.flatten(0, -2).float(), out.new_zeros(out.shape[:-1], dtype=torch.long).flatten())
    if config.family == "seq2seq":
        memory = model.encode(inputs["source"], real["source"])
        states, targets = model.decode(inputs["target"], memory, real["source"]), inputs["target"]
    else:
        states, targets = model.hidden(inputs["ids"]), inputs["ids"]
    return model.head.loss(states.flatten(0, 1), targets.flatten())


@contextmanager
def kept_for_backward(model: nn.Module) -> Iterator[Callable[[], int]]:
    """Within, autograd's notes are watched; the result tells the bytes of all storages it keeps that are no parameters."""
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, Any] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield lambda: sum(storage.nbytes() for storage in kept.values())


def _autocast(setting: Setting) -> Any:
    if setting.precision != "bfloat16":
        return nullcontext()
    return torch.autocast(torch.device(setting.device).type, torch.bfloat16)


def _itemsize(precision: str) -> int:
    return 2 if precision == "bfloat16" else FLOAT32
