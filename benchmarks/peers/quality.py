"""The peers' side of `quality`: trainings from the first step to the last, judged on the way.

Each gives {"curve": [[step, seconds of training, quality]], "final", "seconds", "how"}. Seconds are those of steps, batches included,
evaluations not. nanoGPT trains in benchmarks/nanogpt.py; Hugging Face's models in a loop as its Trainer has it: AdamW, linear warm-up and
decay, clipping at 1, batches of like lengths (`group_by_length`), bfloat16 (autocast) with explicit attention, which is fast on a CPU.
Texts become ids by the tokenizer.json of ours, which is a standard one.
"""

import copy
import gzip
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import nanogpt
from benchmarks.peers.huggingface import MEGA, chunks
from benchmarks.worker import serve

Batches = Iterator[dict[str, Tensor]]
WARMUP = 0.06
"""Share of the steps."""


@dataclass
class Training:
    """What is trained and judged. `judge(model)`: higher is better, on the way; `final(model)`: with the best weights of the way."""

    model: Any
    batches: Batches
    judge: Callable[[Any], float]
    final: Callable[[Any], float]


def trained(training: Training, s: dict[str, Any]) -> dict[str, Any]:
    """`steps` steps at `lr`, judged every `every`."""
    model, best, best_weights, curve, seconds = training.model, float("-inf"), {}, [], 0.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=s["lr"], weight_decay=0.01, fused=True)
    steps, warmup = s["steps"], max(1, round(WARMUP * s["steps"]))
    for step in range(1, steps + 1):
        model.train()
        begin = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = s["lr"] * min(step / warmup, (steps - step + 1) / max(1, steps - warmup))
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**next(training.batches)).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds += time.perf_counter() - begin
        if step % s["every"] == 0 or step == steps:
            now = judged(training.judge, model)
            curve.append([step, seconds, now])
            if now > best:
                best, best_weights = now, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_weights)
    how = f"AdamW {s['lr']:g}, bfloat16, explicit attention, {torch.get_num_threads()} threads"
    return {"curve": curve, "final": judged(training.final, model), "seconds": seconds, "how": how}


@torch.no_grad()
def judged(judge: Callable[[Any], float], model: Any) -> float:
    """In bfloat16 as in training."""
    model.eval()
    with torch.autocast("cpu", torch.bfloat16):
        return judge(model)


# --- Shakespeare, by nanoGPT --------------------------------------------------------------------------------------------


def shakespeare(s: dict[str, Any]) -> dict[str, Any]:
    """nanoGPT's own setting; quality is the loss of the whole validation part."""
    text = Path(s["files"]["text"]).read_text(encoding="utf-8")
    characters = {character: i for i, character in enumerate(sorted(set(text)))}
    ids, cut = torch.tensor([characters[character] for character in text]), int(0.9 * len(text))
    result = nanogpt.Result(nanogpt.TUNED if s["tuned"] else nanogpt.README, s["seed"])
    source = nanogpt.load(Path(s["source"]))
    found = nanogpt.train(source, ids[:cut], ids[cut:], len(characters), s["steps"], result)
    curve = [list(point) for point in found.curve]
    return {"curve": curve, "final": found.loss, "seconds": found.seconds, "how": found.how}


# --- Multi30k, by Marian ------------------------------------------------------------------------------------------------


def multi30k(s: dict[str, Any]) -> dict[str, Any]:
    """The recipe's sizes and dropout; quality is BLEU, greedy on the validation part, at the end with beam 5 on the test part."""
    from sacrebleu.metrics import BLEU
    from tokenizers import Tokenizer
    from transformers import MarianConfig, MarianMTModel
    from transformers.modeling_outputs import Seq2SeqLMOutput

    tokenizer = Tokenizer.from_file(s["tokenizer"])
    pad, bos, eos = (tokenizer.token_to_id(f"<{name}>") for name in ("pad", "bos", "eos"))
    train, valid, test = ([lines(path) for path in s["files"][part]] for part in ("train", "valid", "test"))
    valid, test = ([side[: s["limit"]] for side in part] for part in (valid, test))
    d, ff, layers, heads = s["sizes"]
    sizes = {
        f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("layers", layers), ("ffn_dim", ff))
    }
    sizes |= {"encoder_attention_heads": heads, "decoder_attention_heads": heads, "d_model": d, "dropout": 0.3}
    ids = {"pad_token_id": pad, "eos_token_id": eos, "decoder_start_token_id": bos, "forced_eos_token_id": None}
    rest = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 256, "scale_embedding": True}
    torch.manual_seed(s["seed"])
    model = MarianMTModel(MarianConfig(**sizes, **ids, **rest, activation_function="relu", attention_dropout=0.0))
    model.set_attn_implementation("eager")
    rows = list(zip(*([e.ids for e in tokenizer.encode_batch(side)] for side in train), strict=True))

    def collate(some: list[Any]) -> dict[str, Tensor]:
        source, keep = padded([row[0] for row in some], pad)
        target, real = padded([[*row[1], eos] for row in some], pad)
        given = torch.cat([torch.full((len(some), 1), bos), target[:, :-1]], 1)
        return {
            "input_ids": source,
            "attention_mask": keep.long(),
            "decoder_input_ids": given,
            "labels": target,
            "real": real,
        }

    def bleu(part: list[list[str]], beams: int) -> Callable[[Any], float]:
        return lambda model: BLEU().corpus_score(say(model, part[0], beams), [part[1]]).score

    def say(model: Any, sources: list[str], beams: int) -> list[str]:
        said: list[str] = []
        for some in chunks(sources, 64):
            source, keep = padded([e.ids for e in tokenizer.encode_batch(some)], pad)
            out = model.generate(input_ids=source, attention_mask=keep.long(), num_beams=beams, max_new_tokens=100)
            said += tokenizer.decode_batch(out.tolist(), skip_special_tokens=True)
        return said

    forward = model.forward

    def smoothed(*args: Any, labels: Tensor | None = None, real: Tensor | None = None, **more: Any) -> Any:
        """Its trainer's label smoothing, 0.1."""
        out = forward(*args, **more)
        if labels is None or real is None:
            return out
        loss = nn.functional.cross_entropy(out.logits[real].float(), labels[real], label_smoothing=0.1)
        return Seq2SeqLMOutput(loss=loss)

    model.forward = smoothed
    batches = grouped(rows, lambda row: len(row[0]), s["batch"], collate, s["seed"])
    return trained(Training(model, batches, bleu(valid, 1), bleu(test, 5)), s)


# --- SST-2, by BERT -----------------------------------------------------------------------------------------------------


def sst2(s: dict[str, Any]) -> dict[str, Any]:
    """The recipe's sizes, from scratch; quality is accuracy on the test part, on the way and at the end."""
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = Tokenizer.from_file(s["tokenizer"])
    pad, bos, eos = (tokenizer.token_to_id(f"<{name}>") for name in ("pad", "bos", "eos"))
    d, ff, layers, heads = s["sizes"]
    sizes = {"hidden_size": d, "intermediate_size": ff, "num_hidden_layers": layers, "num_attention_heads": heads}
    torch.manual_seed(s["seed"])
    config = BertConfig(
        **sizes,
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=80,
        pad_token_id=pad,
        hidden_dropout_prob=0.3,
        attention_probs_dropout_prob=0.1,
        num_labels=2,
    )
    model = BertForSequenceClassification(config)
    model.set_attn_implementation("eager")

    def read(path: str) -> list[tuple[list[int], int]]:
        table = [line.rsplit("\t", 1) for line in lines(path)[1:]]
        encoded = tokenizer.encode_batch([text for text, _ in table])
        return [([bos, *e.ids[:78], eos], int(label)) for e, (_, label) in zip(encoded, table, strict=True)]

    def collate(some: list[Any]) -> dict[str, Tensor]:
        ids, keep = padded([row[0] for row in some], pad)
        return {"input_ids": ids, "attention_mask": keep.long(), "labels": torch.tensor([row[1] for row in some])}

    test = [collate(some) for some in chunks(read(s["files"]["test"][0]), 64)]

    def accuracy(model: Any) -> float:
        right = sum(int((model(**batch).logits.argmax(-1) == batch["labels"]).sum()) for batch in test)
        return right / sum(len(batch["labels"]) for batch in test)

    rows = read(s["files"]["train"][0])
    batches = grouped(rows, lambda row: len(row[0]), s["batch"], collate, s["seed"])
    return trained(Training(model, batches, accuracy, accuracy), s)


# --- texts --------------------------------------------------------------------------------------------------------------


def lines(path: str) -> list[str]:
    """Of a text file, plain or .gz."""
    opened = gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8")
    with opened as file:
        return file.read().rstrip("\n").split("\n")


def padded(rows: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Ids [B,T] and where they are real."""
    made = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, pad)
    return made, torch.arange(made.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]


def grouped(
    rows: list[Any], length: Callable[[Any], int], batch: int, collate: Callable[[list[Any]], Any], seed: int
) -> Batches:
    """Epochs of batches of like lengths, as the trainer's `group_by_length` makes them."""
    draw = random.Random(seed)
    while True:
        draw.shuffle(rows)
        for mega in chunks(rows, MEGA * batch):
            made = list(chunks(sorted(mega, key=length, reverse=True), batch))
            draw.shuffle(made)
            yield from map(collate, made)


WORKS = {"shakespeare": shakespeare, "multi30k": multi30k, "sst2": sst2}


def start(settings: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """Trains when asked to."""
    return {}, lambda request: WORKS[settings["work"]](settings)


if __name__ == "__main__":
    serve(start)
