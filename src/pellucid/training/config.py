"""How a run learns: frozen records, every field with its unit. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from pellucid.errors import UserError


@dataclass(frozen=True)
class TrainingConfig:
    """`batch_tokens` (pairs: source + target) or `batch_size` windows of `length` tokens (text) are seen per
    step. Less memory for the same numbers: `accumulate` splits that batch; `recompute` keeps no activations of the blocks but works them
    out again in the backward pass, a third more work. `memory`: a run that cannot fit is refused, or only warned of.

    Times are in steps; `evaluate_every` and `checkpoint_every` 0 = only at the end. `muon_lr` 0 = 4 · `lr`.
    `final_lr`, `decay`: where the schedule ends, as a share of the peak, and the share of the steps that a
    trapezoid falls. `clip`: largest norm of the gradient, 0 = any. `ema`: 0 = none, else about 0.999.
    `average`: mean of the weights of the last N checkpoints, taken if it is better than the best; `patience`:
    evaluations without a better `metric` before stopping, 0 = never. `evaluate_limit`: held-out pairs or windows
    that an evaluation during training looks at, 0 = all. `keep`: newest checkpoints kept, besides
    the best. `precision`, `products` (the library of float32 products on a CPU), `compile` (torch.compile, tried in runs of ten minutes and
    more) and `threads` are measured when a run begins unless they are given: give them where two runs of one recipe must be equal to the
    bit. Labels: `class_weight` balanced = the loss of a label
    counts the more the rarer it is. Fine-tuning: `freeze`, names of parameters that stay as they are ("embed.*", "stack.blocks.[01].*");
    `layer_decay`, what the learning rate is multiplied by from each layer to the one below.
    """

    steps: int = 1000
    batch_tokens: int = 4096
    batch_size: int = 16
    length: int = 256
    accumulate: int = 1
    recompute: bool = False
    memory: Literal["refuse", "warn"] = "refuse"
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: float = 1e-3
    muon_lr: float = 0.0
    schedule: Literal["cosine", "linear", "constant", "inverse-sqrt", "trapezoid"] = "cosine"
    warmup: int = 100
    final_lr: float = 0.1
    decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip: float = 1.0
    label_smoothing: float = 0.0
    class_weight: Literal["none", "balanced"] = "none"
    freeze: tuple[str, ...] = ()
    layer_decay: float = 1.0
    ema: float = 0.0
    average: int = 0
    patience: int = 0
    metric: Literal["loss", "exact_match", "bleu", "chrf", "accuracy", "macro_f1", "f1"] = "loss"
    evaluate_every: int = 250
    evaluate_limit: int = 500
    checkpoint_every: int = 250
    log_every: int = 10
    keep: int = 2
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    products: Literal["auto", "plain", "onednn"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    device: str = "auto"
    threads: int = 0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        """UserError that names the field if a number cannot be meant."""
        least = {"steps": 1, "batch_tokens": 1, "batch_size": 1, "length": 1, "accumulate": 1, "keep": 2}
        least |= dict.fromkeys(("evaluate_every", "evaluate_limit", "checkpoint_every", "log_every", "average"), 0)
        least |= dict.fromkeys(("patience", "warmup", "lr", "muon_lr", "weight_decay", "clip", "threads"), 0)
        for name, low in least.items():
            if not getattr(self, name) >= low:
                raise UserError(f"training.{name} is {getattr(self, name)}", f"it must be at least {low}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"training.betas are {self.betas}", "each must be at least 0 and less than 1")
        for name in ("final_lr", "decay", "ema", "label_smoothing", "layer_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"training.{name} is {getattr(self, name)}", "it must be between 0 and 1")


@dataclass(frozen=True)
class LoraConfig:
    """Fine-tuning by updates of low rank (Hu et al. 2021): the model of `init` stays as it is, and beside every linear layer that a name in
    `targets` matches ("*.query", "*.up") two thin matrices learn, as do parts the task needs anew. `rank`: their width, 0 = off; `alpha` /
    `rank`: what the update is multiplied by; `dropout`: before the update. The run's model is an adapter in PEFT's layout, or with
    `merge` the whole model with the updates in its weights.
    """

    rank: int = 0
    alpha: float = 16.0
    targets: tuple[str, ...] = ("*.query", "*.value")
    dropout: float = 0.0
    merge: bool = False

    def __post_init__(self) -> None:
        """UserError that names the field if a number cannot be meant."""
        if self.rank < 0:
            raise UserError(f"lora.rank is {self.rank}", "it must be at least 0")
        if not self.alpha > 0:
            raise UserError(f"lora.alpha is {self.alpha}", "it must be more than 0")
        if not 0 <= self.dropout < 1:
            raise UserError(f"lora.dropout is {self.dropout}", "it must be at least 0 and less than 1")
        if not self.targets:
            raise UserError("lora.targets names no layer", 'targets = ["*.query", "*.value"]')


@dataclass(frozen=True)
class CardConfig:
    """What the model card says and no file can tell: under which `license` the model is given away (by the hub's short name:
    "apache-2.0"), where its `data` comes from and under which terms, which `language`s (ISO 639: "de") it knows."""

    license: str = ""
    data: str = ""
    language: tuple[str, ...] = ()
