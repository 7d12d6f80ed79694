"""`pellucid VERB …`: finds the verb, and turns every ending into plain words and an exit code. Imports no torch."""

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from pellucid import __version__, progress
from pellucid.errors import UserError, did_you_mean

VERBS = {
    "train": "train a model from a recipe and your files",
    "resume": "go on with a stopped run, exactly where it stopped",
    "verify-resume": "prove on this machine that resuming is exact",
    "evaluate": "loss, perplexity, BLEU, accuracy of a model",
    "verify": "the same numbers as another library, stage by stage, on this machine",
    "generate": "complete or translate text",
    "classify": "label texts or images, tag words",
    "fill": "the words behind a mask",
    "embed": "texts as vectors",
    "trace": "every step of a real forward pass: axes, shapes, parameters, FLOPs, time",
    "cost": "parameters, FLOPs, memory and time, before anything is allocated",
    "plot": "curves, attention maps, positions, confusions of a run as pictures",
    "tokenizer": "train a tokenizer, explain or compare what one does",
    "doctor": "what this machine has, and what will be used",
}
EXITS = "exit codes: 0 done, 1 a fault in pellucid, 2 usage, 3 bad data or model, 75 stopped but resumable"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. No traceback reaches a user, except with PELLUCID_DEBUG=1."""
    speak_utf8()
    try:
        code = dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except SystemExit as end:  # argparse's and tyro's --help and usage errors
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 2
    except BrokenPipeError:  # the reader (head, less) has seen enough; what is left must not fail at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except (KeyboardInterrupt, Exception) as error:
        return explain(error)


def dispatch(argv: list[str]) -> int:
    """Give the words after the verb to its module's `run`, imported now and not earlier."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if argv else 2
    verb = argv[0]
    if verb in ("--version", "-V", "version"):
        print(f"pellucid {__version__}")
        return 0
    if verb not in VERBS:
        raise UserError(f"pellucid has no verb {verb!r}", did_you_mean(verb, VERBS) + "  (pellucid --help)")
    progress.shown = True
    module = importlib.import_module(f"pellucid.cli.{verb.replace('-', '_')}")
    return int(module.run(argv[1:]))


def overview() -> str:
    """What `pellucid --help` prints."""
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {name:{width}}{line}" for name, line in VERBS.items())
    return (
        "pellucid: from your own text to a Transformer you can see through\n\n"
        f"usage: pellucid VERB …      pellucid VERB --help\n\n{verbs}\n\n"
        f"start here: pellucid train dates\n{EXITS}"
    )


def explain(error: BaseException) -> int:
    """Say on stderr what went wrong, in plain words; returns the exit code."""
    if os.environ.get("PELLUCID_DEBUG") == "1":
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        return say("stopped", 130)
    if isinstance(error, UserError):
        return say(f"error: {error}", error.exit_code)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return say(
            "error: the disk is full\n  make room; a run goes on from its last checkpoint: pellucid resume RUN", 1
        )
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return say(f"error: {error.filename}: {error.strerror}", 3)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return say(
            "error: out of memory\n  use smaller batches (--training.batch-tokens or batch-size) or a smaller model",
            1,
        )
    return say(fault(error), 1)


def fault(error: BaseException) -> str:
    """What to report when it is our fault: the error, and the last place in our code it passed through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "pellucid" in frame.filename]
    where = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    return (
        f"error: {type(error).__name__}: {error}{where}\n"
        "  This is a fault in pellucid, not in what you typed. Please report it with the command, this message and\n"
        "  the output of `pellucid doctor`. PELLUCID_DEBUG=1 before the command shows the whole traceback."
    )


def say(message: str, code: int) -> int:
    """Print to stderr, return `code`."""
    print(message, file=sys.stderr)
    return code


def speak_utf8() -> None:
    """UTF-8 on every console and pipe (on Windows pipes are not), and no failure on a character without bytes."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
