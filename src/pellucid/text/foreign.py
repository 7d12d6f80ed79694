"""Tokenizers that others made: tokenizer.json, vocab.json + merges.txt (GPT-2), vocab.txt (BERT), and
llama2.c's tokenizer .bin.

llama2.c stores a SentencePiece BPE as a list of scored pieces. Its rule, "join the neighbours whose union
scores best", is BPE with one merge for each way to cut a piece in two, in the order of the scores. A
character without a piece is spelled in bytes, <0x00> to <0xFF>.
"""

import json
import struct
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from pellucid.errors import DataError

WANTED = "tokenizer.json, vocab.json + merges.txt, vocab.txt, or llama2.c's tok*.bin"
BRACKETED = ("<pad>", "<s>", "</s>", "<unk>", "<mask>", "<|endoftext|>")


def read(path: Path) -> Tokenizer:
    """The tokenizer in a file or folder. DataError where there is none, or it cannot be read."""
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder", f"a tokenizer is one of {WANTED}")
    file = find(path) if path.is_dir() else path
    try:
        if file.suffix == ".bin":
            return read_llama2c(file)
        if file.name == "vocab.json":
            return read_gpt2(file, file.with_name("merges.txt"))
        if file.name == "vocab.txt":
            return read_bert(file)
        return Tokenizer.from_file(str(file))
    except DataError:
        raise
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"{file}: not a tokenizer that can be read ({error})", f"expected {WANTED}") from error


def find(folder: Path) -> Path:
    for name, beside in (("tokenizer.json", None), ("vocab.json", "merges.txt"), ("vocab.txt", None)):
        if (folder / name).is_file() and (beside is None or (folder / beside).is_file()):
            return folder / name
    found = sorted([*folder.glob("tok*.bin")])
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.name for file in found)
        raise DataError(f"{folder}: more than one tokenizer ({names})", "give the file instead of the folder")
    if (folder / "tokenizer.model").is_file():
        remedy = "transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes tokenizer.json"
        raise DataError(f"{folder / 'tokenizer.model'}: SentencePiece's own format is not read", remedy)
    raise DataError(f"{folder}: no tokenizer in this folder", f"expected {WANTED}")


def read_gpt2(vocab: Path, merges: Path) -> Tokenizer:
    """Byte-level BPE in two files, as GPT-2, RoBERTa and BART have it."""
    if not merges.is_file():
        raise DataError(f"{merges}: missing beside {vocab.name}", "both files are needed")
    tokenizer = Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    known = tokenizer.get_vocab()
    strange = [letter for letter in pre_tokenizers.ByteLevel.alphabet() if letter not in known]
    if strange:
        raise DataError(
            f"{vocab}: not byte-level, {len(strange)} of 256 bytes are missing", "convert it to tokenizer.json"
        )
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens([name for name in BRACKETED if name in known])
    return tokenizer


def read_bert(vocab: Path) -> Tokenizer:
    """WordPiece as a list of pieces, one a line; tokenizer_config.json beside it says whether letters are
    lowered (they are, if it is silent).
    """
    config = vocab.with_name("tokenizer_config.json")
    settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    pieces = models.WordPiece.read_file(str(vocab))
    missing = [name for name in ("[UNK]", "[CLS]", "[SEP]") if name not in pieces]
    if missing:
        raise DataError(f"{vocab}: not BERT's vocabulary, {', '.join(missing)} missing", f"expected {WANTED}")
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True), strip_accents=settings.get("strip_accents")
    )
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    tokenizer.add_special_tokens([name for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if name in pieces])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", pieces["[SEP]"]), ("[CLS]", pieces["[CLS]"]))
    return tokenizer


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
