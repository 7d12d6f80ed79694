"""A model of `transformers` and ours of the same weights, side by side: logits, hidden states, loss, gradients, tokens."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.generation.options import GenerationOptions
from pellucid.generation.search import generate
from pellucid.models import storage
from pellucid.models.build import build
from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.families import FOREIGN
from pellucid.models.pretrained.mapping import to_ours
from tests.families import close

FIRST = 3  # ids from here on are words; below may stand <pad>, <bos>, <eos>


@torch.no_grad()
def shaken(model: Any, seed: int = 0, by: float = 0.15) -> Any:
    """The model with weights large enough for differences to show, in evaluation mode. What is computed stays (Pegasus' sines)."""
    generator = torch.Generator().manual_seed(seed)
    computed = "embed_positions" if getattr(model.config, "model_type", "") == "pegasus" else " "
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and computed not in name:
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def loaded(theirs: Any, folder: Path) -> Any:
    """Their model, written by them and opened by us."""
    theirs.save_pretrained(folder)
    return storage.load(folder)[0]


def returned(config: ModelConfig, folder: Path, seed: int = 0, **options: Any) -> tuple[Any, Any]:
    """(a random model of ours, the same as `transformers` opens what we wrote); nothing is missing, nothing too much. options: what their
    class has to be told besides."""
    import transformers

    ours = shaken(build(config, seed), seed)
    storage.save(ours, folder)
    (architecture,) = storage.read_json(folder / "config.json")["architectures"]
    theirs, told = getattr(transformers, architecture).from_pretrained(folder, output_loading_info=True, **options)
    assert not any(told.values()), told
    assert storage.load(folder)[0].config == config
    return ours, theirs


def words(batch: int, length: int, vocabulary: int, seed: int = 0) -> Tensor:
    """Random ids [batch, length] without special tokens."""
    return torch.randint(FIRST, vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


def kept(batch: int, length: int, left: bool = False) -> Tensor:
    """keep [batch, length]: row b has b tokens of padding."""
    place = torch.arange(length)
    real = (place.flip(0) if left else place)[None] < (length - torch.arange(batch) % length)[:, None]
    return real


def same(ours: Tensor, theirs: Tensor, what: str = "") -> None:
    """Raises AssertionError unless equal within 1e-5·max(1,|theirs|)."""
    assert ours.shape == theirs.shape, f"{what}: {tuple(ours.shape)} and {tuple(theirs.shape)}"
    assert close(ours, theirs), f"{what} differs by {(ours - theirs).abs().max().item():.2g}"


@contextmanager
def watched(*stacks: Any) -> Iterator[list[Tensor]]:
    """Meanwhile a list of what each block of these stacks, and at its end their norm, has given."""
    seen: list[Tensor] = []

    def note(module: nn.Module, given: Any, made: Tensor) -> None:
        seen.append(made)

    handles = [part.register_forward_hook(note) for stack in stacks for part in (*stack.blocks, stack.norm)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def same_states(seen: Sequence[Tensor], theirs: Sequence[Tensor], keep: Tensor, order: Tensor | None = None) -> None:
    """What `watched` saw of one stack against their hidden states: behind the embedding, behind each block; their last is normed."""
    blocks, normed = seen[:-2], seen[-1]
    for n, (ours, reference) in enumerate(zip([*blocks, normed], theirs[1:], strict=True)):
        reference = reference if order is None else reference.index_select(-1, order)
        same(ours[keep], reference[keep], f"behind block {n}")


def same_gradients(ours: Any, theirs: Any, but: Sequence[int] = ()) -> None:
    """After both have gone backwards: the gradients of all parameters. `but`: rows of the embedding that do not count."""
    family, config = FOREIGN[theirs.config.model_type], ours.config
    found = {family.tidy(name, config) or "": p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    shapes = {name: tuple(p.shape) for name, p in ours.named_parameters()}
    mapped = to_ours(family.rows(config), found, shapes, family.order(config))
    for name, parameter in ours.named_parameters():
        gradient, reference = parameter.grad, mapped[name]
        if name.endswith("tokens.weight"):
            rows = [i for i in range(len(gradient)) if i not in but]
            gradient, reference = gradient[rows], reference[rows]
        same(gradient, reference, f"the gradient of {name}")


def next_loss(logits: Tensor, ids: Tensor, keep: Tensor) -> Tensor:
    """The mean cross-entropy of each real token after its first, as language models have it."""
    targets = ids.masked_fill(~keep, -100)[:, 1:]
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten())


def said(ours: Any, inputs: Sequence[Sequence[int]], beam: int = 1, max_new: int = 12) -> list[list[int]]:
    """What ours says, greedily or by beams: token ids without what was given and without <eos>."""
    options = GenerationOptions(max_new=max_new, beam=beam)
    return [hypotheses[0].ids for hypotheses in generate(ours, inputs, options)]


def said_by_theirs(theirs: Any, ids: Tensor, keep: Tensor, beam: int = 1, max_new: int = 12) -> list[list[int]]:
    """What theirs says (decoders: give `ids` padded to the left), cut behind the first token that ends a text. By beams: until nothing that
    lives can still win, as ours; by default theirs stops when nothing would win that ended now."""
    forced = theirs.config.is_encoder_decoder and theirs.generation_config.forced_bos_token_id is not None
    speaks = {"num_beams": beam, "do_sample": False, "max_new_tokens": max_new + forced, "max_length": None}
    speaks |= {"early_stopping": "never"} if beam > 1 else {}  # as ours: nothing that could still win is given up
    with torch.no_grad():
        out = theirs.generate(input_ids=ids, attention_mask=keep.long(), **speaks)
    start = 1 + forced if theirs.config.is_encoder_decoder else ids.shape[1]
    eos = theirs.generation_config.eos_token_id
    ends = set(eos if isinstance(eos, list) else [eos])
    rows = [row[start:] for row in out.tolist()]
    return [row[: next((i for i, token in enumerate(row) if token in ends), len(row))] for row in rows]
