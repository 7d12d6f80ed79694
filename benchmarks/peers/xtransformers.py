"""x-transformers: a decoder of its `TransformerWrapper`. `attention` "fused" is its `attn_flash=True`."""

from collections.abc import Callable
from typing import Any

from torch import nn

from benchmarks.peers.plain import again, begin, imported, shared
from benchmarks.worker import serve


def start(settings: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """The model of the work's size, warm."""
    from x_transformers import Decoder, TransformerWrapper

    work, settings = settings["work"], settings | {"imported": imported()}
    sizes = {"dim": work["d_model"], "depth": work["layers"], "heads": work["heads"]}
    layers = Decoder(
        **sizes, attn_dim_head=work["d_model"] // work["heads"], attn_flash=settings["attention"] == "fused"
    )
    model = TransformerWrapper(num_tokens=work["vocab"], max_seq_len=work["length"], attn_layers=layers)

    def loss(called: Any, batch: Any) -> Any:
        return nn.functional.cross_entropy(called(batch["ids"]).flatten(0, 1).float(), batch["targets"].flatten())

    return begin(settings, model, loss, again(shared(settings)))


if __name__ == "__main__":
    serve(start)
