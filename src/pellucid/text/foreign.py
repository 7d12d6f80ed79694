"""Tokenizers that others made: tokenizer.json; vocab.json + merges.txt (GPT-2); vocab.txt (BERT); SentencePiece's model files
(Llama, T5; Marian's pair); and llama2.c's tokenizer .bin. Imports no torch.

llama2.c stores a SentencePiece BPE as a list of scored pieces. Its rule, "join the neighbours whose union
scores best", is BPE with one merge for each way to cut a piece in two, in the order of the scores. A
character without a piece is spelled in bytes, <0x00> to <0xFF>.
"""

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from pellucid.errors import DataError
from pellucid.text import marian, sentencepiece
from pellucid.text.beside import complete, numbered, roles_of, settings_of
from pellucid.text.charsmap import tables

CHAT = "chat_template.jinja"
TARGET = "target_tokenizer.json"  # beside the tokenizer.json of a pair's source side
WANTED = "tokenizer.json, vocab.json + merges.txt, vocab.txt, *.model, source.spm + target.spm, or llama2.c's tok*.bin"
KNOWN = ("tokenizer.json", "source.spm", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")
BESIDE = {"vocab.json": "merges.txt"}  # needed with it
BRACKETED = ("<pad>", "<s>", "</s>", "<unk>", "<mask>", "<|endoftext|>")
LARGEST = 1 << 29  # bytes; the largest tokenizers are a tenth of that
BYTE_LEVEL = ("", "GPT2Tokenizer", "RobertaTokenizer", "BartTokenizer", "PreTrainedTokenizer", "TokenizersBackend")
WORD_PIECES = (
    "",
    "BertTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "PreTrainedTokenizer",
    "TokenizersBackend",
)


@dataclass(frozen=True)
class Opened:
    """A tokenizer as read: names of special tokens by their roles, as far as files say them (None: it has none); of a pair the
    target's side; and the files that go where it goes, by name."""

    library: Tokenizer
    roles: dict[str, str | None] = field(default_factory=dict)
    target: Tokenizer | None = None
    companions: dict[str, bytes] = field(default_factory=dict)


def read(path: Path) -> Opened:
    """The tokenizer in a file or folder. DataError where there is none, or it cannot be read."""
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder", f"a tokenizer is one of {WANTED}")
    file = find(path) if path.is_dir() else path
    if file.stat().st_size > LARGEST:
        raise DataError(f"{file}: {file.stat().st_size >> 20} MB, too large for a tokenizer", f"expected {WANTED}")
    try:
        return _opened(file)
    except DataError:
        raise
    except (
        BaseException
    ) as error:  # the library raises plain Exception, and PanicException where it trusts a damaged file
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DataError(f"{file}: not a tokenizer that can be read ({error})", f"expected {WANTED}") from error


def find(folder: Path) -> Path:
    """The file to open. A pair's own files go before a tokenizer.json that knows only one side."""
    for name in KNOWN:
        if not (folder / name).is_file() or not (folder / BESIDE.get(name, name)).is_file():
            continue
        if name == "tokenizer.json" and (folder / "source.spm").is_file() and not (folder / TARGET).is_file():
            continue
        return folder / name
    found = sorted([*folder.glob("tok*.bin")])
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.name for file in found)
        raise DataError(f"{folder}: more than one tokenizer ({names})", "give the file instead of the folder")
    raise DataError(f"{folder}: no tokenizer in this folder", f"expected {WANTED}")


def present(folder: Path) -> bool:
    """Whether there is a tokenizer in a folder, readable or not."""
    return any((folder / name).is_file() for name in KNOWN) or any(folder.glob("tok*.bin"))


def _opened(file: Path) -> Opened:
    if file.suffix == ".bin":
        return Opened(read_llama2c(file))
    settings = settings_of(file.parent)
    roles, companions = roles_of(settings), {}
    target = None
    if file.name in ("source.spm", "target.spm"):
        library, target = marian.read(file.parent, settings)
        roles |= {"bos": None, "mask": None}
    elif file.suffix in (".model", ".spm"):
        library, its = sentencepiece.read(file, settings)
        roles = its | roles
    elif file.name == "vocab.json":
        library = read_gpt2(file, file.with_name("merges.txt"), settings)
    elif file.name == "vocab.txt":
        library = read_bert(file, settings)
    else:
        library = read_json(file)
        if file.name == "tokenizer.json" and file.with_name(TARGET).is_file():
            target = read_json(file.with_name(TARGET))
    if target is not None:
        companions = {n: file.with_name(n).read_bytes() for n in marian.FILES if file.with_name(n).is_file()}
    for one in (library, target):
        if one is not None:
            complete(one, settings, roles, file.parent)
            _check_ids(one, file)
    return Opened(library, roles, target, companions | _chat(library, settings, file.parent))


def _chat(library: Tokenizer, settings: dict[str, Any], folder: Path) -> dict[str, bytes]:
    """How a chat is written, to go where the tokenizer goes. One that knows <answer> has its own way."""
    given, beside = settings.get("chat_template"), folder / CHAT
    if library.token_to_id("<answer>") is not None:
        return {}
    if beside.is_file():
        return {CHAT: beside.read_bytes()}
    return {CHAT: given.encode()} if isinstance(given, str) else {}


def read_json(file: Path) -> Tokenizer:
    """tokenizer.json of any kind."""
    data = file.read_bytes()
    if b"precompiled_charsmap" in data:  # the library trusts it, and panics
        tables(json.loads(data).get("normalizer"))
    return Tokenizer.from_buffer(data)


def _check_ids(tokenizer: Tokenizer, file: Path) -> None:
    """What works with a tokenizer keeps a row for each id."""
    known = tokenizer.get_vocab()
    last = max(known.values(), default=0)
    if last > 2 * len(known) + 100_000:
        raise DataError(f"{file}: ids go up to {last} for {len(known)} pieces", "the file may be damaged")


def read_gpt2(vocab: Path, merges: Path, settings: dict[str, Any]) -> Tokenizer:
    """Byte-level BPE in two files, as GPT-2, RoBERTa and BART have it."""
    _refuse(vocab, settings, BYTE_LEVEL)
    if not merges.is_file():
        raise DataError(f"{merges}: missing beside {vocab.name}", "both files are needed")
    known = numbered(vocab)
    try:
        tokenizer = Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    except Exception as error:
        raise DataError(f"{merges} does not fit {vocab.name}: {error}", "fetch both files of one model") from error
    strange = [letter for letter in pre_tokenizers.ByteLevel.alphabet() if letter not in known]
    if strange:
        raise DataError(
            f"{vocab}: not byte-level, {len(strange)} of 256 bytes are missing", "convert it to tokenizer.json"
        )
    space = bool(settings.get("add_prefix_space"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([name for name in BRACKETED if name in known and name != "<mask>"])
    if "<mask>" in known:  # a word of its own, with the space before it
        tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    if {"<s>", "</s>", "<mask>"} <= known.keys():
        edges = ("</s>", known["</s>"]), ("<s>", known["<s>"])
        tokenizer.post_processor = processors.RobertaProcessing(*edges, trim_offsets=True, add_prefix_space=space)
    return tokenizer


def read_bert(vocab: Path, settings: dict[str, Any]) -> Tokenizer:
    """WordPiece as a list of pieces, one a line; tokenizer_config.json beside it says whether letters are
    lowered (they are, if it is silent).
    """
    _refuse(vocab, settings, WORD_PIECES)
    pieces = models.WordPiece.read_file(str(vocab))
    missing = [name for name in ("[UNK]", "[CLS]", "[SEP]") if name not in pieces]
    if missing:
        raise DataError(f"{vocab}: not BERT's vocabulary, {', '.join(missing)} missing", f"expected {WANTED}")
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
    )
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    tokenizer.add_special_tokens([name for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if name in pieces])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", pieces["[SEP]"]), ("[CLS]", pieces["[CLS]"]))
    return tokenizer


def _refuse(file: Path, settings: dict[str, Any], known: tuple[str, ...]) -> None:
    """These files alone do not say how a text is cut into words: the class does."""
    if settings["tokenizer_class"] not in known:
        raise DataError(f"{file}: a {settings['tokenizer_class']} cuts texts in its own way", sentencepiece.CONVERT)


def read_llama2c(file: Path) -> Tokenizer:
    """llama2.c's .bin. Spaces stay spaces (not ▁), so that every text comes back; one is put before the text,
    as there, and taken off again.
    """
    pieces = read_pieces(file)
    names = ["<unk>", "<s>", "</s>"]
    vocabulary = {piece: i for i, piece in enumerate(names + [piece for piece, _ in pieces[3:]])}
    if len(vocabulary) != len(pieces):
        raise DataError(f"{file}: a piece occurs twice", "the file may be damaged")
    first_word = len(names) + 256
    merges = []
    for number in range(first_word, len(pieces)):
        piece, score = pieces[number]
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if min(vocabulary.get(left, -1), vocabulary.get(right, -1)) >= first_word:
                merges.append((-score, number, cut, (left, right)))
    ordered = [pair for *_, pair in sorted(merges)]
    tokenizer = Tokenizer(models.BPE(vocabulary, ordered, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(names)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def read_pieces(file: Path) -> list[tuple[str, float]]:
    """[(piece, score)] of a llama2.c file: int32 longest piece; then for each float32 score, int32 number of
    bytes, the bytes (UTF-8).
    """
    data = file.read_bytes()
    pieces, at = [], 4
    try:
        while at < len(data):
            score, length = struct.unpack_from("<fi", data, at)
            if length < 0 or at + 8 + length > len(data):
                raise ValueError(f"a piece of {length} bytes at byte {at}")
            pieces.append((data[at + 8 : at + 8 + length].decode("utf-8"), score))
            at += 8 + length
    except (struct.error, ValueError) as error:
        raise DataError(f"{file}: damaged, or not llama2.c's tokenizer ({error})", "fetch the file again") from error
    if [piece for piece, _ in pieces[3:259]] != [f"<0x{byte:02X}>" for byte in range(256)]:
        raise DataError(f"{file}: not llama2.c's tokenizer: <0x00> to <0xFF> are not at 3 to 258", f"expected {WANTED}")
    return pieces
