"""A server on 127.0.0.1 that speaks the protocol of the Hugging Face hub.

It serves repositories of models and sets, takes uploads, and misbehaves on request:

    with hub_server.running() as hub:
        hub.add("me/bert", {"config.json": b"{}", "model.safetensors": weights})
        hub.misbehave(r"model\\.safetensors", hub_server.silent)
        subprocess.run([...], env={**os.environ, **hub.environment(tmp_path)})
"""

import base64
import collections
import contextlib
import dataclasses
import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# Such files are kept outside of git there, and named by their SHA-256.
LARGE = re.compile(r"\.(safetensors|bin|model|parquet|h5|msgpack)$")
TOKEN = "hf_atokenthatonlythisserverknows"


def digest(path: str, content: bytes) -> str:
    """Return the hash that the hub names a file by."""
    if LARGE.search(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclasses.dataclass
class Repository:
    """The files of a repository at its one revision."""

    kind: str  # models or datasets
    name: str
    files: dict[str, bytes]

    @property
    def sha(self) -> str:
        told = json.dumps([(p, digest(p, c)) for p, c in sorted(self.files.items())])
        return hashlib.sha1(told.encode()).hexdigest()

    def entry(self, path: str) -> dict[str, Any] | None:
        """Return what the tree says of a file or a folder."""
        if path in self.files:
            content = self.files[path]
            entry = {"type": "file", "path": path, "size": len(content)}
            entry["oid"] = hashlib.sha1(content).hexdigest()
            if LARGE.search(path):
                size = len(content)
                oid = digest(path, content)
                entry["lfs"] = {"oid": oid, "size": size, "pointerSize": 134}
            else:
                entry["oid"] = digest(path, content)
            return entry
        if any(other.startswith(f"{path}/") for other in self.files):
            return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
        return None

    def tree(self, below: str, recursive: bool) -> list[dict[str, Any]]:
        """Return the entries below a folder; "" is the root."""
        paths: dict[str, None] = {}
        for path in sorted(self.files):
            if below and not path.startswith(f"{below}/"):
                continue
            parts = path[len(below) + 1 if below else 0 :].split("/")
            for depth in range(1, len(parts) + 1 if recursive else 2):
                paths["/".join([*([below] if below else []), *parts[:depth]])] = None
        return [entry for path in paths if (entry := self.entry(path))]


Answer = Callable[["Handler"], bool]  # True: the request has its answer


class Hub:
    """What the server holds, does and was asked."""

    def __init__(self, address: str):
        self.address = address
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.commits: list[dict[str, Any]] = []
        self.asked: collections.Counter[str] = collections.Counter()
        self.closing = threading.Event()
        self._answers: list[tuple[re.Pattern[str], Answer]] = []
        self._closers: list[Callable[[], None]] = []

    def add(
        self, name: str, files: dict[str, bytes] | Path, kind: str = "models"
    ) -> Repository:
        """Add a repository, from a dict or the files of a folder."""
        if isinstance(files, Path):
            found = sorted(path for path in files.rglob("*") if path.is_file())
            files = {str(p.relative_to(files)): p.read_bytes() for p in found}
        made = Repository(kind, name, dict(files))
        self.repositories[kind, name] = made
        return made

    def add_set(
        self, name: str, splits: dict[str, list[dict]], config: str = "default"
    ) -> None:
        """Add rows as Parquet to a set, as a configuration with these splits."""
        import io

        import pyarrow
        import pyarrow.parquet

        known = self.repositories.get(("datasets", name))
        files = dict(known.files) if known else {}
        for split, rows in splits.items():
            out = io.BytesIO()
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
            files[f"{config}/{split}-00000-of-00001.parquet"] = out.getvalue()
        configs: dict[str, list[str]] = {}
        for path in files:
            if path.endswith(".parquet"):
                folder, _, file = path.partition("/")
                configs.setdefault(folder, []).append(file.partition("-")[0])
        lines = ["---", "configs:"]
        for folder, names in configs.items():
            lines += [f"- config_name: {folder}", "  data_files:"]
            for split in names:
                lines += [f"  - split: {split}", f"    path: {folder}/{split}-*"]
        files["README.md"] = "\n".join([*lines, "---", ""]).encode()
        self.add(name, files, "datasets")

    def misbehave(self, pattern: str, answer: Answer) -> None:
        """Have `answer` deal with requests whose method and path match a pattern."""
        self._answers.append((re.compile(pattern), answer))

    def behave(self) -> None:
        """Answer honestly from now on."""
        self._answers.clear()

    def answer_for(self, asked: str) -> Answer | None:
        """Return what deals with a request in place of the honest answer."""
        return next((a for p, a in self._answers if p.search(asked)), None)

    def environment(self, home: Path) -> dict[str, str]:
        """Return variables that lead a program here, and to an empty cache."""
        return {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
            "NO_PROXY": "127.0.0.1",
        }


# ------------------------------------------------------------ bad manners


def silent(handler: "Handler") -> bool:
    """Promise a body and send no byte of it."""
    handler.send_head(200, {"Content-Length": "1000000"})
    handler.hub.closing.wait()
    return True


def trickle(handler: "Handler") -> bool:
    """Send one byte each twentieth of a second: a slow hub with scaled clocks."""
    handler.send_head(200, {"Content-Length": "1000000"})
    while not handler.hub.closing.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()
    return True


def hang(handler: "Handler") -> bool:
    """Take the request and never answer."""
    handler.hub.closing.wait()
    return True


def busy(status: int, wait: str = "3600") -> Answer:
    """Return the answer of a hub that wants to be asked later."""

    def answer(handler: "Handler") -> bool:
        handler.reply(status, b"later", {"Retry-After": wait})
        return True

    return answer


def with_headers(**headers: str) -> Answer:
    """Return the honest answer with other headers: `etag`, `x_repo_commit`."""

    def answer(handler: "Handler") -> bool:
        named = {name.replace("_", "-").title(): v for name, v in headers.items()}
        handler.forced = named
        return False

    return answer


def with_body(change: Callable[[bytes], bytes]) -> Answer:
    """Return the honest answer to GET with another body."""

    def answer(handler: "Handler") -> bool:
        handler.change = change
        return False

    return answer


# ------------------------------------------------------------ the protocol


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    hub: Hub
    forced: dict[str, str]
    change: Callable[[bytes], bytes]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._deal()

    do_HEAD = do_POST = do_PUT = do_GET

    def _deal(self) -> None:
        self.forced, self.change = {}, lambda body: body
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        asked = f"{self.command} {path}"
        self.hub.asked[asked] += 1
        with contextlib.suppress(OSError):  # who asked has gone
            answer = self.hub.answer_for(asked)
            if answer and answer(self):
                self.close_connection = True
                return
            self._honest(path, urllib.parse.parse_qs(url.query))

    def _honest(self, path: str, query: dict[str, list[str]]) -> None:
        for pattern, name in ROUTES:
            if found := re.fullmatch(pattern, path):
                getattr(self, name)(query=query, **found.groupdict())
                return
        self.reply(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def send_head(self, status: int, headers: dict[str, str]) -> None:
        """Send status and headers."""
        self.send_response(status)
        for name, value in (headers | self.forced).items():
            self.send_header(name, value)
        self.end_headers()

    def reply(self, status: int, body: bytes, headers: dict[str, str] = {}) -> None:  # noqa: B006
        """Send a whole answer."""
        self.send_head(status, {"Content-Length": str(len(body)), **headers})
        if self.command != "HEAD":
            self.wfile.write(self.change(body))

    def _json(self, content: Any) -> None:
        self.reply(
            200, json.dumps(content).encode(), {"Content-Type": "application/json"}
        )

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _repository(self, kind: str, name: str) -> Repository | None:
        found = self.hub.repositories.get((kind, name))
        if found is None:
            self._body()
            self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        return found

    def info(self, kind: str, name: str, **_: Any) -> None:
        if found := self._repository(kind, name):
            siblings = [{"rfilename": path} for path in sorted(found.files)]
            told = {"id": name, "sha": found.sha, "siblings": siblings, "tags": []}
            self._json({**told, "private": False, "downloads": 0, "gated": False})

    def tree(self, kind: str, name: str, below: str, query: Any, **_: Any) -> None:
        if found := self._repository(kind, name):
            if below and found.entry(below) is None:
                self.reply(404, b"{}", {"X-Error-Code": "EntryNotFound"})
                return
            recursive = query.get("recursive", ["false"])[0].lower() == "true"
            self._json(found.tree(below or "", recursive))

    def paths(self, kind: str, name: str, **_: Any) -> None:
        if found := self._repository(kind, name):
            asked = urllib.parse.parse_qs(self._body().decode())["paths"]
            self._json([entry for path in asked if (entry := found.entry(path))])

    def file(self, kind: str | None, name: str, path: str, **_: Any) -> None:
        found = self._repository((kind or "models/").rstrip("/"), name)
        if found is None:
            return
        if path not in found.files:
            missing = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": found.sha}
            self.reply(404, b"{}", missing)
            return
        body, etag = found.files[path], digest(path, found.files[path])
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": found.sha}
        if LARGE.search(path):
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(body))}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), int(wanted[2] or len(body) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            self.reply(206, body[first : last + 1], headers)
            return
        self.reply(200, body, headers)

    # -------------------------------------------------------- uploads

    def _allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._body()
        self.reply(401, b'{"error": "Invalid username or password."}')
        return False

    def whoami(self, **_: Any) -> None:
        if self._allowed():
            self._json({"name": "me", "type": "user", "orgs": [], "auth": {}})

    def create(self, **_: Any) -> None:
        if self._allowed():
            asked = json.loads(self._body())
            owner = asked.get("organization") or "me"
            name, kind = f"{owner}/{asked['name']}", asked.get("type", "model") + "s"
            if (kind, name) in self.hub.repositories:
                told = {"error": "exists", "url": f"{self.hub.address}/{name}"}
                self.reply(409, json.dumps(told).encode())
                return
            self.hub.add(name, {}, kind)
            self._json({"url": f"{self.hub.address}/{name}", "id": name})

    def yaml(self, **_: Any) -> None:
        self._body()
        self._json({"errors": [], "warnings": []})

    def preupload(self, kind: str, name: str, **_: Any) -> None:
        if self._allowed() and self._repository(kind, name):
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if LARGE.search(file["path"]) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(self._body())["files"]
            ]
            self._json({"files": modes})

    def batch(self, **_: Any) -> None:
        objects = []
        for wanted in json.loads(self._body())["objects"]:
            href = f"{self.hub.address}/upload/{wanted['oid']}"
            objects.append({**wanted, "actions": {"upload": {"href": href}}})
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, oid: str, **_: Any) -> None:
        content = self._body()
        if hashlib.sha256(content).hexdigest() != oid:
            self.reply(400, b"another content")
            return
        self.hub.uploads[oid] = content
        self.reply(200, b"")

    def commit(self, kind: str, name: str, **_: Any) -> None:
        if not self._allowed() or not (found := self._repository(kind, name)):
            return
        commit: dict[str, Any] = {"repository": name, "files": []}
        for line in self._body().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                commit["summary"] = value["summary"]
            elif entry["key"] == "file":
                found.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                found.files[value["path"]] = self.hub.uploads[value["oid"]]
            if "path" in value:
                commit["files"].append(value["path"])
        self.hub.commits.append(commit)
        url = f"{self.hub.address}/{name}/commit/{found.sha}"
        self._json({"success": True, "commitOid": found.sha, "commitUrl": url})


_API = r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+(?:/[^/]+)?)"
_REVISION = r"/(?P<revision>[^/]+)"
ROUTES = [
    (rf"{_API}/tree{_REVISION}(?:/(?P<below>.+))?", "tree"),
    (rf"{_API}/paths-info{_REVISION}", "paths"),
    (rf"{_API}/preupload{_REVISION}", "preupload"),
    (rf"{_API}/commit{_REVISION}", "commit"),
    (rf"{_API}/revision{_REVISION}", "info"),
    (r"/api/whoami-v2", "whoami"),
    (r"/api/repos/create", "create"),
    (r"/api/validate-yaml", "yaml"),
    (r"/(?:datasets/)?.+\.git/info/lfs/objects/batch", "batch"),
    (r"/upload/(?P<oid>[0-9a-f]{64})", "upload"),
    (
        r"/(?P<kind>datasets/)?(?P<name>[^/]+(?:/[^/]+)?)/resolve"
        rf"{_REVISION}/(?P<path>.+)",
        "file",
    ),
    (_API, "info"),
]


@contextlib.contextmanager
def running() -> Iterator[Hub]:
    """Yield a hub that answers on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = type("Bound", (Handler,), {"hub": hub})
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def add_tasks(hub: Hub, *, train: int, validation: int) -> None:
    """Add the sets of tasks, with that many generated rows in each split."""
    from metalr.data import toy
    from metalr.data.tasks import TASKS

    for task in TASKS.values():
        if task.name not in toy.GENERATORS:
            continue
        name, config = task.hub
        scored = ("test",) if task.name in ("imdb", "ag_news") else task.validation
        splits = {"train": toy.generate(task.name, "train", train, 0)}
        for split in scored:
            splits[split] = toy.generate(task.name, task.validation[0], validation, 1)
        hub.add_set(name, splits, config or "default")


@contextlib.contextmanager
def here(monkeypatch: Any, home: Path, patience: str = "20") -> Iterator[Hub]:
    """Yield a hub that this process asks, with an empty cache.

    The libraries read the environment when they are imported, which has happened.
    """
    import datasets.config
    from huggingface_hub import constants

    from metalr.runtime import hub as asking

    with running() as hub:
        for name, value in hub.environment(home).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(asking.PATIENCE, patience)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        template = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.address)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(home / "sets"))
        asking.forget()
        yield hub
    asking.forget()
