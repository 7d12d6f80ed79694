"""A worker for tests: it answers with what it is told to do."""

import os
import sys
import time
from typing import Any

from benchmarks.worker import serve


def handle(request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "fail":
        raise ValueError("as it was told")
    if request["do"] == "die":
        print("last words", file=sys.stderr, flush=True)
        os._exit(3)
    if request["do"] == "sleep":
        time.sleep(60)
    print("a library that prints")
    return {"echo": request.get("what"), "pid": os.getpid()}


if __name__ == "__main__":
    serve(lambda settings: ({"settings": settings["name"]}, handle))
