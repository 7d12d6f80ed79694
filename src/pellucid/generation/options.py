"""How to speak: one small frozen record. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pellucid.errors import DataError, UserError
from pellucid.models import speaking
from pellucid.models.config import ModelConfig
from pellucid.records import from_dict


@dataclass(frozen=True)
class GenerationOptions:
    """`max_new` tokens at most. temperature 0 = the likeliest token. beam > 1 searches; its score is
    log-probability / length**length_penalty.

    stopping: a beam search never ends early, or as soon as `beam` texts have ended ("full") and none alive would beat them if it ended now
    ("heuristic"): both may miss a better one.
    top_k 0 and top_p 1 = off. repetition_penalty as in CTRL (Keskar et al. 2019, section 4.1). min_new: so many tokens before an end.
    no_repeat: no run of so many tokens twice in a text, a GPT's prompt included; 0 = off. force_end: what the limit would cut off ends
    there with <eos>. n_best <= beam hypotheses are returned per input. deterministic: each input is worked on by itself, so that in
    bfloat16 too, where the size of a batch changes the rounding, no other input can change its answer; slower.
    """

    max_new: int = 200
    beam: int = 1
    n_best: int = 1
    length_penalty: float = 1.0
    stopping: Literal["never", "heuristic", "full"] = "never"
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    min_new: int = 0
    no_repeat: int = 0
    force_end: bool = False
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
            "min_new": self.min_new >= 0,
            "no_repeat": self.no_repeat >= 0,
            "stop": "" not in self.stop,
        }
        for name, fits in right.items():
            if not fits:
                raise UserError(
                    f"generation.{name} cannot be {getattr(self, name)!r}", "see `pellucid generate --help`"
                )


def changed(options: GenerationOptions, given: Mapping[str, Any]) -> GenerationOptions:
    """The options with these in their place; who asks for sampling turns beams off, and back."""
    given = dict(given)
    if given.get("n_best", 1) > 1:
        given.setdefault("beam", max(options.beam, given["n_best"]))
    if given.get("beam", 1) > 1:
        given.setdefault("temperature", 0.0)
    elif given.get("temperature", 0) > 0:
        given["beam"] = 1
    if "n_best" not in given:
        given["n_best"] = min(options.n_best, given.get("beam", options.beam))
    return replace(options, **given)


def of_folder(
    folder: Path, config: ModelConfig, asked: GenerationOptions = GenerationOptions()
) -> tuple[GenerationOptions, dict[str, Any]]:
    """How the model in a folder speaks: as its generation_config.json says (a run's, or an adapter's base's), but where `asked` is not the
    usual, as that. Beside it what the file asks for that is not done here. Raises DataError for a file that makes no sense."""
    from pellucid.models import adapters  # with torch

    folder = folder / "model" if (folder / "run.toml").is_file() else folder
    if adapters.is_adapter(folder):
        return of_folder(adapters.base_of(adapters.read(folder)), config, asked)
    if config.family not in ("gpt", "seq2seq"):
        return asked, {}
    said, others = speaking.read(folder, config)
    try:
        own = from_dict(GenerationOptions, said, str(folder / speaking.FILE))
    except UserError as error:
        raise DataError(f"{folder / speaking.FILE}: {error.problem}", "copy the model again") from None
    usual = GenerationOptions()
    return changed(own, {name: v for name, v in vars(asked).items() if v != getattr(usual, name)}), others


def to_folder(config: ModelConfig, asked: GenerationOptions, begun: Path | None = None) -> dict[str, Any]:
    """What generation_config.json is to say of a model that speaks as `asked`, and for the rest as the one in the folder `begun`."""
    options, others = of_folder(begun, config, asked) if begun else (asked, {})
    kept = {"stop_strings": list(options.stop)} if options.stop != asked.stop else {}
    return others | speaking.written(vars(options), config) | kept
