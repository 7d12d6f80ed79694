"""Fine-tuning: weights taken over from another model, parts kept as they are, lower layers moved less than upper ones."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from pellucid.errors import DataError, UserError, did_you_mean
from pellucid.models.config import ModelConfig


@torch.no_grad()
def take_over(model: nn.Module, tensors: Mapping[str, Tensor], theirs: ModelConfig) -> str:
    """Copies every tensor of a model with the config `theirs` into the parameter of its name; a vocabulary that has grown gets the mean
    row for its new tokens. What decides between labels is taken only where head and labels are the same. Returns what was taken, what
    is new and what was left behind, as a note. DataError where a shape cannot fit, or nothing was taken."""
    own, taken = dict(model.named_parameters()), []
    config: ModelConfig = model.config  # type: ignore[assignment]
    same_labels = (theirs.head, theirs.labels, theirs.n_labels) == (config.head, config.labels, config.n_labels)
    for name, tensor in tensors.items():
        if name not in own or ("classifier" in name and not same_labels):
            continue
        rows, there = own[name], len(tensor)
        grown = there == theirs.vocab_size < len(rows) == config.vocab_size and rows.shape[1:] == tensor.shape[1:]
        if rows.shape != tensor.shape and not grown:
            raise DataError(f"{name} has shape {list(tensor.shape)} where the model has {list(rows.shape)}")
        rows[:there] = tensor
        if grown:
            rows[there:] = tensor.float().mean(0)
        taken.append(name)
    if not taken:
        raise DataError("no tensor of the model to begin with fits this one", "begin with a model of the same shape")
    new, left = sorted(own.keys() - set(taken)), sorted(tensors.keys() - set(taken))
    shape = f"its shape ({config.stack.n_layers} layers, d_model {config.stack.d_model}: of [model] only the dropout counts)"
    parts = [f"{shape} and {len(taken)} tensors are taken over"]
    parts += [f"new: {', '.join(new)}"] if new else []
    parts += [f"left behind: {', '.join(left)}"] if left else []
    return "; ".join(parts)


def freeze(model: nn.Module, patterns: Sequence[str]) -> str:
    """Parameters whose names match are not trained. Returns a note with the count ("" where there are no patterns).

    Raises UserError where a pattern matches none, or nothing is left to train.
    """
    named = dict(model.named_parameters())
    for pattern in patterns:
        found = [name for name in named if fnmatchcase(name, pattern)]
        if not found:
            parts = {".".join(name.split(".")[:n]) + ".*" for name in named for n in (1, 2, 3)}
            raise UserError(
                f"training.freeze: no parameter is called {pattern!r}", did_you_mean(pattern, sorted(parts))
            )
        for name in found:
            named[name].requires_grad_(False)
    still = sum(p.numel() for p in named.values() if not p.requires_grad)
    if still == sum(p.numel() for p in named.values()):
        raise UserError("training.freeze leaves nothing to train")
    return f"{still:,} parameters stay as they are" if patterns else ""


def layer_rates(model: nn.Module, decay: float) -> dict[str, float]:
    """Parameter name -> what its learning rate is multiplied by: decay^depth, depth 0 at the head (and whatever stands behind the last
    layer), 1 at the last layer, n_layers + 1 at the embeddings (Howard & Ruder 2018, section 3.2; Clark et al. 2020, appendix A)."""
    layers = {name: int(n) for name, _ in model.named_parameters() for n in re.findall(r"blocks\.(\d+)\.", name)}
    top = 1 + max(layers.values(), default=-1)

    def depth(name: str) -> int:
        return top - layers[name] if name in layers else top + 1 if "embed" in name.split(".")[0] else 0

    return {name: decay ** depth(name) for name, _ in model.named_parameters()}
