"""Models by name: a folder, or a name on the Hugging Face hub ("gpt2", "org/name", "org/name@revision"). Imports no torch.

What may be a slip in a path never goes to the network. A name is asked for on the hub only if nothing of that name is here, it has the
form of a hub name (one slash at most, nothing before it but letters), and no folder called like its first part is here: beside a folder
`runs`, "runs/daets" is a path. Whoever wants the hub's all the same says so with a revision: "runs/daets@main".
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pellucid import progress
from pellucid.errors import DataError, UserError

PART = r"[A-Za-z0-9][\w.-]{0,95}"
NAME = re.compile(rf"(?P<id>{PART}(/{PART})?)(@(?P<revision>\w[\w./-]{{0,200}}))?", re.ASCII)
WANTED = ["*.json", "*.safetensors", "*.model", "*.spm", "*.txt"]
PICKLED = ["pytorch_model*.bin"]
"""Asked for only where a model has no safetensors."""
UNWANTED = ["*.py", "onnx/*", "openvino/*", "coreml/*", "original/*", "consolidated*", "*.fp16.*"]
"""Code, which is never run; and the same weights once more, for other programs."""


def is_path(name: str) -> bool:
    """Whether this is meant as a path on this machine, there or not."""
    parts = NAME.fullmatch(name)
    if not parts or Path(name).exists():
        return True
    return parts["revision"] is None and "/" in name and Path(name).parent.exists()


def find(name: str) -> Path:
    """The folder of a model: the path itself, there or not, or where the hub's model of that name lies, downloaded if need be.

    Without a connection, what was downloaded before is taken. Raises UserError without the package huggingface_hub; DataError when there is
    no such model or revision, it is gated, it cannot be reached, or it holds no weights.
    """
    if is_path(name):
        return Path(os.path.expanduser(name))
    if (Path("runs") / name).is_dir():
        raise DataError(f"{name} is no folder here", f"did you mean runs/{name}? For the hub's: {name}@main")
    try:
        from huggingface_hub import constants
    except ImportError:
        problem = f"{name} is no folder here, and to look on the hub needs the package huggingface_hub"
        raise UserError(problem, "pip install 'pellucid[hub]'") from None
    if progress.shown:
        asked = f"asking {constants.ENDPOINT.removeprefix('https://')} for it, what is not here yet is downloaded"
        doing = "looking among the downloaded models" if constants.HF_HUB_OFFLINE else asked
        print(f"{name} is no folder here: {doing}", file=sys.stderr)
    folder = _snapshot(name, WANTED)
    if not any(folder.glob("*.safetensors")):
        folder = _snapshot(name, [*WANTED, *PICKLED])
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise DataError(
            f"{name}: no weights that can be read", f"needs model.safetensors or pytorch_model.bin; see {folder}"
        )
    return folder


def _snapshot(name: str, wanted: list[str]) -> Path:
    """The files of a model that have these names, as they are on the hub now or, without a connection, were last time."""
    from huggingface_hub import errors, snapshot_download

    parts = NAME.fullmatch(name)
    assert parts
    try:
        with _bars():
            return Path(
                snapshot_download(
                    parts["id"], revision=parts["revision"], allow_patterns=wanted, ignore_patterns=UNWANTED
                )
            )
    except errors.GatedRepoError:
        problem = f"{name} is gated: its authors give access on request"
        raise DataError(problem, f"ask on huggingface.co/{parts['id']}, then: hf auth login") from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        problem = f"{name} is no folder here and no model on the hub"
        raise DataError(problem, f"{runs_here()}; a private model needs: hf auth login") from None
    except errors.RevisionNotFoundError:
        raise DataError(f"{parts['id']} has no revision {parts['revision']!r}", "leave it out for the newest") from None
    except errors.LocalEntryNotFoundError as error:
        raise DataError(*_unreachable(name, error)) from None
    except Exception as error:  # of whichever HTTP package huggingface_hub uses, or of the disk
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"{name}: the download broke off: {reason[0]}", "the same command goes on where it stopped"
        ) from None


def _unreachable(name: str, error: Exception) -> tuple[str, str]:
    """Problem and remedy when the hub did not answer and the cache does not have the whole model."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        problem = f"{name} is no folder here, has not been downloaded as a whole, and HF_HUB_OFFLINE is set"
        return problem, f"{runs_here()}; or set HF_HUB_OFFLINE=0"
    reason = type(error.__cause__ or error).__name__
    problem = (
        f"{name} is no folder here, {constants.ENDPOINT} cannot be reached ({reason}), and no whole download is here"
    )
    return problem, f"{runs_here()}; or check the connection"


def runs_here() -> str:
    """A remedy where there is no model of that name."""
    runs = sorted(str(path.parent) for path in Path("runs").glob("*/run.toml"))
    return "runs here: " + ", ".join(runs) if runs else "train one: pellucid train dates"


@contextmanager
def _bars() -> Iterator[None]:
    """huggingface_hub's own progress bars where progress is shown on a terminal, and none elsewhere."""
    from huggingface_hub import utils

    if (progress.shown and sys.stderr.isatty()) or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()
