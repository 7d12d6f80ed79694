"""A tokenizer of characters with the few methods data preparation asks for."""

import hashlib


class Letters:
    """Ids 0-3 are special, then one per character, up to `size`; the rest is <unk>."""

    pad_id, bos_id, unk_id = 0, 1, 3
    kind = "char"

    def __init__(self, size: int = 1 << 16, eos_id: int | None = 2) -> None:
        self.vocab_size = size
        self.eos_id, self.target = eos_id, self

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [[i if (i := ord(c) + 4) < self.vocab_size else 3 for c in text] for text in texts]

    def decode(self, ids) -> str:
        return "".join("|" if i == 2 else chr(i - 4) for i in ids)

    def hash(self) -> str:
        return hashlib.sha256(f"{self.vocab_size} {self.eos_id}".encode()).hexdigest()
