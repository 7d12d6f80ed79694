"""How the learning rate moves: each schedule is a pure function of the step, so nothing has to be saved for
an exact resume.

All rise linearly over `warmup` steps to 1, which is reached by the update number `warmup`, and end at or
above `final_lr` (a share of the peak).

* cosine: half a cosine from 1 to `final_lr` (Loshchilov & Hutter 2017, SGDR, without restarts).
* linear: a straight line from 1 to `final_lr`.
* constant: 1.
* inverse-sqrt: Vaswani et al. 2017, section 5.3: d_model^-0.5 · min(n^-0.5, n · warmup^-1.5), divided by its
  own peak (d_model · warmup)^-0.5, which so becomes `lr`. It knows no end and ignores `final_lr`.
* trapezoid: 1 until the last `decay` share of the steps, then a straight line to `final_lr` (warm-up, stable,
  decay: Hägele et al. 2024).
"""

import math
from collections.abc import Callable

from pellucid.training.config import TrainingConfig


def factor(step: int, config: TrainingConfig) -> float:
    """The share of the peak learning rate for the update made at `step` (0 = the first): in (0, 1]."""
    rise = (step + 1) / max(1, config.warmup)
    return min(1.0, rise) if rise < 1 else SHAPES[config.schedule](step, config)


def progress(step: int, start: int, config: TrainingConfig) -> float:
    """How far `step` is on the way from `start` to the end of the run: in [0, 1]."""
    return min(1.0, max(0.0, (step - start) / max(1, config.steps - start)))


def _cosine(step: int, config: TrainingConfig) -> float:
    wave = (1 + math.cos(math.pi * progress(step, config.warmup, config))) / 2
    return config.final_lr + (1 - config.final_lr) * wave


def _linear(step: int, config: TrainingConfig) -> float:
    return 1 - (1 - config.final_lr) * progress(step, config.warmup, config)


def _constant(step: int, config: TrainingConfig) -> float:
    return 1.0


def _inverse_sqrt(step: int, config: TrainingConfig) -> float:
    return math.sqrt(max(1, config.warmup) / (step + 1))


def _trapezoid(step: int, config: TrainingConfig) -> float:
    start = max(config.warmup, round(config.steps * (1 - config.decay)))
    return 1 - (1 - config.final_lr) * progress(step, start, config)


SHAPES: dict[str, Callable[[int, TrainingConfig], float]] = {
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
    "inverse-sqrt": _inverse_sqrt,
    "trapezoid": _trapezoid,
}
