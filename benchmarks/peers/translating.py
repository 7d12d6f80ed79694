"""Workers of the question `beam`: ours, Hugging Face and CTranslate2, each with the weights that `make` saved in Marian's layout."""

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.worker import serve

EOS, UNKNOWN = 0, 1
Settings = dict[str, Any]
Translate = Callable[[list[list[int]]], list[list[int]]]
"""Sources to the tokens of the best answer to each."""


def start(settings: Settings) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """The toolkit with the model in `folder`, warm."""
    if settings["toolkit"] == "make":
        make(settings)
        return {}, lambda request: {}
    draw = random.Random(0)
    words = range(2, settings["vocab"] - 1)
    sources = [[*draw.choices(words, k=n - 1), EOS] for n in settings["lengths"]]
    translate = {"Pellucid": ours, "Hugging Face": huggingface, "CTranslate2": ctranslate2}[settings["toolkit"]](
        settings
    )
    said = translate(sources)
    return {"said": said}, lambda request: timed(translate, sources)


def timed(translate: Translate, sources: list[list[int]]) -> dict[str, Any]:
    """Seconds, and the peak of memory meanwhile in MB."""
    forget_peak()
    begin = time.perf_counter()
    translate(sources)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "memory": peak()}


def forget_peak() -> None:
    """Linux alone can."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak() -> float:
    """MB that this process held at most since then; 0 where nobody tells."""
    if sys.platform != "linux":
        return 0.0
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def make(settings: Settings) -> None:
    """A model with random weights; it starts from padding, whose vector is zero, as CTranslate2 reads Marian's."""
    from pellucid.models import storage
    from pellucid.models.build import build
    from pellucid.models.config import ModelConfig
    from pellucid.parts.config import StackConfig

    s, pad = settings, settings["vocab"] - 1
    stack = StackConfig(s["d_model"], s["layers"], s["heads"], None, s["d_ff"], "silu", residual="post")
    shape: dict[str, Any] = {"positions": "sinusoidal", "tied": True, "head_bias": True, "scale_embedding": True}
    ids: dict[str, Any] = {"pad_id": pad, "eos_id": EOS, "start": (pad,)}
    model: Any = build(ModelConfig("seq2seq", stack, s["vocab"], 512, **shape, **ids), 0)
    model.embed.tokens.weight.data[pad] = 0
    storage.save(model, Path(s["folder"]))


def ours(settings: Settings) -> Translate:
    """No flag, or a precision."""
    from pellucid.generation.options import GenerationOptions
    from pellucid.generation.search import generate
    from pellucid.models import storage

    model = storage.load(Path(settings["folder"]))[0]
    if "precision" in settings:
        from pellucid.parts.quantized import quantize

        quantize(model, settings["precision"])
    n = settings["said"]
    options = GenerationOptions(max_new=n, min_new=n, beam=settings["beam"])
    return lambda sources: [best[0].ids for best in generate(model, sources, options)]


def huggingface(settings: Settings) -> Translate:
    """`generate`, padded; sorted by length so that it pads least, as many at a time as ours."""
    import torch
    from transformers import MarianMTModel

    dtype = torch.bfloat16 if settings["precision"] == "bfloat16" else torch.float32
    model = MarianMTModel.from_pretrained(settings["folder"], dtype=dtype).eval()
    n, pad = settings["said"], settings["vocab"] - 1
    how = {"max_new_tokens": n, "min_new_tokens": n, "num_beams": settings["beam"], "early_stopping": "never"}
    how |= {"do_sample": False, "max_length": None, "bad_words_ids": [[pad]]}

    @torch.inference_mode()
    def translate(sources: list[list[int]]) -> list[list[int]]:
        said: list[list[int]] = [[] for _ in sources]
        order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
        for at in range(0, len(order), 64):
            rows = order[at : at + 64]
            width = max(len(sources[i]) for i in rows)
            ids = torch.tensor([[*sources[i], *[pad] * (width - len(sources[i]))] for i in rows])
            for i, row in zip(
                rows, model.generate(input_ids=ids, attention_mask=(ids != pad).long(), **how), strict=True
            ):
                said[i] = row[1 : n + 1].tolist()
        return said

    return translate


def ctranslate2(settings: Settings) -> Translate:
    """Converted by its own code. `workers`: one thread each, and a batch of its own."""
    import ctranslate2 as ct2
    from ctranslate2.converters.transformers import MarianMTLoader
    from transformers import MarianMTModel

    folder = f"{settings['folder']}-ct2-{settings['precision']}-{os.getpid()}"
    spec = MarianMTLoader().get_model_spec(MarianMTModel.from_pretrained(settings["folder"]))
    names = ["</s>", "<unk>", *(f"w{i}" for i in range(2, settings["vocab"] - 1))]
    numbers = {name: i for i, name in enumerate(names)}
    spec.register_source_vocabulary(names)
    spec.register_target_vocabulary(names)
    spec.config.eos_token, spec.config.unk_token, spec.config.decoder_start_token = "</s>", "<unk>", "</s>"
    spec.validate()
    spec.optimize(quantization=None if settings["precision"] == "float32" else settings["precision"])
    Path(folder).mkdir()
    spec.save(folder)
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    workers = threads if settings.get("workers") else 1
    translator = ct2.Translator(
        folder, "cpu", inter_threads=workers, intra_threads=threads // workers, compute_type=settings["precision"]
    )
    n = settings["said"]
    at_once = max(1, min(64, -(-len(settings["lengths"]) // workers)))

    def translate(sources: list[list[int]]) -> list[list[int]]:
        found = translator.translate_batch(
            [[names[i] for i in ids] for ids in sources],
            beam_size=settings["beam"],
            max_batch_size=at_once,
            max_decoding_length=n,
            min_decoding_length=n,
        )
        return [[numbers[word] for word in one.hypotheses[0]] for one in found]

    return translate


if __name__ == "__main__":
    serve(start)
