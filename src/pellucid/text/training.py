"""A vocabulary learnt from text: byte-level BPE, BPE with an end-of-word mark, WordPiece, unigram,
characters, words.

The learning is done by the `tokenizers` library (text/bpe.py tells its BPE step by step) or, byte-level BPE of much
text, by an engine that finds the same merges in a fraction of the time (text/engine.py). Three things are added.
The result does not depend on hash seeds or threads: the library numbers some symbols in the order of a hash table,
and ties between pairs are broken by those numbers, so we number the symbols first. A literal "<pad>" in the text
stays text: no learnt piece can be spelled like a special token. And memory is bounded: of a text too large for it,
an even, repeatable sample of the lines is learnt from.

BPE: Sennrich et al. 2016, arXiv 1508.07909. Bytes: Radford et al. 2019 (GPT-2). Unigram: Kudo 2018, arXiv
1804.10959. WordPiece: Schuster and Nakajima 2012; the library learns it with BPE's rule (the most frequent
pair), not with the paper's likelihood.
"""

import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from pellucid.errors import DataError, UserError, did_you_mean
from pellucid.text import engine

Kind = Literal["byte-bpe", "bpe", "wordpiece", "unigram", "char", "word"]
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
END_OF_WORD = "</w>"
LONGEST_LINE = 100_000  # characters; longer ones are cut, so that one line cannot outweigh the memory
# Characters for each piece of the vocabulary, of which so many are counted at least: where pairs run out the engine is slow, and its
# process takes half a second to begin.
ENGINE_PAYS = (600, 8000)
WEIGHED_AT_ONCE = 1 << 16  # characters
BYTES_PER_SYMBOL = 100  # what the library was measured to need for each byte of each distinct word


def learn(
    lines: Iterable[str],
    kind: Kind = "byte-bpe",
    vocab_size: int = 8000,
    lowercase: bool = False,
    min_count: int = 1,
    specials: Sequence[str] = (),
    memory_mb: int = 1500,
    notes: list[str] | None = None,
) -> Tokenizer:
    """The library's tokenizer, learnt from `lines`; see `pellucid.text.tokenizer.train`, which wraps it."""
    if kind not in get_args(Kind):
        raise UserError(f"there is no tokenizer {kind!r}", did_you_mean(kind, get_args(Kind)))
    names = [*SPECIALS, *check_specials(specials)]
    if vocab_size <= len(names):
        raise too_small(vocab_size, len(names), "special tokens alone")
    empty = outline(kind, lowercase, names)
    if kind == "char":
        trained = learn_characters(checked(lines), empty, vocab_size, min_count, names)
    else:
        sample = sample_lines(lines, memory_mb * 1_000_000)
        if not sample:
            raise no_text()
        if kind == "unigram":
            trained = learn_unigram(sample, empty, vocab_size, names)
        elif kind == "word":
            trainer = trainers.WordLevelTrainer(
                vocab_size=vocab_size, min_frequency=min_count, special_tokens=names, show_progress=False
            )
            empty.train_from_iterator(sample, trainer)
            trained = empty
        else:
            told: list[str] = [] if notes is None else notes
            trained = learn_merges(sample, kind, empty, vocab_size, max(2, min_count), names, told)
    if trained.get_vocab_size() == len(names):
        raise no_text()
    return trained


def outline(kind: Kind, lowercase: bool, names: Sequence[str]) -> Tokenizer:
    """A tokenizer that has learnt nothing yet: how text is cleaned, cut into words, and put together again."""
    split = pre_tokenizers
    lower: normalizers.Normalizer | None = normalizers.Lowercase() if lowercase else None
    if kind == "byte-bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer, tokenizer.decoder = split.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    elif kind == "bpe":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix=END_OF_WORD))
        # A whole word cannot be taken for a special token, as its last letter carries the mark; its start could.
        guard = apart([END_OF_WORD]) + "|" + apart(names, r"\S")
        tokenizer.pre_tokenizer = split.Sequence([split.Split(Regex(guard), "isolated"), split.WhitespaceSplit()])
        tokenizer.decoder = decoders.BPEDecoder(suffix=END_OF_WORD)
    elif kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        lower = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=False)
        tokenizer.pre_tokenizer, tokenizer.decoder = split.BertPreTokenizer(), decoders.WordPiece()
    elif kind == "unigram":
        # Pieces do not mix letters and other signs, much as in SentencePiece; so "<pad>" is three words.
        signs = Regex(r"▁*[^\p{L}\p{M}\p{N}▁\s]+")
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = split.Sequence([split.Metaspace(), split.Split(signs, "isolated")])
        tokenizer.decoder = decoders.Metaspace()
    elif kind == "char":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.decoder = decoders.Fuse()
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
        tokenizer.pre_tokenizer = split.Whitespace()
    if lower is not None:
        tokenizer.normalizer = lower
    return tokenizer


def apart(names: Sequence[str], then: str = "") -> str:
    """A pattern that finds the first character of each literal name, so that a name in the text is never one
    piece.
    """
    return "|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])}{then})" for name in names)


def check_specials(specials: Sequence[str]) -> list[str]:
    """Further special tokens must look like <name> or [name]: then no word of any text can be cut to look
    like one.
    """
    for name in specials:
        if not re.fullmatch(r"<[^\s<>]*[A-Za-z][^\s<>]*>|\[[^\s\[\]]*[A-Za-z][^\s\[\]]*\]", name):
            raise UserError(f"{name!r} cannot be a special token", "write <name> or [name], with a letter, no spaces")
    return [name for name in dict.fromkeys(specials) if name not in SPECIALS]


def learn_merges(
    sample: list[str], kind: Kind, empty: Tokenizer, vocab_size: int, min_count: int, names: list[str], notes: list[str]
) -> Tokenizer:
    """BPE and WordPiece. The first pass merges nothing and finds the symbols; the second gets them in sorted order."""
    make: Any = trainers.WordPieceTrainer if kind == "wordpiece" else trainers.BpeTrainer
    options: dict[str, Any] = {"min_frequency": min_count, "show_progress": False}
    if kind == "bpe":
        options["end_of_word_suffix"] = END_OF_WORD
    symbols = pre_tokenizers.ByteLevel.alphabet()
    if kind != "byte-bpe":
        first = Tokenizer.from_str(empty.to_str())  # once trained, it takes a literal "<pad>" for the token
        first.train_from_iterator(sample, make(vocab_size=0, special_tokens=names, **options))
        symbols = [symbol for symbol in first.get_vocab() if symbol not in names]
    symbols.sort(key=lambda symbol: (len(symbol) > 1, symbol))
    if vocab_size < len(names) + len(symbols):
        raise too_small(vocab_size, len(names) + len(symbols), "special tokens and single symbols of this text alone")
    each, least = ENGINE_PAYS
    much = sum(map(len, sample)) >= each * max(least, vocab_size)
    if kind == "byte-bpe" and min_count == 2 and not empty.normalizer and much:
        try:
            merges = engine.learn_merges(sample, vocab_size - len(names) - len(symbols))
            pieces = [*names, *symbols, *(left + right for left, right in merges)]
            empty.model = models.BPE({piece: i for i, piece in enumerate(pieces)}, merges)
            empty.add_special_tokens(names)
            return empty
        except engine.Unfit as error:
            notes += error.notes("learnt from")
    empty.train_from_iterator(sample, make(vocab_size=vocab_size, special_tokens=names + symbols, **options))
    state = json.loads(empty.to_str())
    state["added_tokens"] = state["added_tokens"][: len(names)]  # symbols got their ids like special tokens: undo
    return Tokenizer.from_str(json.dumps(state))


def learn_unigram(sample: Sequence[str], empty: Tokenizer, vocab_size: int, names: list[str]) -> Tokenizer:
    """Unigram, then what the library leaves to chance is settled: scores are rounded, equal ones sorted by
    their piece.

    Characters that the likelihood would drop are kept at the lowest score; the library spreads those in the
    order of a hash table.
    """
    lower = empty.normalizer.normalize_str if empty.normalizer else str
    needed = len(names) + len({"▁"}.union(*(lower(line).replace(" ", "▁") for line in sample)))
    if vocab_size < needed:  # the library would never come to an end
        raise too_small(vocab_size, needed, "special tokens and single characters of this text alone")
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=names, unk_token="<unk>", show_progress=False
    )
    empty.train_from_iterator(sample, trainer)
    state = json.loads(empty.to_str())
    learnt: list[tuple[str, float]] = [(piece, score) for piece, score in state["model"]["vocab"][len(names) :]]
    lowest = min(score for _, score in learnt)

    def settle(piece: str, score: float) -> float:
        spread = (score - lowest) / 1e-4  # the library's step between characters it had to put back
        return round(lowest if len(piece) == 1 and abs(spread - round(spread)) < 1e-5 else score, 6)

    settled = sorted(((piece, settle(piece, score)) for piece, score in learnt), key=lambda item: (-item[1], item[0]))
    spare = vocab_size - len(names) - sum(len(piece) == 1 for piece, _ in settled)
    longer = [piece for piece, _ in settled if len(piece) > 1]
    dropped = set(longer[max(spare, 0) :])  # a nearly full vocabulary: the library then forgets its limit
    state["model"]["vocab"] = [[name, 0.0] for name in names] + [[p, s] for p, s in settled if p not in dropped]
    return Tokenizer.from_str(json.dumps(state))


def learn_characters(
    lines: Iterator[str], empty: Tokenizer, vocab_size: int, min_count: int, names: list[str]
) -> Tokenizer:
    """Every character a token, in code point order. Of more than fit, the most frequent stay (ties: the lower
    code point).
    """
    counts: Counter[str] = Counter()
    normalize = empty.normalizer.normalize_str if empty.normalizer else str
    for line in lines:
        counts.update(normalize(line))
    often = sorted((c for c in counts if counts[c] >= min_count), key=lambda c: (-counts[c], c))
    kept = sorted(often[: vocab_size - len(names)])
    vocabulary = {token: i for i, token in enumerate([*names, *kept])}
    empty.model = models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>")  # no merges: letters stay single
    empty.add_special_tokens(names)
    return empty


def sample_lines(lines: Iterable[str], memory: int) -> list[str]:
    """All lines, or as many as `memory` bytes allow: each line draws a level, and the lowest levels go
    whenever room is needed.

    Every line has the same chance wherever it stands, and the same text gives the same sample.
    """
    draw = random.Random(0)
    kept: list[tuple[int, str]] = []
    words: set[str] = set()
    level = used = 0
    for some in grouped(checked(lines)):
        before = len(kept)
        for line in some:
            bits = draw.getrandbits(40) | 1 << 40
            luck = (bits & -bits).bit_length() - 1  # 0 for half of the lines, 1 for a quarter, ...
            if luck >= level:
                kept.append((luck, line))
        used += weigh([line for _, line in kept[before:]], words)
        while used > memory and len(kept) > 1:
            level += 1
            kept = [entry for entry in kept if entry[0] >= level] or kept[:1]
            words.clear()
            used = sum(weigh(lines, words) for lines in grouped(line for _, line in kept))
    return [line for _, line in kept]


def grouped(lines: Iterable[str]) -> Iterator[list[str]]:
    """Lists of lines, each just above WEIGHED_AT_ONCE, and the rest."""
    group, size = [], 0
    for line in lines:
        group.append(line)
        size += len(line)
        if size > WEIGHED_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def weigh(lines: Sequence[str], words: set[str]) -> int:
    """Bytes of memory that learning from some more lines takes; adds their words to those seen."""
    new = set("\n".join(lines).split()) - words
    words |= new
    return sum(map(sys.getsizeof, lines)) + BYTES_PER_SYMBOL * len("".join(new).encode())


def checked(lines: Iterable[str]) -> Iterator[str]:
    """The lines, none empty or longer than LONGEST_LINE; an error where one is not text."""
    if isinstance(lines, str):
        raise UserError("one string was given where lines are expected", "give a list of strings, or an open file")
    for number, line in enumerate(lines, 1):
        if not isinstance(line, str):
            remedy = 'open files in text mode: open(path, "rt", encoding="utf-8")'
            raise UserError(f"line {number} is {type(line).__name__}, not text", remedy)
        refuse_broken([line], number)
        for start in range(0, len(line), LONGEST_LINE):
            yield line[start : start + LONGEST_LINE]


def refuse_broken(texts: Iterable[str], first: int = 1) -> None:
    """DataError for a text with half of a surrogate pair: it is not Unicode text, and has no bytes."""
    for number, text in enumerate(texts, first):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            problem = f"text {number}, character {error.start + 1}: {text[error.start]!r} is half of a surrogate pair"
            remedy = "repair it: text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
            raise DataError(problem, remedy) from None


@contextmanager
def reading(texts: Sequence[str]) -> Iterator[None]:
    """What goes wrong in the library while it encodes these texts, as a DataError."""
    try:
        yield
    except Exception as error:
        refuse_broken(texts)
        if type(error) is not Exception:  # the library's own are plain
            raise
        raise DataError(f"the tokenizer cannot read this text: {error}", "it has no token for the unknown") from error


def no_text() -> DataError:
    return DataError("there is no text to learn a vocabulary from", "are the files empty, or min_count too high?")


def too_small(vocab_size: int, needed: int, why: str) -> UserError:
    return UserError(f"vocab_size {vocab_size} is too small: {why} take {needed}", f"choose vocab_size above {needed}")
