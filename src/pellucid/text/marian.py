"""Marian's tokenizers: source.spm and target.spm cut the two languages, vocab.json numbers the pieces of both (Tiedemann and
Thottingal 2020, OPUS-MT). Imports no torch.

Marian cuts a text with one language's SentencePiece model and looks up what comes out, unknown characters too, in the list of
both. So each side is a unigram model whose table is: vocab.json in its order, where pieces of the other side and special ones
stand under a hidden name and no text is cut into them; one piece that is nothing but hidden, which ends the list; then what only
this side's model knows, which is <unk> to Marian. `Tokenizer` looks ids up by name (`pieces.listed`). A language code at the
front (">>fra<<") is one token, as of `transformers`; there it is not one in the middle of a text.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from pellucid.errors import DataError
from pellucid.text import sentencepiece
from pellucid.text.beside import numbered, put_around
from pellucid.text.pieces import HIDDEN

FILES = ("source.spm", "target.spm", "vocab.json", "target_vocab.json")  # as transformers' MarianTokenizer names them
EOS, UNK, PAD = "</s>", "<unk>", "<pad>"
REST = "\ufffe"  # another noncharacter: what the hiding one becomes in a text


def read(folder: Path, settings: Mapping[str, Any]) -> tuple[Tokenizer, Tokenizer]:
    """The source's and the target's side. DataError naming the file that is missing or does not fit."""
    vocab = folder / "vocab.json"
    target = folder / "target_vocab.json" if settings.get("separate_vocabs") else vocab
    for file in (folder / "source.spm", folder / "target.spm", vocab, target):
        if not file.is_file():
            raise DataError(f"{file}: missing, Marian's tokenizer is source.spm, target.spm and vocab.json", "fetch it")
    return side(folder / "source.spm", vocab), side(folder / "target.spm", target)


def side(file: Path, vocab: Path) -> Tokenizer:
    model, ids = sentencepiece.read_model(file), numbered(vocab)
    if model.kind != sentencepiece.UNIGRAM or model.byte_fallback:
        raise DataError(f"{file}: Marian's pair is of unigram models without bytes", sentencepiece.CONVERT)
    if EOS not in ids or UNK not in ids or max(ids.values()) >= len(ids):
        raise DataError(f"{vocab}: no list of pieces with {EOS} and {UNK}, numbered from 0", "copy the tokenizer again")
    plain = (sentencepiece.NORMAL, sentencepiece.USER_DEFINED)
    own = {p: s for p, s, kind in zip(model.pieces, model.scores, model.types, strict=True) if kind in plain}
    codes = [name for name in ids if name.startswith(">>") and name.endswith("<<")]
    open_names = {EOS, UNK, PAD, *codes, *own}
    table = [
        (name if name in open_names else HIDDEN + name, own.get(name, 0.0)) for name in sorted(ids, key=ids.__getitem__)
    ]
    table += [(HIDDEN, 0.0), *((piece, score) for piece, score in own.items() if piece not in ids)]
    tokenizer = Tokenizer(models.Unigram(table, ids[UNK], False))
    sentencepiece.dress(tokenizer, model)
    before = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(HIDDEN, REST), *before])
    tokenizer.decoder = decoders.Sequence([decoders.Replace(HIDDEN, ""), tokenizer.decoder])
    tokenizer.add_special_tokens([name for name in (EOS, UNK, PAD) if name in ids])
    tokenizer.add_tokens([AddedToken(code, normalized=False) for code in codes])
    put_around(tokenizer, "", EOS)
    return tokenizer
