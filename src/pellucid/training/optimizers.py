"""How weights move: AdamW (Loshchilov & Hutter 2019) and Muon (Keller Jordan 2024,
kellerjordan.github.io/posts/muon), for groups of parameters told by rule.

The rule looks at the module that owns a parameter, not at names of a family:

* matrix: weight of a linear layer inside the model. Decays; learned by Muon if that is chosen.
* edge: weight of a linear layer at the edge (its path has a part "…head", "…embed…" or "classifier"), of a
  free head, a convolution or an additive score. Decays; always AdamW.
* plain: everything else: biases, norms, embeddings (also where a head is tied to one), tables of positions.
  Does not decay; always AdamW.

State is saved and restored by parameter name as plain tensors, so the order of parameters does not matter and
nothing is pickled.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import DataError
from pellucid.parts.heads import FreeHead
from pellucid.parts.scores import Additive
from pellucid.training.config import TrainingConfig
from pellucid.training.finetuning import layer_rates


def groups(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    """ "matrix", "edge", "plain" -> name -> parameter; every parameter that is trained is in exactly one
    group, under its first name.
    """
    owners: dict[int, list[tuple[str, nn.Module]]] = defaultdict(list)
    for path, module in model.named_modules(remove_duplicate=False):
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)].append((path, module))
    found: dict[str, dict[str, nn.Parameter]] = {"matrix": {}, "edge": {}, "plain": {}}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found[_kind(parameter, owners[id(parameter)])][name] = parameter
    return found


def _kind(parameter: nn.Parameter, owners: list[tuple[str, nn.Module]]) -> str:
    weighs = (nn.Linear, nn.Bilinear, nn.Conv1d, nn.Conv2d, nn.Conv3d, FreeHead, Additive)
    if parameter.ndim < 2 or not all(isinstance(module, weighs) for _, module in owners):
        return "plain"
    inside = all(isinstance(module, nn.Linear) and not _at_edge(path) for path, module in owners)
    return "matrix" if inside else "edge"


def _at_edge(path: str) -> bool:
    return any("embed" in part or part.endswith("head") or part == "classifier" for part in path.split("."))


MUON_OVER_ADAMW = 4  # the best rates of each on characters of Shakespeare, d_model 128, 300 steps: 8e-3 and 2e-3


class Optimizer:
    """AdamW, and Muon for the inner matrices if chosen, driven together: one `step`, one set of named state
    tensors.
    """

    def __init__(self, model: nn.Module, config: TrainingConfig, precision: str = "float32") -> None:
        found = groups(model)
        use_muon = config.optimizer == "muon" and bool(found["matrix"])
        decayed = found["edge"] | ({} if use_muon else found["matrix"])
        rates = layer_rates(model, config.layer_decay)
        sets = _by_rate(decayed, rates, config.lr, config.weight_decay) + _by_rate(
            found["plain"], rates, config.lr, 0.0
        )
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.parts: list[torch.optim.Optimizer] = []
        if sets:
            self.parts.append(torch.optim.AdamW(sets, lr=config.lr, betas=config.betas, fused=_fused(model)))
        if use_muon:
            lr = config.muon_lr or MUON_OVER_ADAMW * config.lr
            inner = _by_rate(found["matrix"], rates, lr, config.weight_decay)
            self.parts.append(Muon(inner, lr, config.weight_decay, precision))
        self.peaks = [[group["lr"] for group in part.param_groups] for part in self.parts]

    def step(self, factor: float) -> None:
        """One update at `factor` times the peak learning rates; gradients are dropped afterwards."""
        for part, peaks in zip(self.parts, self.peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            part.step()
            part.zero_grad()

    def tensors(self) -> dict[str, Tensor]:
        """The whole state: "parameter name:what" -> tensor."""
        return {
            f"{self.names[id(parameter)]}:{key}": value
            for part in self.parts
            for parameter, state in part.state.items()
            for key, value in state.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state saved by `tensors`.

        DataError if it names a parameter that this model does not train.
        """
        states: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for key, value in tensors.items():
            name, _, what = key.rpartition(":")
            states[name][what] = value
        for part in self.parts:
            parameters = [p for group in part.param_groups for p in group["params"]]
            mine = {i: states.pop(self.names[id(p)], None) for i, p in enumerate(parameters)}
            shape = {**part.state_dict(), "state": {i: state for i, state in mine.items() if state}}
            part.load_state_dict(shape)
        if states:
            raise DataError(
                f"optimizer.safetensors holds state for {min(states)!r}, which this model does not train",
                "resume with the model and the optimizer that the run began with",
            )


def _by_rate(
    named: Mapping[str, nn.Parameter], rates: Mapping[str, float], lr: float, decay: float
) -> list[dict[str, Any]]:
    """Parameter groups of one learning rate each."""
    found: dict[float, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in named.items():
        found[rates[name]].append(parameter)
    return [{"params": group, "lr": lr * rate, "weight_decay": decay} for rate, group in found.items()]


def _fused(model: nn.Module) -> bool:
    """Whether one kernel can do the whole update: twice as fast as the loop on CPU, and as deterministic."""
    return all(p.device.type in ("cpu", "cuda", "mps") and p.is_floating_point() for p in model.parameters())


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal: all directions of a matrix are learned at the same speed.

    As `torch.optim.Muon` (Nesterov momentum 0.95, five Newton-Schulz steps, decoupled decay) with updates
    scaled by 0.2 · sqrt(max(rows, columns)), so that their root mean square is AdamW's and one learning rate
    serves both (Liu et al. 2025, arXiv 2502.16982). It differs by working on stacks: matrices of one shape,
    or its transpose, go through one batched product, 6 times faster at width 64 and 1.4 times at 256 on CPU;
    and in float32 unless told otherwise.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter] | list[dict[str, Any]],
        lr: float,
        weight_decay: float,
        precision: str = "float32",
        momentum: float = 0.95,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            stacks: dict[tuple[int, ...], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    if not self.state[p]:
                        self.state[p]["momentum_buffer"] = torch.zeros_like(p)
                    memory = self.state[p]["momentum_buffer"]
                    memory.lerp_(p.grad, 1 - group["momentum"])
                    stacks[tuple(sorted(p.shape))].append((p, p.grad.lerp(memory, group["momentum"])))
            for (short, long), members in stacks.items():
                size = len(members) if short <= STACKED_UP_TO or members[0][0].is_cuda else 1
                for i in range(0, len(members), size):
                    self._move(members[i : i + size], group["lr"], 0.2 * long**0.5, group["weight_decay"])

    def _move(self, members: list[tuple[nn.Parameter, Tensor]], lr: float, scale: float, decay: float) -> None:
        wide = torch.stack([u if u.shape[0] <= u.shape[1] else u.mT for _, u in members])
        for (p, _), update in zip(members, orthogonal(wide.to(self.dtype)), strict=True):
            p.mul_(1 - lr * decay).add_(update if p.shape[0] <= p.shape[1] else update.mT, alpha=-lr * scale)


STACKED_UP_TO = 256  # wider matrices fill the processor alone; measured on CPU


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest half-orthogonal matrix to each of [N, rows <= columns, columns], nearly: singular values in
    about [0.7, 1.2].

    Newton-Schulz with the quintic a·X + b·XXᵀX + c·(XXᵀ)²X, its coefficients chosen for a steep start rather
    than to converge on 1 (Jordan 2024). bfloat16 is enough.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
