"""How to speak: one small frozen record. Imports no torch."""

from dataclasses import dataclass

from pellucid.errors import UserError


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

    def __post_init__(self) -> None:
        """UserError where options are out of range or contradict each other."""
        if self.beam > 1 and self.temperature > 0:
            raise UserError("a beam search does not sample", "choose beam 1 or temperature 0")
        if not 1 <= self.n_best <= self.beam:
            raise UserError(f"n_best is {self.n_best}, beam {self.beam}", "n_best must be between 1 and beam")
        right = {
            "max_new": self.max_new >= 1,
            "temperature": self.temperature >= 0,
            "top_k": self.top_k >= 0,
            "top_p": self.top_p > 0,
            "repetition_penalty": self.repetition_penalty > 0,
            "stop": "" not in self.stop,
        }
        for name, fits in right.items():
            if not fits:
                raise UserError(
                    f"generation.{name} cannot be {getattr(self, name)!r}", "see `pellucid generate --help`"
                )
