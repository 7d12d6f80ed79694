"""A GPT says tokens: ours, and each peer, with the same weights in the layout of Hugging Face (`folder`).

Settings: `toolkit`, `precision`, `cache` ("static": Hugging Face's), `source` (nanoGPT's checkout). Each request: `batch` prompts of
`prompt` random tokens, `new` tokens for each, greedily and to the end; its answer: `seconds`, those until each has `first` one, and the
tokens said.
"""

import importlib.util
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers.llama import llama_cpp
from benchmarks.worker import serve

Prompts = list[list[int]]
Say = Callable[[Prompts, int], list[list[int]]]
"""Prompts, and how many tokens to say: the tokens that were said."""


def make(s: dict[str, Any]) -> Say:
    """The model that all of them open, and its config.json, by ours."""
    from dataclasses import replace

    from pellucid.models.build import build
    from pellucid.models.presets import preset
    from pellucid.models.storage import save

    config = preset("gpt2")
    if s["tiny"]:
        stack = replace(config.stack, d_model=64, n_layers=2, n_heads=2, d_ff=128)
        config = replace(config, stack=stack, vocab_size=512, bos_id=1, eos_id=1)
    save(build(config), Path(s["folder"]))
    return lambda prompts, new: []


def pellucid(s: dict[str, Any]) -> Say:
    """With no precision asked for it is what `pellucid.load(folder)` gives."""
    from dataclasses import replace

    from pellucid.api import load
    from pellucid.generation.options import GenerationOptions
    from pellucid.generation.search import generate

    model: Any = load(s["folder"], device="cpu", precision=s.get("precision")).model
    model.config = replace(model.config, bos_id=None, eos_id=None, ends=())  # nothing ends early

    def say(prompts: Prompts, new: int) -> list[list[int]]:
        return [best.ids for best, *_ in generate(model, prompts, GenerationOptions(max_new=new))]

    return say


def hugging_face(s: dict[str, Any]) -> Say:
    """`generate`, with its growing or its static cache."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[s["precision"]]
    model = transformers.AutoModelForCausalLM.from_pretrained(s["folder"], dtype=kind).eval()
    more = {"cache_implementation": "static"} if s.get("cache") == "static" else {}

    def say(prompts: Prompts, new: int) -> list[list[int]]:
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            found = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                pad_token_id=0,
                **more,
            )
        return found[:, ids.shape[1] :].tolist()

    return say


def nanogpt(s: dict[str, Any]) -> Say:
    """Its own `generate`, the likeliest token (top_k 1). It has no cache: each token costs the whole text."""
    import torch

    spec = importlib.util.spec_from_file_location("nanogpt_model", Path(s["source"]) / "model.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError("NANOGPT names no checkout of nanoGPT")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 64, "vocab_size": 512} if s["tiny"] else {"vocab_size": 50257}
    model = module.GPT(module.GPTConfig(**sizes, dropout=0.0)).eval()
    model = model.bfloat16() if s["precision"] == "bfloat16" else model

    def say(prompts: Prompts, new: int) -> list[list[int]]:
        return model.generate(torch.tensor(prompts), new, top_k=1)[:, len(prompts[0]) :].tolist()

    return say


def litgpt(s: dict[str, Any]) -> Say:
    """Its model with learned sizes of GPT-2 (rotary positions), its `generate`, one prompt at a time."""
    import torch
    from litgpt.config import Config
    from litgpt.generate.base import generate
    from litgpt.model import GPT

    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 64} if s["tiny"] else {"n_layer": 12, "n_head": 12, "n_embd": 768}
    vocab = 512 if s["tiny"] else 50257
    config = Config(**sizes, block_size=1024, vocab_size=vocab, padded_vocab_size=vocab, parallel_residual=False)
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[s["precision"]]
    model = GPT(config).to(kind).eval()

    def one(prompt: list[int], new: int) -> list[int]:
        model.max_seq_length = len(prompt) + new  # a cache no longer than that, as its command line has it
        model.set_kv_cache(batch_size=1, dtype=kind)
        with torch.inference_mode():
            found = generate(model, torch.tensor(prompt), len(prompt) + new, temperature=0.0, include_prompt=False)
        model.clear_kv_cache()
        return found.tolist()

    return lambda prompts, new: [one(prompt, new) for prompt in prompts]


def ctranslate2(s: dict[str, Any]) -> Say:
    """The same weights, converted."""
    import ctranslate2 as ct2
    import torch
    from ctranslate2.converters import transformers as converting

    folder = Path(s["folder"])
    (folder / "ct2").mkdir(exist_ok=True)
    loader = converting.GPT2Loader()
    loader.get_vocabulary = lambda model, tokenizer: [f"t{i}" for i in range(model.config.vocab_size)]
    loader.set_config = lambda config, model, tokenizer: None
    hf = __import__("transformers").GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32)
    spec = loader.get_model_spec(hf)
    spec.register_vocabulary([f"t{i}" for i in range(hf.config.vocab_size)])
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = "t0"
    out = folder / f"ct2-{s['precision']}"
    out.mkdir(exist_ok=True)
    spec.validate()
    spec.optimize(quantization=s["precision"])
    spec.save(str(out))
    threads = torch.get_num_threads()
    generator = ct2.Generator(str(out), device="cpu", compute_type=s["precision"], intra_threads=threads)

    def say(prompts: Prompts, new: int) -> list[list[int]]:
        words = [[f"t{i}" for i in prompt] for prompt in prompts]
        found = generator.generate_batch(
            words, max_length=new, min_length=new, sampling_topk=1, include_prompt_in_result=False, end_token=[]
        )
        return [one.sequences_ids[0] for one in found]

    return say


TOOLKITS: dict[str, Callable[[dict[str, Any]], Say]] = {
    "make": make,
    "Pellucid": pellucid,
    "Hugging Face": hugging_face,
    "nanoGPT": nanogpt,
    "LitGPT": litgpt,
    "CTranslate2": ctranslate2,
    "llama.cpp": llama_cpp,
}


def start(s: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """Opens the model and says two tokens, so that all is warm."""
    say = TOOLKITS[s["toolkit"]](s)

    def timed(request: dict[str, Any]) -> dict[str, Any]:
        draw = random.Random(0)
        size = 500 if s["tiny"] else 50000
        prompts = [[draw.randrange(2, size) for _ in range(request["prompt"])] for _ in range(request["batch"])]
        seconds = []
        for new in (1, request["new"]):
            begin = time.perf_counter()
            said = say(prompts, new)
            seconds.append(time.perf_counter() - begin)
            if any(len(one) != new for one in said):
                raise ValueError(f"it said {sorted({len(one) for one in said})} tokens, not {new}")
        return {"first": seconds[0], "seconds": seconds[1], "said": said[0]}

    if s["toolkit"] != "make":
        say([[5, 6, 7]], 2)
    return {}, timed


if __name__ == "__main__":
    serve(start)
