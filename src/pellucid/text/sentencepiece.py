"""SentencePiece's model files (Kudo and Richardson 2018, arXiv 1808.06226) as tokenizers of the `tokenizers` library: Llama's
tokenizer.model (BPE with bytes for unknown characters), T5's spiece.model (unigram), and others of these two kinds.

The file is read here, in thirty lines of protobuf's wire format, and the tokenizer put together from the library's own parts: the
converters of `transformers` need all of that package, and the schema that comes with `sentencepiece` needs protobuf, which refuses
it in a process where another package has brought its own copy. So nothing needs to be installed. Imports no torch.

Where `transformers` cuts a text otherwise than SentencePiece does, ids are those of `transformers`: what a model loaded there sees.
- A text that begins with a space gets no further one before it in BPE (SentencePiece: two), as of Metaspace, its pre-tokenizer.
- BPE joins neighbours in the order of the merges; where one piece can be made of two pairs ("aa"+"a", "a"+"aa"), SentencePiece
  takes the leftmost.
- T5's text is cut at all white space of Unicode, and not only at what its normaliser turns into a space.
- A character that is replaced (½) takes the accent behind it with it (`charsmap`).
- Literal names of user-defined symbols are found before the text is normalised.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from pellucid.errors import DataError
from pellucid.text.beside import put_around
from pellucid.text.charsmap import Charsmap

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # types of a piece
UNIGRAM, BPE = 1, 2  # types of a model
LONGEST = 1000  # characters of a piece; trainers stop at 16
CLASSES = (
    *("", "LlamaTokenizer", "CodeLlamaTokenizer", "T5Tokenizer", "MT5Tokenizer", "MarianTokenizer"),
    *("PreTrainedTokenizer", "TokenizersBackend", "SentencePieceBackend"),
)
CONVERT = "transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes tokenizer.json"


@dataclass(frozen=True)
class Model:
    """What one file says. `roles`: the special pieces that are "pad", "bos", "eos" and "unk", None for none."""

    pieces: list[str]
    scores: list[float]
    types: list[int]
    unk: int
    roles: dict[str, str | None]
    kind: int
    byte_fallback: bool
    charsmap: bytes
    prefix: bool
    squeeze: bool


# ---- to a tokenizer


def read(file: Path, settings: Mapping[str, Any]) -> tuple[Tokenizer, dict[str, str | None]]:
    """The tokenizer and the roles of its special tokens; `settings`: see `beside.settings_of`."""
    model, name = read_model(file), settings["tokenizer_class"]
    if name not in CLASSES or "[CLS]" in model.pieces or "<cls>" in model.pieces:
        whose = name or "this model's tokenizer"
        raise DataError(f"{file}: {whose} reads texts otherwise than its SentencePiece file alone says", CONVERT)
    roles = model.roles
    is_t5 = model.kind == UNIGRAM and roles["eos"] is not None and roles["bos"] is None
    if model.kind == BPE:
        tokenizer = bpe(model, settings)
    elif is_t5:
        tokenizer = t5(model, _count(settings.get("extra_ids", 100), file))
    else:
        tokenizer = Tokenizer(models.Unigram(table(model), model.unk, model.byte_fallback))
        dress(tokenizer, model)
    mark_added(tokenizer, model)
    if is_t5:
        put_around(tokenizer, "", roles["eos"] or "")
    elif model.kind == BPE and model.byte_fallback:
        put_around(tokenizer, roles["bos"] or "", "")  # Llama's, if nothing beside the file says otherwise
    return tokenizer, roles


def bpe(model: Model, settings: Mapping[str, Any]) -> Tokenizer:
    """ "Join the neighbours whose union scores best" as merges: one for each way to cut a piece in two, best first."""
    places = {piece: i for i, piece in enumerate(model.pieces)}
    usual = {piece: i for piece, i in places.items() if model.types[i] == NORMAL}
    merges = []
    for piece, i in usual.items():
        for cut in range(1, len(piece)):
            if piece[:cut] in usual and piece[cut:] in usual:
                merges.append((-model.scores[i], i, cut, (piece[:cut], piece[cut:])))
    ordered = [pair for *_, pair in sorted(merges)]
    unknown = model.pieces[model.unk]
    tokenizer = Tokenizer(
        models.BPE(places, ordered, unk_token=unknown, fuse_unk=True, byte_fallback=model.byte_fallback)
    )
    dress(tokenizer, model, settings)
    return tokenizer


def t5(model: Model, n_extra: int) -> Tokenizer:
    """With its sentinels, <extra_id_0> the last id of all."""
    names = [f"<extra_id_{i}>" for i in reversed(range(n_extra))]
    pieces = table(model) + [(name, 0.0) for name in names if name not in model.pieces]
    tokenizer = Tokenizer(models.Unigram(pieces, model.unk, model.byte_fallback))
    dress(tokenizer, model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.add_special_tokens(names)
    return tokenizer


def table(model: Model) -> list[tuple[str, float]]:
    """Pieces and scores, for the library's unigram model."""
    return list(zip(model.pieces, model.scores, strict=True))


def dress(tokenizer: Tokenizer, model: Model, settings: Mapping[str, Any] | None = None) -> None:
    """How a text is cleaned, and how spaces become ▁ and spaces again."""
    settings = settings or {}
    cleaning: list[Any] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.squeeze:
        cleaning += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if cleaning:
        tokenizer.normalizer = normalizers.Sequence(cleaning)
    prefix = model.prefix if settings.get("add_prefix_space") is None else bool(settings["add_prefix_space"])
    first = "first" if model.kind == BPE and not settings.get("legacy") else "always"  # matters behind special tokens
    scheme = first if prefix else "never"
    split = model.kind == UNIGRAM and not any("▁" in piece[1:] for piece in model.pieces)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme, split)
    if model.byte_fallback:
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        tokenizer.decoder = decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)] * prefix)
    else:
        tokenizer.decoder = decoders.Metaspace("▁", scheme, split)


def mark_added(tokenizer: Tokenizer, model: Model) -> None:
    """Control symbols are special; what users defined is found in a text before anything else."""
    for piece, kind in zip(model.pieces, model.types, strict=True):
        if kind in (UNKNOWN, CONTROL, USER_DEFINED):
            tokenizer.add_tokens([AddedToken(piece, normalized=False, special=kind != USER_DEFINED)])


def _count(number: Any, file: Path) -> int:
    if not isinstance(number, int) or not 0 <= number <= 10_000:
        raise DataError(f"{file.with_name('tokenizer_config.json')}: extra_ids = {number!r}", "T5 has 100")
    return number


# ---- from the file


def read_model(file: Path) -> Model:
    """DataError where the file is damaged, or says what no tokenizer here can do."""
    try:
        model = _model(file.read_bytes())
    except (ValueError, IndexError, struct.error) as error:
        raise DataError(f"{file}: damaged, or not SentencePiece's ({error})", "fetch the file again") from None
    if model.kind not in (UNIGRAM, BPE):
        raise DataError(f"{file}: a SentencePiece model of words or characters is not read", "train BPE or unigram")
    return model


def _model(data: bytes) -> Model:
    parts: dict[int, list[Any]] = {1: [], 2: [], 3: []}
    for number, value in fields(data):
        if number in parts:
            parts[number].append(_bytes(value))
    trainer, normaliser = (dict(fields(b"".join(parts[number]))) for number in (2, 3))
    read = [dict(fields(piece)) for piece in parts[1]]
    pieces = [_bytes(piece.get(1, b"")).decode("utf-8") for piece in read]
    scores = [struct.unpack("<f", _bytes(piece.get(2, bytes(4))))[0] for piece in read]
    types = [_number(piece.get(3, NORMAL)) for piece in read]
    places = {"bos": (41, 1), "eos": (42, 2), "pad": (43, -1)}
    roles = {name: _signed(trainer.get(*place)) for name, place in places.items()}
    controls = {i: piece for i, piece in enumerate(pieces) if types[i] == CONTROL}
    unk = types.index(UNKNOWN)
    model = Model(
        pieces,
        scores,
        types,
        unk,
        {name: controls.get(i) for name, i in roles.items()} | {"unk": pieces[unk]},
        kind=_number(trainer.get(3, UNIGRAM)),
        byte_fallback=bool(_number(trainer.get(35, 0))),
        charsmap=_bytes(normaliser.get(2, b"")),
        prefix=bool(_number(normaliser.get(3, 1))),
        squeeze=bool(_number(normaliser.get(4, 1))),
    )
    if _number(trainer.get(24, 0)) or not _number(normaliser.get(5, 1)):
        raise ValueError("spaces are not turned into ▁ before words")
    _check(model)
    return model


def _check(model: Model) -> None:
    """ValueError with what cannot be."""
    if not model.pieces or len(set(model.pieces)) != len(model.pieces):
        raise ValueError("a piece occurs twice" if model.pieces else "no pieces")
    if max(map(len, model.pieces)) > LONGEST or not all(model.pieces):
        raise ValueError(f"pieces have 1 to {LONGEST} characters")
    if not all(map(math.isfinite, model.scores)):
        raise ValueError("a score is not a number")
    if model.byte_fallback and not {f"<0x{byte:02X}>" for byte in range(256)} <= set(model.pieces):
        raise ValueError("not all of <0x00> to <0xFF> are there")
    if model.charsmap:
        Charsmap(model.charsmap)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of a protobuf message: a varint as a number, everything else as its bytes. ValueError where it is cut off."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + size > len(data):
            raise ValueError(f"{size} bytes at byte {at} of {len(data)}")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number without end at byte {at}")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number in place of bytes")
    return value


def _number(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("bytes in place of a number")
    return value


def _signed(value: int | bytes) -> int:
    number = _number(value)
    return number - (1 << 64) if number >= 1 << 63 else number
