"""A process beside ours that does what it is asked, in any Python: one JSON object a line each way. Imports no torch.

Our end is `Worker`; theirs is `Pipe` (or `serve`), in a module that is run as `PYTHON -m MODULE` from the root of the repository, so that
it may import this one. The first request carries the settings and its answer says that everything is built and warm:

    -> {"do": "start", "work": "a", ...}        <- {"parameters": 10660608}
    -> {"do": "steps", "n": 5}                  <- {"seconds": [...], "units": [...]}

What a worker prints goes to a file, and its end into the error; a worker is killed with its children when its `with` block is left.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Failed(Exception):
    """A worker could not do what it was asked; the text says why."""


class Worker:
    """One process. `skipped` says why there is none, or "". Use in a `with` block (contextlib.ExitStack for several)."""

    def __init__(
        self,
        module: str,
        python: str | None = None,
        settings: Mapping[str, Any] | None = None,
        limit: float = 300,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts `python -m module` (ours if python is None, skipped if it is "") and waits until it is ready, at most `limit` seconds.
        `environment`: variables beside those of this process."""
        self.limit, self.skipped, self.ready = limit, "", {}
        self.printed = tempfile.TemporaryFile("w+b")
        self.process: subprocess.Popen[str] | None = None
        if python == "":
            self.skipped = "PELLUCID_PEERS names no Python with the peers"
            return
        try:
            self.process = subprocess.Popen(
                [python or sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.printed,
                text=True,
                encoding="utf-8",
                cwd=ROOT,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": ""} | dict(environment or {}),
                start_new_session=True,
            )
            self.ready = self.ask({"do": "start", **(settings or {})})
        except (OSError, Failed) as error:
            self.skipped = str(error)
            self.close()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one request. Failed if the worker raises, dies or takes longer than its limit."""
        if self.process is None or self.process.stdin is None or self.process.stdout is None:
            raise Failed(self.skipped or "it has been closed")
        watch = threading.Timer(self.limit, self.kill)
        watch.start()
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        finally:
            in_time = watch.is_alive()
            watch.cancel()
        if not line:
            raise Failed(self.last_words() if in_time else f"no answer within {self.limit:.0f} seconds")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer

    def last_words(self) -> str:
        """The last line that the worker printed."""
        self.printed.seek(0)
        lines = self.printed.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it ended without a word"

    def kill(self) -> None:
        """At once, with its children (compilers, loaders)."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def close(self) -> None:
        """Ends the process. May be called twice."""
        self.kill()
        if self.process is not None:
            for end in (self.process.stdin, self.process.stdout):
                if end is not None:
                    try:
                        end.close()
                    except BrokenPipeError:
                        pass
            self.process.wait()
        self.process = None
        self.printed.close()


class Pipe:
    """Their end. Takes over standard output: whatever else prints there goes to standard error."""

    def __init__(self) -> None:
        self.out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def read(self) -> dict[str, Any]:
        """The next request. Ends this process where there will be no other."""
        line = sys.stdin.readline()
        if not line:
            os._exit(0)
        request: dict[str, Any] = json.loads(line)
        return request

    def answer(self, **what: Any) -> None:
        """Says what came of a request."""
        self.out.write(json.dumps(what) + "\n")
        self.out.flush()


def serve(start: Callable[[dict[str, Any]], tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]]) -> None:
    """Answers requests until there are none. `start(settings)` builds and warms up: (the answer, what does each further request)."""
    pipe, handle = Pipe(), None
    while True:
        request = pipe.read()
        try:
            if request["do"] == "start":
                answer, handle = start(request)
            elif handle is None:
                raise ValueError("it has not been started")
            else:
                answer = handle(request)
        except Exception as error:
            traceback.print_exc()
            pipe.answer(failed=f"{type(error).__name__}: {error}".splitlines()[0][:300])
        else:
            pipe.answer(**answer)
