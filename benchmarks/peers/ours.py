"""Pellucid's side of `training`: a real run, from its recipe on, whose loop waits for a request before its steps.

Nothing is put together here: `pellucid.training.run.start` prepares data and model, chooses precision, threads and what else there is to
choose, and trains; its `loop.step` is timed from outside, with all that a step does (batch, forward, backward, clip, optimizer, log). The
texts are made up, of words "w17", so that vocabulary and lengths are those of the work, or are a real corpus; the batches that the run sees
are written down for the peers: npz, "0.ids", "0.targets", "1.ids", …
"""

import random
import shlex
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.plain import imported
from benchmarks.worker import Pipe
from benchmarks.works import Work
from pellucid.cli.overrides import override, with_absolute_paths
from pellucid.training import loop
from pellucid.training.learner import Learner
from pellucid.training.recipe import Recipe, load_recipe
from pellucid.training.run import start

SPECIALS = {"gpt": 4, "seq2seq": 4, "bert": 5}
"""Tokens of a vocabulary that are no words: <pad> <bos> <eos> <unk>, and <mask>."""


def main() -> None:
    """Trains as the first request says, and steps as the others do."""
    pipe = Pipe()
    settings = pipe.read() | {"imported": imported()}
    work, folder = Work.of(settings["work"]), Path(settings["folder"])
    loop.step = stepping(loop.step, pipe, work, settings)
    start(recipe(work, folder, settings), folder / settings["name"], "benchmark")


def recipe(work: Work, folder: Path, settings: dict[str, Any]) -> Recipe:
    """The work's recipe with its sizes and data; no evaluations."""
    s = f"--stack.d-model {work.d_model} --stack.d-ff {work.d_ff} --stack.n-layers {work.layers} --stack.n-heads {work.heads}"
    flags = (
        f"{s} --stack.bias {str(work.bias).lower()} --training.batch-size {work.batch} {work.flags} {settings['flags']}"
    )
    if work.family == "vit":
        flags += (
            f" --model.image-size {work.pixels} --model.patch-size 7 --data.shift 0 --data.train {images(work, folder)}"
        )
    else:
        flags += f" --data.vocab-size {work.vocab} --model.max-length {max(work.length, 128)} --data.train {texts(work, folder)}"
        flags += f" --training.length {work.length} --training.batch-tokens {2 * work.batch * work.length}"
        flags += "" if work.corpus else " --data.tokenizer word"
    ready = override(load_recipe(work.recipe), shlex.split(flags), "benchmark")
    quiet = replace(ready.training, evaluate_every=0, checkpoint_every=0)
    return with_absolute_paths(replace(ready, training=quiet))


def texts(work: Work, folder: Path) -> str:
    """Files of words drawn at random, each word of the vocabulary at least once; or of real pairs."""
    both = [(folder / f"{name}.txt").as_posix() for name in ("source", "target")]
    if work.corpus:
        return " ".join(both)
    words, random_ = [f"w{i}" for i in range(work.vocab - SPECIALS[work.family])], random.Random(0)
    n_lines = max(40 * work.batch, 4 * len(words) // work.length)
    length = work.length - (work.family == "seq2seq")  # <eos>
    for path in both:
        drawn = words + random_.choices(words, k=n_lines * length)
        lines = [" ".join(drawn[i : i + length]) for i in range(0, n_lines * length, length)]
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return " ".join(both) if work.family == "seq2seq" else both[0]


def images(work: Work, folder: Path) -> str:
    """Two IDX files of random pictures and labels."""
    n, side, draw = 20 * work.batch, work.pixels, np.random.default_rng(0)
    pictures, labels = folder / "images-idx3-ubyte", folder / "labels-idx1-ubyte"
    pictures.write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, n, side, side) + draw.bytes(n * side * side))
    labels.write_bytes(struct.pack(">4BI", 0, 0, 8, 1, n) + bytes(i % 10 for i in range(n)))
    return f"{pictures.as_posix()} {labels.as_posix()}"


def stepping(step: Callable[..., bool], pipe: Pipe, work: Work, settings: dict[str, Any]) -> Callable[..., bool]:
    """`step`, timed; after the warm-up, and whenever what was asked for is done, it answers and waits for the next request."""
    until, begun, found = 0.0, False, list[tuple[float, float, int]]()

    def timed(learner: Learner, stop: Any) -> bool:
        nonlocal until, begun, found
        if len(found) >= settings["least"] and time.perf_counter() > until:
            steps = dict(zip(("seconds", "cpu", "units"), zip(*found, strict=True), strict=True))
            pipe.answer(**(steps if begun else told(learner, work, settings)))
            request, found, begun = pipe.read(), [], True
            until = time.perf_counter() + request["seconds"]
        n = count(work, learner.run.data.batch(learner.state.step))
        start, cpu = time.perf_counter(), time.process_time()
        asked = step(learner, stop)
        found.append((time.perf_counter() - start, time.process_time() - cpu, n))
        return asked

    return timed


def count(work: Work, batch: Any) -> int:
    """The units of a batch; padding is none."""
    if work.family == "seq2seq":
        return int(batch["source_keep"].sum()) + int(batch["target_keep"].sum())
    return batch["images"].shape[0] if work.family == "vit" else batch["ids"].numel()


def told(learner: Learner, work: Work, settings: dict[str, Any]) -> dict[str, Any]:
    """What ours chose, and how long pairs are; writes the batches down if that is asked for."""
    run = learner.run
    batches = [run.data.batch(step) for step in range(settings["share"])]
    if batches:
        flat = {f"{i}.{name}": tensor.numpy() for i, batch in enumerate(batches) for name, tensor in batch.items()}
        np.savez(Path(settings["folder"]) / "batches.npz", **flat)
    answer: dict[str, Any] = {"parameters": sum(p.numel() for p in run.model.parameters())}
    answer["imported"] = settings["imported"]
    answer["chosen"] = {k: v for k, v in run.choices.to_dict().items() if k not in ("step_seconds", "peak_flops")}
    if work.family == "seq2seq" and batches:
        for side in ("source", "target"):
            rows = sum(len(batch[f"{side}_keep"]) for batch in batches)
            answer[side] = sum(int(batch[f"{side}_keep"].sum()) for batch in batches) / rows
    return answer


if __name__ == "__main__":
    main()
