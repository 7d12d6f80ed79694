"""Question: at one size, with the same words hidden in the same batches, how well do Hugging Face's BERT and Pellucid's guess them?

Command (FOLDER has text/wikitext-2.train.txt.gz and text/wikitext-2.valid.txt.gz; needs `pip install transformers`):

    python benchmarks/wikitext.py --data FOLDER [--steps 800] [--threads 2] [--json FILE]

Tokenizer (WordPiece, 8,000, lower-cased, learnt from the training part), windows, hidden words and their order are made once by Pellucid
from the recipe `mlm` and given to all. The model is smaller than the recipe's (4 layers, d_model 128, windows of 64 tokens), so that all
have learnt something when the minutes are over. One after the other, each for the same number of steps, a tenth of them warm-up:

* Hugging Face's BertForMaskedLM as its users train it from scratch: AdamW (betas 0.9 and 0.999, decay 0.01 but for biases and norms),
  linear decay to 0, gradients clipped at 1. Its learning rate is tuned: each of --rates is trained to the end, and the best counts.
* Hugging Face's with the AdamW of Pellucid's second row: its rate, betas, decay and cosine.
* Pellucid with AdamW, and Pellucid with Muon as the recipe has it. Not tuned here: the rate is the better of two, the recipe's and twice
  that, for both optimisers at this size, by the same validation part.

Speed: Hugging Face's runs in bfloat16 (autocast) with eager attention, which is the fastest we know for it on a CPU; its float32, as it
runs where nothing is said, is timed over some steps beside it. Pellucid chooses for itself. Judged are all by one function, in bfloat16
(losses in float32), on all held-out windows, always masked alike: nats for each hidden token, and how often the likeliest is right. GPUs
are hidden. `seconds` are those of training, without evaluations.
"""

import argparse
import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pellucid
from pellucid.cli.overrides import override, with_absolute_paths
from pellucid.data.text import IGNORE
from pellucid.training import schedules
from pellucid.training.config import TrainingConfig
from pellucid.training.fits import Fit, prepare
from pellucid.training.recipe import Recipe, load_recipe
from pellucid.training.run import start

SIZES = "--stack.d-model 128 --stack.d-ff 512 --model.max-length 64 --training.length 64 --training.batch-size 32"
SIZES += " --training.lr 2e-3"
THEIRS = "Hugging Face, AdamW at"
TIMED = 12
"""Steps of float32 that are timed, after 3 that are not."""


@dataclass
class Result:
    """One training. `how`: optimiser and precision."""

    name: str
    loss: float = math.nan
    accuracy: float = math.nan
    seconds: float = 0.0
    tokens: int = 0
    parameters: int = 0
    how: str = ""


@torch.no_grad()
def judge(logits: Callable[[Tensor, Tensor], Tensor], fit: Fit) -> tuple[float, float]:
    """(nats a hidden token, share guessed right) over all held-out windows. `logits`: ids [B,T] and where [B,T] -> [N,V]."""
    nats = right = n = 0.0
    for batch in fit.task.valid.windows(64):  # type: ignore[attr-defined]
        hidden = batch["targets"] != IGNORE
        with torch.autocast("cpu", torch.bfloat16):
            said, truth = logits(batch["ids"], hidden).float(), batch["targets"][hidden]
        nats += float(torch.nn.functional.cross_entropy(said, truth, reduction="sum"))
        right, n = right + int((said.argmax(-1) == truth).sum()), n + len(truth)
    return nats / n, right / n


def theirs(fit: Fit, recipe: Recipe, seed: int) -> Any:
    """Hugging Face's BERT of the recipe's size; dropout as it comes (0.1 everywhere)."""
    from transformers import BertConfig, BertForMaskedLM

    c = fit.config
    torch.manual_seed(seed)
    return BertForMaskedLM(
        BertConfig(
            vocab_size=c.vocab_size,
            hidden_size=c.stack.d_model,
            num_hidden_layers=c.stack.n_layers,
            num_attention_heads=c.stack.n_heads,
            intermediate_size=c.stack.d_ff,
            max_position_embeddings=c.max_length,
            pad_token_id=c.pad_id,
            attn_implementation="eager",
        )
    )


def decayed(model: Any, t: TrainingConfig) -> torch.optim.AdamW:
    """AdamW; biases and norms do not decay, as Hugging Face's trainer has it."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": t.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=t.lr, betas=t.betas, fused=True)


def steps(model: Any, fit: Fit, t: TrainingConfig, n: int, bf16: bool) -> float:
    """n steps of a plain loop; its seconds, batches included as they are in Pellucid's."""
    optimizer, begin = decayed(model, t), time.perf_counter()
    model.train()
    for step in range(n):
        batch = fit.data.batch(step)
        for group in optimizer.param_groups:
            group["lr"] = t.lr * schedules.factor(step, t)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(input_ids=batch["ids"], labels=batch["targets"]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), t.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - begin


def train_theirs(name: str, fit: Fit, recipe: Recipe, t: TrainingConfig) -> Result:
    """Hugging Face's, trained as `t` says and judged."""
    model = theirs(fit, recipe, recipe.seed)
    seconds = steps(model, fit, t, t.steps, bf16=True)
    model.eval()
    loss, accuracy = judge(lambda ids, hidden: model.cls(model.bert(input_ids=ids).last_hidden_state[hidden]), fit)
    how = f"AdamW {t.lr:g}, betas {t.betas[0]:g} {t.betas[1]:g}, decay {t.weight_decay:g}, {t.schedule}, bfloat16"
    size = sum(p.numel() for p in model.parameters())
    return Result(name, loss, accuracy, seconds, t.steps * t.batch_size * t.length, size, how)


def time_float32(fit: Fit, recipe: Recipe, t: TrainingConfig) -> float:
    """Tokens a second of Hugging Face's as it runs where nothing is said."""
    model = theirs(fit, recipe, recipe.seed)
    model.set_attn_implementation("sdpa")
    steps(model, fit, t, 3, bf16=False)
    return TIMED * t.batch_size * t.length / steps(model, fit, t, TIMED, bf16=False)


def train_ours(name: str, fit: Fit, recipe: Recipe) -> Result:
    """The recipe, trained by Pellucid in a folder of its own and judged; its last weights, as Hugging Face's, not its best."""
    t = recipe.training
    with tempfile.TemporaryDirectory(prefix="pellucid-benchmark-") as folder:
        start(replace(recipe, training=replace(t, evaluate_every=0, checkpoint_every=0)), Path(folder))
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
        choices = json.loads((Path(folder) / "run.json").read_text())["choices"]
        model: Any = pellucid.load(folder, device="cpu").model.float()
    loss, accuracy = judge(lambda ids, hidden: model.head(model.hidden(ids)[hidden]), fit)
    seconds = [line for line in lines if line["kind"] == "train"][-1]["seconds"]
    rate = f"Muon {t.muon_lr or 4 * t.lr:g} + AdamW {t.lr:g}" if t.optimizer == "muon" else f"AdamW {t.lr:g}"
    how = f"{rate}, betas {t.betas[0]:g} {t.betas[1]:g}, decay {t.weight_decay:g}, {t.schedule}, {choices['precision']}"
    size = sum(p.numel() for p in model.parameters())
    return Result(name, loss, accuracy, seconds, t.steps * t.batch_size * t.length, size, how)


def table(results: list[Result]) -> str:
    """A row for each training."""
    lines = [f"{'':30}{'loss':>8}{'accuracy':>10}{'seconds':>9}{'tokens/s':>10}{'parameters':>12}  how"]
    for r in results:
        numbers = f"{r.loss:>8.4f}{r.accuracy:>10.4f}{r.seconds:>9.1f}{r.tokens / r.seconds:>10,.0f}"
        lines.append(f"{r.name:30}{numbers}{r.parameters:>12,}  {r.how}")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4, 1e-3, 2e-3], metavar="RATE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("theirs", "ours"), help="half of the rows")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="for both sides, as of `pellucid train`")
    return parser.parse_args()


def recipe(args: argparse.Namespace) -> Recipe:
    """The recipe mlm, smaller, for this data and so many steps."""
    train, valid = (str(args.data / "text" / f"wikitext-2.{part}.txt.gz") for part in ("train", "valid"))
    flags = f"--seed {args.seed} --training.steps {args.steps} --training.warmup {args.steps // 10} {SIZES}"
    flags += f" --training.threads {args.threads} --training.evaluate-limit 64"
    given = ["--data", train, "--data.valid", valid, *flags.split(), *args.flags]
    return with_absolute_paths(override(load_recipe("mlm"), given, "pellucid train mlm"))


def main() -> None:
    args = arguments()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before anything asks for a GPU
    torch.set_num_threads(args.threads)
    muon = recipe(args)
    adamw = replace(muon, training=replace(muon.training, optimizer="adamw"))
    usual = replace(adamw.training, schedule="linear", final_lr=0.0, betas=(0.9, 0.999), weight_decay=0.01)
    fit = prepare(muon, None)
    jobs: list[Callable[[], Result]] = []
    if args.only != "ours":
        for lr in args.rates:
            jobs.append(lambda lr=lr: train_theirs(f"{THEIRS} {lr:g}", fit, muon, replace(usual, lr=lr)))
        jobs.append(lambda: train_theirs("Hugging Face, our AdamW", fit, muon, adamw.training))
    if args.only != "theirs":
        jobs += [lambda: train_ours("Pellucid, AdamW", fit, adamw), lambda: train_ours("Pellucid", fit, muon)]
    random.Random(args.seed).shuffle(jobs)  # a machine that warms up or slows down favours no side
    results = []
    for job in jobs:
        results.append(job())
        print(table(results[-1:]), file=sys.stderr)
    results.sort(key=lambda r: r.loss, reverse=True)
    print(table(results))
    tuned = [r for r in results if r.name.startswith(THEIRS)]
    if tuned:
        print(f"Hugging Face's best: {tuned[-1].name}. As it comes, in float32: ", end="")
        print(f"{time_float32(fit, muon, usual):,.0f} tokens/s")
    if args.json:
        args.json.write_text(json.dumps([asdict(r) for r in results], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
