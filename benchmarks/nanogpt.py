"""nanoGPT's side of shakespeare.py, and the judge of both sides: its model and optimizer, imported from a checkout, in a plain loop."""

import contextlib
import importlib.util
import io
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LENGTH, BATCH, EVERY, PROMISED = 64, 12, 100, 1.88
README, TUNED = "nanoGPT, README", "nanoGPT, tuned"


@dataclass
class Result:
    """One training. `curve`: (step, seconds of training, validation loss); `reached`: seconds to PROMISED."""

    column: str
    seed: int
    loss: float = math.nan
    seconds: float = 0.0
    tokens: int = 0
    everything: float = 0.0
    how: str = ""
    curve: list[tuple[int, float, float]] = field(default_factory=list)

    @property
    def reached(self) -> float:
        return next((seconds for _, seconds, loss in self.curve if loss <= PROMISED), math.inf)


def load(checkout: Path) -> Any:
    """nanoGPT's model.py as a module."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", checkout / "model.py")
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@torch.no_grad()
def score(logits: Callable[[Tensor], Tensor], ids: Tensor) -> float:
    """Nats per token of `ids` [N] in windows of LENGTH, the first token aside each scored once."""
    whole = (len(ids) - 1) // LENGTH * LENGTH
    pieces = list(
        zip(ids[:whole].view(-1, LENGTH).split(128), ids[1 : whole + 1].view(-1, LENGTH).split(128), strict=True)
    )
    if whole < len(ids) - 1:
        pieces.append((ids[None, whole:-1], ids[None, whole + 1 :]))
    total = sum(
        float(torch.nn.functional.cross_entropy(logits(x).flatten(0, 1).float(), y.flatten(), reduction="sum"))
        for x, y in pieces
    )
    return total / (len(ids) - 1)


def train(source: Any, text: Tensor, valid: Tensor, vocabulary: int, steps: int, result: Result) -> Result:
    """nanoGPT's model and optimizer in a plain loop; tuned by hand or not is `result.column`."""
    begin, tuned = time.perf_counter(), result.column == TUNED
    torch.manual_seed(result.seed)
    with contextlib.redirect_stdout(io.StringIO()):
        sizes = dict(block_size=LENGTH, vocab_size=vocabulary, n_layer=4, n_head=4, n_embd=128, dropout=0.0, bias=False)
        model = source.GPT(source.GPTConfig(**sizes))
        optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    if tuned:
        for block in model.transformer.h:
            block.attn.flash = False
            block.attn.register_buffer("bias", torch.ones(LENGTH, LENGTH).tril()[None, None])
    best, best_weights, place = math.inf, model.state_dict(), torch.arange(LENGTH + 1)
    for step in range(1, steps + 1):
        clock = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = rate(step - 1, steps)
        windows = text[torch.randint(len(text) - LENGTH, (BATCH, 1)) + place]
        with torch.autocast("cpu", torch.bfloat16, enabled=tuned):
            loss = model(windows[:, :-1].contiguous(), windows[:, 1:].contiguous())[1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        result.seconds += time.perf_counter() - clock
        if step % EVERY == 0 or step == steps:
            model.eval()
            with torch.autocast("cpu", torch.bfloat16, enabled=tuned):
                now = score(lambda x: model(x, x)[0], valid)
            model.train()
            result.curve.append((step, result.seconds, now))
            if now < best:
                best, best_weights = now, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(best_weights)
    model.eval()
    result.loss, result.tokens = score(lambda x: model(x, x)[0], valid), steps * BATCH * LENGTH
    result.everything = time.perf_counter() - begin
    result.how = f"{'bfloat16' if tuned else 'float32'}, {torch.get_num_threads()} threads"
    return result


def rate(step: int, steps: int) -> float:
    """Warm-up over 100 steps to 1e-3, then a cosine to 1e-4 at `steps`."""
    if step < 100:
        return 1e-3 * (step + 1) / 101
    share = (step - 100) / max(1, steps - 100)
    return 1e-4 + 0.5 * (1 + math.cos(math.pi * min(1.0, share))) * 9e-4
