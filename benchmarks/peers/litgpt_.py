"""LitGPT: its GPT with GPT-NeoX's parts (rotary positions, layer norm, GELU). Its attention is the fused one."""

from collections.abc import Callable
from typing import Any

from torch import nn

from benchmarks.peers.plain import again, begin, imported, shared
from benchmarks.worker import serve


def start(settings: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """The model of the work's size, warm."""
    from litgpt.config import Config
    from litgpt.model import GPT

    work, settings = settings["work"], settings | {"imported": imported()}
    sizes = {
        "n_layer": work["layers"],
        "n_head": work["heads"],
        "n_embd": work["d_model"],
        "block_size": work["length"],
    }
    config = Config(
        **sizes, vocab_size=work["vocab"], padded_vocab_size=work["vocab"], bias=False, parallel_residual=False
    )
    model = GPT(config)

    def loss(called: Any, batch: Any) -> Any:
        return nn.functional.cross_entropy(called(batch["ids"]).flatten(0, 1).float(), batch["targets"].flatten())

    return begin(settings, model, loss, again(shared(settings)))


if __name__ == "__main__":
    serve(start)
