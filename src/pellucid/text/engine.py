"""gigatoken, an engine for byte-level BPE many times as fast as the `tokenizers` library, kept to what the library gives. Imports no torch.

It is used for one kind of tokenizer only (`fits`: ours of kind "byte-bpe", GPT-2's), for which tests hold that ids and merges are the
library's. One thing depends on the versions of both: their tables of Unicode, so that a new letter is a letter to one and not to the
other. Therefore each character that occurs is tried in both once (`Characters`); a text with one that they cut differently is left to
the library. Decision 9 says why, and what else was tried.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers

from pellucid.text.pieces import BYTES

if TYPE_CHECKING:
    import numpy as np

    from pellucid.text.bulk import Flat

BETWEEN = b"\xff"  # between texts: a byte that UTF-8 never has
BESIDE = "a1."  # a character that is a letter, a number, a sign, or none of these joins one of them, or none
FRESH = 32_000_000
"""Characters after which the engine begins anew: it remembers every word, up to six bytes for each of the text."""
SLICE = 250_000
"""Bytes of the text whose words are counted by both before merges are learnt."""
PATIENCE = 1800
"""Seconds after which learning is given up; a gigabyte takes about a minute."""
_CHARACTERS = 0x110000
_SPLIT = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_LETTERS = [letter for letter, _ in sorted(BYTES.items(), key=lambda item: item[1])]


class Unfit(Exception):
    """The engine is not there, or is not to be trusted with this; the text says why."""

    def notes(self, did: str) -> list[str]:
        """What a person should be told: nothing where the engine is not installed."""
        if isinstance(self.__cause__, ImportError):
            return []
        return [f"the slower tokenizers library {did} this text: {self}"]


def fits(state: dict[str, Any]) -> bool:
    """Whether a tokenizer.json, as a dictionary, is of the kind that tests hold equal in both."""
    model, split = state["model"], {name: (state["pre_tokenizer"] or {}).get(name) for name in _SPLIT}
    odd = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")
    return (
        model["type"] == "BPE"
        and split == _SPLIT
        and not state["normalizer"]
        and not any(model.get(name) for name in odd)
        and all(token["special"] for token in state["added_tokens"])
        and BYTES.keys() <= model["vocab"].keys()
    )


class Encoder:
    """A tokenizer.json in the engine. `fallback` encodes texts with characters that the two take for different things."""

    def __init__(self, state: dict[str, Any], fallback: "Callable[[Sequence[str]], Flat]") -> None:
        """Raises Unfit."""
        self._file = json.dumps(state | {"added_tokens": [], "post_processor": None})  # their names in a text are text
        self._fallback = fallback
        self._encode, self._read = _open(self._file), 0
        probe = _probe()
        engine = _open(probe.to_str())
        self._characters = Characters(
            lambda texts: [encoding.ids for encoding in probe.encode_batch_fast(texts)],
            lambda texts: engine(texts).to_list(),
        )

    def __call__(self, texts: Sequence[str]) -> "Flat":
        """The ids of many texts."""
        import numpy as np

        alike = self._characters.alike(texts)
        if not all(alike):
            runs = np.flatnonzero(np.diff(alike)) + 1
            bounds = [0, *runs.tolist(), len(texts)]
            parts = [
                (self._flat if alike[start] else self._fallback)(texts[start:end])
                for start, end in zip(bounds, bounds[1:], strict=False)
            ]
            return np.concatenate([ids for ids, _ in parts]), np.concatenate([lengths for _, lengths in parts])
        return self._flat(texts)

    def _flat(self, texts: Sequence[str]) -> "Flat":
        import numpy as np

        self._read += sum(map(len, texts))
        if self._read > FRESH:
            del self._encode  # first: two would need twice the memory
            self._encode, self._read = _open(self._file), 0
        rows = self._encode(list(texts)).layout
        offsets = rows.offsets.data
        return rows.content.data[offsets[0] : offsets[-1]], np.diff(offsets)


class Characters:
    """Which characters two ways of cutting take for the same; each is asked about once, when it first occurs."""

    def __init__(self, one: Callable[[list[str]], list[Any]], other: Callable[[list[str]], list[Any]]) -> None:
        import numpy as np

        self._one, self._other = one, other
        self._known, self._same = np.zeros(_CHARACTERS, bool), np.zeros(_CHARACTERS, bool)
        self._ask(np.arange(128))

    def alike(self, texts: Sequence[str]) -> list[bool]:
        """Of each text, whether all its characters are. UnicodeEncodeError for half of a surrogate pair."""
        import numpy as np

        together = "".join(texts)
        if together.isascii() and self._same[:128].all():
            return [True] * len(texts)
        codes = np.frombuffer(together.encode("utf-32-le"), np.uint32)
        if not self._known[codes].all():
            self._ask(np.unique(codes[~self._known[codes]]))
        same = self._same[codes]
        if same.all():
            return [True] * len(texts)
        ends = np.cumsum([len(text) for text in texts])
        return [bool(same[end - len(text) : end].all()) for text, end in zip(texts, ends, strict=True)]

    def _ask(self, codes: "np.ndarray") -> None:
        """Each beside a letter, a number and a sign."""
        probes = [beside + chr(code) for code in codes for beside in BESIDE]
        equal = [one == other for one, other in zip(self._one(probes), self._other(probes), strict=True)]
        self._known[codes] = True
        self._same[codes] = [all(equal[i : i + len(BESIDE)]) for i in range(0, len(equal), len(BESIDE))]


def _open(file: str) -> Callable[[list[str]], Any]:
    """The engine's way from texts to rows of ids (an awkward array). Both it and this function raise Unfit for whatever goes wrong."""
    with _guarded():
        from gigatoken import Tokenizer

        tokenizer = Tokenizer.from_json(file)

    def encode(texts: list[str]) -> Any:
        with _guarded():
            return tokenizer.encode_batch(texts)

    return encode


@contextmanager
def _guarded() -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # what panics in Rust is no Exception
        raise Unfit(f"gigatoken: {error}") from error


def _probe() -> Library:
    """A tokenizer whose ids show what a character is: one less where it joins what stands before it."""
    vocabulary = [*_LETTERS, *(beside + letter for beside in BESIDE for letter in _LETTERS)]
    pairs = [(beside, letter) for beside in BESIDE for letter in _LETTERS]
    library = Library(models.BPE({piece: i for i, piece in enumerate(vocabulary)}, pairs))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return library


# ---- learning: in a process of its own, as the engine writes to its standard output and keeps what memory it took


def learn_merges(texts: Iterable[str], n_merges: int) -> list[tuple[str, str]]:
    """The first merges of byte-level BPE, fewer where the texts have no more, as the library learns them with min_frequency 2.
    Raises Unfit."""
    import numpy as np

    if find_spec("gigatoken") is None:
        raise Unfit("gigatoken is not installed") from ImportError()
    seen = np.zeros(_CHARACTERS, bool)
    package = str(Path(__file__).parents[2])
    program = f"import sys; sys.path.append({package!r}); from pellucid.text.engine import learn; learn(*sys.argv[1:])"
    try:
        with tempfile.TemporaryDirectory(prefix="pellucid-") as folder:
            with open(Path(folder, "texts"), "wb") as file:
                for text in texts:
                    file.write(text.encode() + BETWEEN)
                    seen[np.frombuffer(text.encode("utf-32-le"), np.uint32)] = True
            Path(folder, "characters").write_bytes("".join(map(chr, np.flatnonzero(seen))).encode())
            command = [sys.executable, "-P", "-c", program, folder, str(n_merges)]  # -P: no module of the user's folder
            quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
            done = subprocess.run(command, **quiet, timeout=PATIENCE, check=False)
            if done.returncode:
                said = (done.stderr.decode(errors="replace").strip().splitlines() or ["gigatoken died"])[-1]
                raise Unfit(said.removeprefix("pellucid.text.engine.Unfit: "))
            merges = json.loads(Path(folder, "merges").read_bytes())
    except subprocess.TimeoutExpired as error:
        raise Unfit(f"gigatoken: not done in {PATIENCE} seconds") from error
    except (OSError, ValueError) as error:
        raise Unfit(f"gigatoken: {error}") from error
    return [(left, right) for left, right in merges]


def learn(folder: str, n_merges: str) -> None:
    """Learns from the files `texts` and `characters` of a folder, and writes `merges` there. Raises Unfit."""
    from gigatoken import TextFileSource, train_bpe
    from gigatoken.gigatoken_rs import pretokenized_counts

    file = Path(folder, "texts")
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)

    def whole(texts: list[str]) -> list[bool]:
        return [len(split.pre_tokenize_str(text)) == 1 for text in texts]

    def whole_too(texts: list[str]) -> list[bool]:
        words = {word for word, _ in pretokenized_counts(BETWEEN.join(text.encode() for text in texts), BETWEEN)}
        return [text.encode() in words for text in texts]

    if not all(Characters(whole, whole_too).alike([Path(folder, "characters").read_bytes().decode()])):
        raise Unfit("gigatoken: it takes a character of this text for something else")
    start = next(_blocks(file, SLICE))
    words = Counter(
        text[a:b]
        for text in start.decode(errors="surrogateescape").split("\udcff")
        for _, (a, b) in split.pre_tokenize_str(text)
    )
    if {word.encode(): n for word, n in words.items()} != dict(pretokenized_counts(start, BETWEEN)):
        raise Unfit("gigatoken: it cuts this text into other words")
    _, merges = train_bpe(TextFileSource([file], BETWEEN), len(_LETTERS) + int(n_merges), [], "huggingface")
    spelled = [("".join(_LETTERS[i] for i in left), "".join(_LETTERS[i] for i in right)) for left, right in merges]
    Path(folder, "merges").write_text(json.dumps(_repeated(file, spelled, int(n_merges))), encoding="utf-8")


def _blocks(file: Path, size: int) -> Iterator[bytes]:
    """A file of texts in pieces of about `size` bytes, cut between texts."""
    held = b""
    with open(file, "rb") as texts:
        while data := texts.read(size):
            whole, between, rest = (held + data).rpartition(BETWEEN)
            if between:
                yield whole
            held = rest


def _repeated(file: Path, merges: list[tuple[str, str]], asked: int) -> list[tuple[str, str]]:
    """The merges whose pair was there at least twice: where no other is, the library ends, and the engine goes on. Raises Unfit.

    A pair was there as often as its merge is made when all words are encoded, which their final pieces tell: each is made of the
    two it was joined from, and so on."""
    import numpy as np

    first = {left + right: i for i, (left, right) in reversed([*enumerate(merges)])}
    new = next((i for i, (left, right) in enumerate(merges) if first[left + right] != i), len(merges))
    merges = merges[:new]
    vocabulary = {piece: i for i, piece in enumerate([*_LETTERS, *(left + right for left, right in merges)])}
    times = _final_pieces(file, vocabulary, merges)
    for left, right in reversed(merges):
        times[[vocabulary[left], vocabulary[right]]] += times[vocabulary[left + right]]
        if left == right:
            times[vocabulary[left]] += times[vocabulary[left + right]]
    end = (
        int(np.flatnonzero(times[len(_LETTERS) :] >= 2).max(initial=-1)) + 1
    )  # the most frequent come first: all before it too
    undecided = end < len(merges) and merges[end][0] == merges[end][1]  # "aaa" is one pair or two
    if undecided or end == len(merges) < asked:
        raise Unfit("gigatoken: it cannot be told where the merges end")
    return merges[:end]


def _final_pieces(file: Path, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> "np.ndarray":
    """How often each piece stands in the encoded text [V]; no more of it is encoded once the last one came twice."""
    import numpy as np
    from gigatoken import Tokenizer
    from gigatoken.gigatoken_rs import pretokenized_counts

    library = Library(models.BPE(vocabulary, merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine, times = Tokenizer.from_json(library.to_str()), np.zeros(len(vocabulary), np.int64)
    for block in _blocks(file, 2_000_000):
        words, often = zip(*pretokenized_counts(block, BETWEEN), strict=True)
        rows = engine.encode_batch_list(list(words))
        each = np.repeat(np.asarray(often), [len(row) for row in rows])
        np.add.at(times, np.fromiter(chain.from_iterable(rows), np.int64, len(each)), each)
        if times[-1] >= 2:
            break
    return times
