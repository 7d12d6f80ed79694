"""nanoGPT: model.py of the checkout that `source` names. `attention` "explicit" is its `flash=False`."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.plain import again, begin, imported, shared
from benchmarks.worker import serve


def start(settings: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """The model of the work's size, warm."""
    work = settings["work"]
    spec = importlib.util.spec_from_file_location("nanogpt_model", Path(settings["source"]) / "model.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError("NANOGPT names no checkout of nanoGPT")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    settings = settings | {"imported": imported()}
    sizes = {
        "block_size": work["length"],
        "vocab_size": work["vocab"],
        "n_layer": work["layers"],
        "n_head": work["heads"],
    }
    model = module.GPT(module.GPTConfig(**sizes, n_embd=work["d_model"], dropout=0.0, bias=work["bias"]))
    if settings["attention"] == "explicit":
        for block in model.transformer.h:
            block.attn.flash = False
            block.attn.register_buffer("bias", torch.ones(work["length"], work["length"]).tril()[None, None])
    groups = model.configure_optimizers(0.1, 1e-4, (0.9, 0.99), "cpu").param_groups
    groups = [{"params": group["params"], "weight_decay": group["weight_decay"]} for group in groups]
    return begin(
        settings, model, lambda m, b: m(b["ids"], b["targets"].clamp(min=-1))[1], again(shared(settings)), groups
    )


if __name__ == "__main__":
    serve(start)
