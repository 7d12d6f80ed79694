"""Hugging Face's models of the work's sizes. `attention` "fused" is its sdpa, "explicit" its eager. `kind`: which model.

Pairs are padded to the longest of a batch, as its collator does; `grouped`: batches of like lengths, as its trainer's `group_by_length`.
`targets_only`: the vocabulary where there is a target, not at every place as its own loss has it (BERT, Marian, Bart).
"""

import importlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers.plain import Batches, again, begin, imported, shared
from benchmarks.worker import serve

PAD, START = 0, 1
MEGA = 50
"""Batches that are sorted together by `group_by_length`."""


def start(settings: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """The model of the work's size, warm."""
    work, name = settings["work"], settings["kind"].lower().replace("-", "")
    importlib.import_module(f"transformers.models.{name}.modeling_{name}")  # or it comes when the model is built
    settings = settings | {"imported": imported()}
    model = MODELS[settings["kind"]](work, settings)
    model.set_attn_implementation("sdpa" if settings["attention"] == "fused" else "eager")
    batches, loss = shared(settings), words
    if settings.get("targets_only") and work["family"] in ("bert", "seq2seq"):
        model, loss = AtTargets(model), at_targets
    if work["family"] == "seq2seq":
        return begin(settings, model, loss, pairs(batches, work, settings.get("grouped", False)))
    if work["family"] == "vit":
        return begin(settings, model, pictures, again(batches, "images"))
    return begin(settings, model, loss, again([named(batch, work["family"]) for batch in batches], "input_ids"))


def words(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Its own loss."""
    return model(**batch).loss


class AtTargets(nn.Module):
    """The model's own parts; between them all places without a target are left out."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, places: Tensor | None, targets: Tensor, **inputs: Tensor) -> Tensor:
        """The mean loss of `targets`; `places` [N] tells where they are in batch × length, None = everywhere."""
        whole = self.model
        trunk = whole.bert if hasattr(whole, "bert") else whole.model
        states = trunk(**inputs)[0].flatten(0, 1)
        states = states if places is None else states[places]
        logits = whole.cls(states) if hasattr(whole, "cls") else whole.lm_head(states) + whole.final_logits_bias
        return nn.functional.cross_entropy(logits, targets)


def at_targets(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """The same loss as `words`, by `AtTargets`. Compiled once for any number of targets."""
    labels = batch["labels"].flatten()
    places = (labels != -100).nonzero()[:, 0]
    if len(places) == len(labels):
        places, targets = None, labels
    else:
        targets = labels[places]
        for tensor in (places, targets):
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
    return model(places, targets, **{name: tensor for name, tensor in batch.items() if name != "labels"})


def pictures(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Its own loss."""
    return model(pixel_values=batch["images"], labels=batch["labels"]).loss


def named(batch: dict[str, Tensor], family: str) -> dict[str, Tensor]:
    """The batch by its names. A GPT shifts the labels itself, so it is given the ids."""
    return {"input_ids": batch["ids"], "labels": batch["ids"] if family == "gpt" else batch["targets"]}


def pairs(batches: list[dict[str, Tensor]], work: dict[str, Any], grouped: bool) -> Batches:
    """The same pairs in batches of a number of them, drawn at random, with their real tokens."""
    rows = [row for batch in batches for row in rows_of(batch)]
    draw = random.Random(0)
    while True:
        draw.shuffle(rows)
        for mega in chunks(rows, MEGA * work["batch"]):
            order = sorted(mega, key=lambda row: -len(row[0])) if grouped else mega
            made = list(chunks(order, work["batch"]))
            draw.shuffle(made)
            for some in made:
                if len(some) == work["batch"] or len(rows) < work["batch"]:
                    yield collated(some), sum(len(source) + len(target) for source, target in some)


def rows_of(batch: dict[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """(source, target with its end) of each row."""
    for i, keep in enumerate(batch["source_keep"]):
        yield batch["source"][i][keep], batch["target_out"][i][batch["target_keep"][i]]


def chunks(rows: list[Any], size: int) -> Iterator[list[Any]]:
    """Of `size` rows each; the last may have fewer."""
    for i in range(0, len(rows), size):
        yield rows[i : i + size]


def collated(rows: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Padded to the longest; the mask is left out where there is no padding."""
    source = torch.nn.utils.rnn.pad_sequence([row[0] for row in rows], True, PAD)
    labels = torch.nn.utils.rnn.pad_sequence([row[1] for row in rows], True, -100)
    keep = torch.arange(source.shape[1]) < torch.tensor([len(row[0]) for row in rows])[:, None]
    given = torch.cat([torch.full((len(rows), 1), START), labels[:, :-1].clamp(min=PAD)], 1)
    batch = {"input_ids": source, "decoder_input_ids": given, "labels": labels}
    return batch if bool(keep.all()) else batch | {"attention_mask": keep.long()}


def marian(work: dict[str, Any], settings: dict[str, Any]) -> Any:
    from transformers import MarianConfig, MarianMTModel

    return MarianMTModel(MarianConfig(**encoder_decoder(work), activation_function="relu", scale_embedding=True))


def bart(work: dict[str, Any], settings: dict[str, Any]) -> Any:
    from transformers import BartConfig, BartForConditionalGeneration

    return BartForConditionalGeneration(BartConfig(**encoder_decoder(work), bos_token_id=START))


def encoder_decoder(work: dict[str, Any]) -> dict[str, Any]:
    """Sizes and dropout as ours has them."""
    sizes = {f"{side}_{name}": work[key] for side in ("encoder", "decoder") for name, key in LAYERS.items()}
    ids = {"pad_token_id": PAD, "eos_token_id": 2, "decoder_start_token_id": START, "forced_eos_token_id": None}
    sizes |= {"d_model": work["d_model"], "vocab_size": work["vocab"], "max_position_embeddings": 256}
    return sizes | ids | {"dropout": 0.1, "attention_dropout": 0.0, "activation_dropout": 0.0}


LAYERS = {"layers": "layers", "attention_heads": "heads", "ffn_dim": "d_ff"}


def bert(work: dict[str, Any], settings: dict[str, Any]) -> Any:
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(
        BertConfig(
            **encoder(work),
            vocab_size=work["vocab"],
            max_position_embeddings=work["length"],
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.0,
        )
    )


def vit(work: dict[str, Any], settings: dict[str, Any]) -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    rest = {"image_size": work["pixels"], "patch_size": 7, "num_channels": 1, "num_labels": 10}
    return ViTForImageClassification(ViTConfig(**encoder(work), **rest))


def encoder(work: dict[str, Any]) -> dict[str, Any]:
    """Sizes by their names in an encoder's config."""
    names = {"hidden_size": "d_model", "num_hidden_layers": "layers", "num_attention_heads": "heads"}
    return {name: work[key] for name, key in {**names, "intermediate_size": "d_ff"}.items()}


def gpt2(work: dict[str, Any], settings: dict[str, Any]) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    names = {
        "n_positions": "length",
        "n_layer": "layers",
        "n_head": "heads",
        "n_embd": "d_model",
        "vocab_size": "vocab",
    }
    activation = (
        "gelu_pytorch_tanh" if settings["bf16"] else "gelu_new"
    )  # the fast one of the same function, where it is tuned
    off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return GPT2LMHeadModel(GPT2Config(**{k: work[v] for k, v in names.items()}, **off, activation_function=activation))


MODELS = {"Marian": marian, "Bart": bart, "BERT": bert, "ViT": vit, "GPT-2": gpt2}


if __name__ == "__main__":
    serve(start)
