"""Models by name: what is a path and what a hub name; a hub of our own on loopback, asked by the real package huggingface_hub."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from pellucid.errors import DataError, UserError
from pellucid.models import hub

COMMIT = "c" * 40
SAFE = {
    "config.json": b"{}",
    "model.safetensors": b"safe",
    "tokenizer.json": b"{}",
    "merges.txt": b"a b",
    "spiece.model": b"s",
    "1_Pooling/config.json": b"{}",
}
UNASKED = {
    "pytorch_model.bin": b"pickle",
    "modeling_evil.py": b"raise SystemExit",
    "onnx/model.safetensors": b"onnx",
    "flax_model.msgpack": b"flax",
    "a.pkl": b"pickle",
}


@dataclass
class Hub:
    """What the hub has, and what it was asked for."""

    models: dict[str, dict[str, bytes]]
    gated: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)  # files whose connection breaks in the middle
    asked: list[str] = field(default_factory=list)
    url: str = ""


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path).strip("/")
            hub.asked.append(path)
            name = next(
                (name for name in hub.models if f"{path}/".removeprefix("api/models/").startswith(f"{name}/")), ""
            )
            verb, _, rest = path.removeprefix("api/models/").removeprefix(name).strip("/").partition("/")
            revision, _, file = rest.partition("/")
            if not name:
                self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
            elif revision not in ("main", COMMIT):
                self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
            elif verb == "resolve" and name in hub.gated:
                self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
            elif verb == "resolve":
                content = hub.models[name][file]
                self.answer(200, content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'}, file in hub.cut)
            else:
                files = hub.models[name].items()
                tree = [
                    {"type": "file", "path": f, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for f, c in files
                ]
                told = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": f} for f, _ in files]}
                self.answer(200, json.dumps(tree if verb == "tree" else told).encode(), {})

        do_HEAD = do_GET

        def answer(self, status: int, content: bytes, headers: dict[str, str], cut: bool = False) -> None:
            self.send_response(status)
            for key, value in (headers | {"X-Repo-Commit": COMMIT, "Content-Length": str(len(content))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = True

        def log_message(self, *words: object) -> None:
            pass

    return Handler


@pytest.fixture
def served() -> Iterator[Hub]:
    hub = Hub({"gpt2": SAFE | UNASKED, "org/old": {"config.json": b"{}", "pytorch_model.bin": b"pickle", "x.py": b""}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    yield hub
    server.shutdown()
    server.server_close()


def ask(name: str, place: Path, url: str, **more: str) -> tuple[Path | None, str]:
    """The folder found by a fresh Python (huggingface_hub reads its settings once) that works in `place`, and what it said on stderr."""
    code = (
        "import sys\nfrom pellucid import progress\nfrom pellucid.models import hub\nprogress.shown = True\n"
        "try:\n    print(hub.find(sys.argv[1]))\n"
        "except hub.UserError as error:\n    sys.exit(f'{type(error).__name__} {error}')\n"
    )
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    settings = {"HF_ENDPOINT": url, "HF_HOME": str(place / "hub home"), "NO_PROXY": "127.0.0.1", "PYTHONUTF8": "1"}
    words = [sys.executable, "-W", "error", "-c", code, name]
    ran = subprocess.run(
        words, cwd=place, env=clean | settings | more, capture_output=True, encoding="utf-8", timeout=120
    )
    assert "Traceback" not in ran.stderr, ran.stderr
    return (Path(ran.stdout.strip()) if ran.returncode == 0 else None), ran.stderr


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["gpt2", "org/name", "org/name@v1.0", "gpt2@refs/pr/1", "here/name@main"])
def test_names_of_the_hub(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert not hub.is_path(name)


@pytest.mark.parametrize(
    "name",
    ["here", "here/daets", "./gpt2", "../gpt2", "~/gpt2", "/gpt2", "a/b/c", "gpt2/", r"a\b", "C:/m", ".gpt2", "ä", ""],
)
def test_what_may_be_a_path_never_goes_to_the_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # importing it would fail
    (tmp_path / "here").mkdir()
    assert hub.find(name) == Path(os.path.expanduser(name))


def test_the_name_of_a_run_is_not_asked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "dates").mkdir(parents=True)
    with pytest.raises(DataError, match="did you mean runs/dates"):
        hub.find("dates")


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'pellucid\[hub\]'"):
        hub.find("gpt2")


@pytest.mark.slow
def test_a_model_is_downloaded_once_without_code_or_doubles_and_is_there_offline(served: Hub, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    found, said = ask("gpt2", tmp_path, served.url)
    assert found and names(found) == set(SAFE) and (found / "model.safetensors").read_bytes() == b"safe"
    assert said.startswith("gpt2 is no folder here: asking") and len(said.splitlines()) == 1  # no bars in a pipe
    assert not any(file.endswith((".py", ".bin", ".pkl")) for file in served.asked)
    before = len(served.asked)
    assert ask("gpt2@main", tmp_path, served.url)[0] == found
    assert not any("resolve" in file for file in served.asked[before:])
    assert ask("gpt2", tmp_path, served.url, HF_HUB_OFFLINE="1")[0] == found
    assert ask("gpt2", tmp_path, "http://127.0.0.1:9")[0] == found  # nobody answers there


@pytest.mark.slow
def test_pickles_only_where_there_is_no_safetensors(served: Hub, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    found, _ = ask("org/old", tmp_path, served.url)
    assert found and names(found) == {"config.json", "pytorch_model.bin"}


@pytest.mark.slow
def test_each_refusal_is_told_in_plain_words(served: Hub, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    served.models |= {"org/shut": SAFE, "org/empty": {"config.json": b"{}"}}
    served.gated.add("org/shut")
    refusals = {
        "nobody": "DataError nobody is no folder here and no model on the hub",
        "no--body": "DataError no--body is no folder here and no model on the hub",
        "org/shut": "DataError org/shut is gated",
        "gpt2@v9": "DataError gpt2 has no revision 'v9'",
        "org/empty": "DataError org/empty: no weights",
    }
    for name, words in refusals.items():
        found, said = ask(name, tmp_path, served.url)
        assert found is None and words in said, said
    for settings, words in ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"), ({}, "cannot be reached (ConnectError)"):
        found, said = ask("gpt2", tmp_path, "http://127.0.0.1:9", **settings)
        assert found is None and words in said, said


@pytest.mark.slow
def test_a_download_that_breaks_off_is_said_and_goes_on(served: Hub, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    served.cut.add("model.safetensors")
    found, said = ask("gpt2", tmp_path, served.url, HF_HUB_DOWNLOAD_TIMEOUT="2")
    assert found is None and "broke off" in said and "same command" in said, said
    found, said = ask("gpt2", tmp_path, served.url, HF_HUB_OFFLINE="1")
    assert found is None and "as a whole" in said, said
    served.cut.clear()
    found, _ = ask("gpt2", tmp_path, served.url)
    assert found and (found / "model.safetensors").read_bytes() == b"safe"
