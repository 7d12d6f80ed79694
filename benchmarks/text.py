"""Question: how long does byte-level BPE take to learn, text to be encoded, a corpus to be prepared, and in how much memory?

Command: `python -m benchmarks text`

Text: the Python sources of torch, numpy and this Python's library (from the beginning again where that is too little). Every measurement
is a process of its own, all in turn, so that nothing is warm but the files: MB/s of encoding are those of the first pass, the engine's or
library's own start included where it is ours. Pieces of 64 KiB, everywhere the same; one vocabulary of 32,000 for all who can read it
(sentencepiece learns its own, beforehand), and whose ids are not those of `tokenizers` says so. Memory: the largest resident size, and
where a child learns while its parent waits, of both.
"""

import hashlib
import json
import os
import resource
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.measure import Failed, Numbers, Worker

ROUNDS, PIECE = 3, 1 << 16
LEARN = ("tokenizers", "sentencepiece", "rustbpe", "gigatoken")
ENCODE = ("tokenizers", "sentencepiece", "tiktoken", "fastokens", "gigatoken")
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
MB = 1_000_000


def run(quick: bool) -> dict[str, Any]:
    """Learning, encoding, preparing; sizes in MB of text."""
    size = 0.2 if quick else 50
    vocabularies = (400,) if quick else (8000, 32000)
    with tempfile.TemporaryDirectory(prefix="pellucid-benchmark-") as folder:
        asked: dict[str, dict[str, Any]] = {f"learn {v}": {"do": "learn", "vocab": v, "mb": size} for v in vocabularies}
        last = {"do": "learn", "vocab": vocabularies[-1]}
        asked |= {f"learn {last['vocab']} of {mb:g} MB": last | {"mb": mb} for mb in (size / 4, size / 2)}
        asked["encode"] = {"do": "encode", "vocab": vocabularies[-1], "mb": size * 0.4}
        asked |= {f"prepare {mb:g} MB": {"do": "prepare", "mb": mb} for mb in (size / 2, size, size * 2)}
        names = measure.wanted(asked)
        for mb in {asked[name]["mb"] for name in names}:
            write(Path(folder, f"{mb}.txt"), int(mb * MB))
        if uses := {"encode", "prepare"} & {asked[name]["do"] for name in names}:
            beforehand(folder, last | {"file": f"{folder}/{asked[names[-1]]['mb']}.txt"}, "encode" in uses)
        works = {name: work(folder, asked[name], 1 if quick else ROUNDS) for name in names}
    return measure.result("text", works, {}, quick)


def table(result: dict[str, Any]) -> str:
    """For docs/performance.md, and the memory of each."""
    heads = {"memory": "peak memory, MB", "same": "ids are those of `tokenizers`"}
    return measure.markdown(result) + "\n" + measure.further(result, heads)


def beforehand(folder: str, learn: dict[str, Any], all_of_them: bool) -> None:
    """What is encoded with: the vocabulary for all, and sentencepiece's own, each learnt in a process that is not measured."""
    alone({"toolkit": "ours", "folder": folder}, learn | {"save": True})
    if all_of_them and measure.matches("sentencepiece"):
        with suppress(Failed):  # it says why when it is to encode
            alone({"toolkit": "sentencepiece", "folder": folder}, learn | {"save": True})


def write(file: Path, size: int) -> None:
    """So many bytes of Python sources."""
    with open(file, "wb") as out:
        while out.tell() < size:
            for text in sources():
                out.write(text[: size - out.tell()])
        out.seek(-4, os.SEEK_END)
        out.write(b"\n   ")  # no half of a character at the end


def sources() -> Iterator[bytes]:
    """Files of Python that are UTF-8."""
    places = [Path(found.origin).parent for name in ("torch", "numpy") if (found := find_spec(name)) and found.origin]
    for place in [*places, Path(sysconfig.get_path("stdlib"))]:
        for file in sorted(place.rglob("*.py")):
            text = file.read_bytes()
            if "site-packages" not in file.relative_to(place).parts and b"\0" not in text and is_utf8(text):
                yield text.replace(b"\r", b"")


def is_utf8(text: bytes) -> bool:
    """Whether it can be read."""
    try:
        return bool(text.decode())
    except UnicodeDecodeError:
        return False


def work(folder: str, asked: dict[str, Any], rounds: int) -> dict[str, Any]:
    """All toolkits that can do it, in turn, each time in a new process."""
    toolkits = {"learn": LEARN, "encode": ENCODE, "prepare": ()}[asked["do"]]
    request = asked | {"file": str(Path(folder, f"{asked['mb']}.txt"))}
    answers: dict[str, list[dict[str, Any]]] = {}
    failed: dict[str, str] = {}
    for turn in range(rounds):
        for toolkit in ["ours", *filter(measure.matches, toolkits)][:: -1 if turn % 2 else 1]:
            if toolkit not in failed:
                try:
                    answers.setdefault(toolkit, []).append(alone({"toolkit": toolkit, "folder": folder}, request))
                except Failed as error:
                    failed[toolkit] = str(error)
        measure.note(f"{asked}: round {turn + 1} of {rounds}")
    expected = (answers.get("tokenizers") or [{}])[0].get("ids")
    numbers = {
        toolkit: {"skipped": failed[toolkit]} if toolkit in failed else summed(answers[toolkit], asked, expected)
        for toolkit in {**answers, **failed}
    }
    ours = numbers.pop("ours")
    theirs: dict[str, dict[str, Numbers]] = {toolkit: {"as shipped": found} for toolkit, found in numbers.items()}
    ratios = measure.ratios(ours, theirs, higher_is_better=asked["do"] == "encode")
    return {"what": f"({asked['mb']:g} MB of text)", "ours": ours, "peers": theirs, "ratios": ratios}


def alone(settings: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """One answer of a process of its own."""
    with Worker("benchmarks.text", None if settings["toolkit"] == "ours" else measure.peers(), settings) as worker:
        return worker.ask(request)


def summed(answers: list[dict[str, Any]], asked: dict[str, Any], expected: str | None) -> Numbers:
    """Seconds, or MB a second of encoding, and the memory."""
    seconds = [answer["seconds"] for answer in answers]
    memory = max(answer["memory"] for answer in answers)
    if asked["do"] != "encode":
        return measure.summary(seconds, "seconds", memory=memory)
    same = expected in (None, answers[0]["ids"])
    return measure.summary([asked["mb"] / took for took in seconds], "MB/s", memory=memory, same=same)


# ---- in a process of its own, in the Python of ours or of theirs


def start(settings: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """What `measure.serve` needs. Imports of theirs are not counted; ours are, where they are made late."""

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        with open(request["file"], encoding="utf-8") as file:
            pieces = [] if request["do"] == "prepare" else list(iter(lambda: file.read(PIECE), ""))
        do = {"learn": learner, "encode": encoder, "prepare": preparer}[request["do"]]
        run_it = do(settings["toolkit"], Path(settings["folder"]), request)
        begin = time.perf_counter()
        found = run_it(pieces)
        took = time.perf_counter() - begin
        return {"seconds": took, "memory": most(), "ids": digest(found) if request["do"] == "encode" else ""}

    return {}, handle


def most() -> float:
    """MB that this process and its largest child held at most, added: the child works while this one lives."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(kind).ru_maxrss for kind in kinds) * (1024 if sys.platform == "linux" else 1) / MB


def digest(found: Any) -> str:
    """Of all ids: what an encoder gave, made plain where that costs time (a function), as a pair (ids, lengths), or rows."""
    import numpy as np

    rows = found() if callable(found) else found
    ids = rows[0] if isinstance(rows, tuple) else [i for row in rows for i in row]
    return hashlib.sha256(np.asarray(ids, np.int64).tobytes()).hexdigest()


def learner(toolkit: str, folder: Path, request: dict[str, Any]) -> Callable[[list[str]], Any]:
    """Learns `vocab` pieces."""
    size = request["vocab"]
    if toolkit == "ours":
        from pellucid.text.tokenizer import train

        save = request.get("save")
        return lambda pieces: (lambda made: made.save(folder) if save else made)(train(pieces, "byte-bpe", size))
    if toolkit == "tokenizers":
        import tokenizers as hf

        library = hf.Tokenizer(hf.models.BPE())
        library.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = hf.pre_tokenizers.ByteLevel.alphabet()
        trainer = hf.trainers.BpeTrainer(
            vocab_size=size, min_frequency=2, initial_alphabet=alphabet, show_progress=False
        )
        return lambda pieces: library.train_from_iterator(pieces, trainer)
    if toolkit == "sentencepiece":
        return lambda pieces: sentencepiece(pieces, size, folder / ("spm" if request.get("save") else "spm-unused"))
    if toolkit == "rustbpe":
        import rustbpe

        return lambda pieces: rustbpe.Tokenizer().train_from_iterator(pieces, size, pattern=GPT2)
    import gigatoken

    return lambda pieces: gigatoken.train_bpe(
        b"\xff".join(p.encode() for p in pieces), size, [], "huggingface", b"\xff"
    )


def sentencepiece(pieces: list[str], size: int, model: Path) -> None:
    """Its BPE, with bytes for what is unknown."""
    import sentencepiece as spm

    lines = (line for piece in pieces for line in piece.split("\n") if line)
    spm.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_prefix=str(model),
        vocab_size=size,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        num_threads=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        minloglevel=2,
    )


def encoder(toolkit: str, folder: Path, request: dict[str, Any]) -> Callable[[list[str]], Any]:
    """Encodes pieces with the vocabulary that is in the folder."""
    file = folder / "tokenizer.json"
    if toolkit == "ours":
        from pellucid.text.tokenizer import Tokenizer

        tokenizer = Tokenizer.load(file)
        return lambda pieces: in_batches(tokenizer.encode_flat, pieces)
    if toolkit == "tokenizers":
        import tokenizers as hf

        library = hf.Tokenizer.from_file(str(file))
        return lambda pieces: [row.ids for row in library.encode_batch_fast(pieces, add_special_tokens=False)]
    if toolkit == "fastokens":
        import fastokens

        quick = fastokens.Tokenizer.from_file(str(file))
        return lambda pieces: [row.ids for row in quick.encode_batch(pieces, add_special_tokens=False)]
    if toolkit == "gigatoken":
        import gigatoken

        engine = gigatoken.Tokenizer(str(file))
        return lambda pieces: (engine.encode_batch(pieces).layout.content.data, None)
    if toolkit == "sentencepiece":
        import sentencepiece as spm

        processor = spm.SentencePieceProcessor(model_file=str(folder / "spm.model"))
        return lambda pieces: processor.encode(pieces, num_threads=int(os.environ.get("OMP_NUM_THREADS", -1)))
    return tiktoken(file)


def tiktoken(file: Path) -> Callable[[list[str]], Any]:
    """The same pieces by their rank; their ids are counted on from the special ones."""
    import tiktoken

    found = json.loads(file.read_text(encoding="utf-8"))
    letters = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in letters]
    byte_of = {chr(b): b for b in letters} | {chr(256 + n): b for n, b in enumerate(others)}
    special = len(found["added_tokens"])
    ranks = {
        bytes(byte_of[c] for c in piece): i - special for piece, i in found["model"]["vocab"].items() if i >= special
    }
    encoding = tiktoken.Encoding("own", pat_str=GPT2, mergeable_ranks=ranks, special_tokens={})
    threads = int(os.environ.get("OMP_NUM_THREADS", 8))

    def encode(pieces: list[str]) -> Any:
        rows = encoding.encode_ordinary_batch(pieces, num_threads=threads)
        return lambda: [[i + special for i in row] for row in rows]

    return encode


def in_batches(encode: Callable[[list[str]], Any], pieces: list[str], n: int = 16) -> Any:
    """As data is prepared: a batch at a time."""
    import numpy as np

    return np.concatenate([encode(pieces[i : i + n])[0] for i in range(0, len(pieces), n)]), None


def preparer(toolkit: str, folder: Path, request: dict[str, Any]) -> Callable[[list[str]], Any]:
    """A file to tokens on disk; nothing of it is in memory before."""
    from pellucid.data.config import DataConfig
    from pellucid.data.prepare import prepare_text
    from pellucid.text.tokenizer import Tokenizer

    def prepare(_: list[str]) -> Any:
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            os.environ["PELLUCID_CACHE"] = cache
            config = DataConfig(kind="text", train=(request["file"],), holdout=0.1)
            return prepare_text(config, Tokenizer.load(folder / "tokenizer.json"))

    return prepare


if __name__ == "__main__":
    measure.serve(start)
