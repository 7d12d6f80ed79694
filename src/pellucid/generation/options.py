"""How to speak: one small frozen record. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GenerationOptions:
    """`max_new` tokens at most. temperature 0 = the likeliest token. beam > 1 searches; its score is
    log-probability / length**length_penalty.

    top_k 0 and top_p 1 = off. repetition_penalty as in CTRL (Keskar et al. 2019, section 4.1). n_best <= beam
    hypotheses are returned per input. deterministic: each input is worked on by itself, so that in bfloat16 too, where the size of a
    batch changes the rounding, no other input can change its answer; slower.
    """

    max_new: int = 200
    beam: int = 1
    n_best: int = 1
    length_penalty: float = 1.0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    deterministic: bool = False
