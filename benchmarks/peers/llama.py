"""llama.cpp says tokens: the weights of the folder written as a GGUF file by the package `gguf`, all matrices in the precision by its own
quantiser (position vectors, norms and biases stay float32, as its converter leaves them), and run through llama-cpp-python's C functions.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
"""Hugging Face's GPT-2 -> llama.cpp's."""
CONTEXT = 1024


def write(folder: Path, precision: str) -> Path:
    """The GGUF file of the model in `folder`."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind, file = gguf.GGMLQuantizationType[precision.upper()], folder / f"{precision}.gguf"
    writer = gguf.GGUFWriter(file, "gpt2")
    writer.add_block_count(config["n_layer"])
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config["n_inner"] or 4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    for name, weight in load_file(folder / "model.safetensors").items():
        *layer, part, end = layered(name)
        matrix = end == "weight" and weight.ndim == 2
        kept = gguf.GGMLQuantizationType.F32 if not matrix or part == "wpe" else kind
        rows = weight.T.copy() if matrix and layer else weight  # a layer's are [in, out] there, and [out, in] here
        data = gguf.quants.quantize(rows, kept)
        writer.add_tensor(".".join([*layer, NAMES[part], end]), data, raw_dtype=kept)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def layered(name: str) -> list[str]:
    """transformer.h.3.attn.c_attn.weight -> [blk.3, attn.c_attn, weight]; transformer.wte.weight -> [wte, weight]."""
    path, _, end = name.removeprefix("transformer.").rpartition(".")
    if not path.startswith("h."):
        return [path, end]
    _, number, part = path.split(".", 2)
    return [f"blk.{number}", part, end]


def llama_cpp(s: dict[str, Any]) -> Callable[[list[list[int]], int], list[list[int]]]:
    """Greedy, one prompt after the other, with as many threads as everything else."""
    import llama_cpp as c

    file = write(Path(s["folder"]), s["precision"])
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    how = c.llama_context_default_params()
    how.n_ctx, how.n_batch, how.n_threads, how.n_threads_batch = CONTEXT, CONTEXT, threads, threads
    model = c.llama_model_load_from_file(str(file).encode(), c.llama_model_default_params())
    context = c.llama_init_from_model(model, how)
    if not context:
        raise ValueError("it does not open the file")
    greedy = c.llama_sampler_init_greedy()

    def one(prompt: list[int], new: int) -> list[int]:
        c.llama_memory_clear(c.llama_get_memory(context), True)
        said, given = list[int](), prompt
        for _ in range(new):
            ids = (c.llama_token * len(given))(*given)
            if c.llama_decode(context, c.llama_batch_get_one(ids, len(given))):
                raise ValueError("it could not decode")
            given = [c.llama_sampler_sample(greedy, context, -1)]
            said += given
        return said

    return lambda prompts, new: [one(prompt, new) for prompt in prompts]
