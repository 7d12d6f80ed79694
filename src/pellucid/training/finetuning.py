"""Fine-tuning: weights taken over from another model, parts kept as they are, lower layers moved less than upper ones."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from pellucid.errors import DataError, UserError, did_you_mean
from pellucid.models.build import build
from pellucid.models.config import ModelConfig
from pellucid.parts.lora import attach
from pellucid.training.config import LoraConfig


@dataclass(frozen=True)
class Begun:
    """What became of another model's weights. `new`: the parameters that are not its own, a table that has grown among them; `note`: what
    was taken, what is new and what was left behind, for people."""

    new: tuple[str, ...]
    note: str


def begin(
    config: ModelConfig, seed: int, theirs: ModelConfig, tensors: Mapping[str, Tensor], lora: LoraConfig
) -> tuple[nn.Module, str]:
    """A model of `config` with the weights of one of `theirs`, and updates of low rank around it where `lora` asks for them; a note."""
    model = build(config, seed)
    begun = take_over(model, tensors, theirs)
    if not lora.rank:
        return model, begun.note
    attach(model, lora.targets, lora.rank, lora.alpha, lora.dropout, seed, begun.new)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    of = sum(p.numel() for p in model.parameters())
    return model, f"{begun.note}; {trained:,} of {of:,} parameters ({trained / of:.2%}) are trained"


@torch.no_grad()
def take_over(model: nn.Module, tensors: Mapping[str, Tensor], theirs: ModelConfig) -> Begun:
    """Copies every tensor of a model with the config `theirs` into the parameter it belongs to; a vocabulary that has grown gets the mean
    row for its new tokens. A head of another kind is left behind, but for a pooled vector, which labels are read from; what decides
    between labels is taken only where head and labels are the same. DataError where a shape cannot fit, or nothing was taken."""
    own, taken, grown = dict(model.named_parameters()), {}, []
    config: ModelConfig = model.config  # type: ignore[assignment]
    sizes = {(theirs.vocab_size, config.vocab_size), (theirs.decoder_vocab_size, config.decoder_vocab_size)}
    for source, tensor in tensors.items():
        name = _place_for(source, theirs, config)
        if name not in own:
            continue
        rows, there = own[name], len(tensor)
        grows = there < len(rows) and (there, len(rows)) in sizes and rows.shape[1:] == tensor.shape[1:]
        if rows.shape != tensor.shape and not grows:
            raise DataError(f"{source} has shape {list(tensor.shape)} where the model has {list(rows.shape)}")
        rows[:there] = tensor
        if grows:
            rows[there:] = tensor.float().mean(0)
            grown.append(name)
        taken[name] = source
    if not taken:
        raise DataError("no tensor of the model to begin with fits this one", "begin with a model of the same shape")
    new, left = sorted(own.keys() - taken.keys()), sorted(tensors.keys() - set(taken.values()))
    shape = f"its shape ({config.stack.n_layers} layers, d_model {config.stack.d_model}: of [model] only the dropout counts)"
    parts = [f"{shape} and {len(taken)} tensors are taken over"]
    parts += [
        f"{what}: {', '.join(names)}"
        for what, names in (("new", new), ("grown", grown), ("left behind", left))
        if names
    ]
    return Begun((*new, *grown), "; ".join(parts))


def _place_for(name: str, theirs: ModelConfig, ours: ModelConfig) -> str | None:
    """The name their tensor has in our model, None where it would mean something else there."""
    if "classifier." in name and (theirs.labels, theirs.n_labels) != (ours.labels, ours.n_labels):
        return None
    if not name.startswith("head.") or theirs.head == ours.head:
        return name
    pooled = (theirs.head, ours.head) == ("vector", "labels")
    return name.replace("head.", "head.pool.", 1) if pooled else None


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
