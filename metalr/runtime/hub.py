"""The Hugging Face hub: calls that end in bounded time, in one line, and quietly.

The libraries of the hub retry for minutes, sleep as long as a server asks them to, and
log each attempt. Here every call of theirs runs in a thread of its own and is left
alone once the hub makes no progress; what they write to the cache is checked.
"""

import contextlib
import functools
import hashlib
import importlib
import logging
import os
import re
import threading
import time
import urllib.error
import urllib.request
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from metalr.errors import MetalrError

ENDPOINT = "https://huggingface.co"
PATIENCE = "METALR_HUB_PATIENCE"  # environment: seconds without progress; 30 unsaid

# Less than this a second is no progress: BERT-base would take five days.
_LEAST_RATE = 1000.0
_MOST_REQUESTS = 50_000  # of one call; the largest set that is known here has 10
_SOCKET_SECONDS = 10.0
# What the libraries make parts of a path in the cache of.
_PATH_PARTS = ("etag", "x-linked-etag", "x-repo-commit")
_T = TypeVar("_T")


class Refused(Exception):
    """An answer of the hub that its libraries must not act on; none of their own."""


def endpoint() -> str:
    """Returns the address of the hub in use."""
    return (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")


def patience() -> float:
    """Returns the seconds that the hub may take without any progress.

    Raises:
      MetalrError: The environment says something else.
    """
    given = os.environ.get(PATIENCE, "30")
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds <= 86_400.0:
        raise MetalrError(
            f"{PATIENCE} must be seconds, above 0 and at most 86400, got {given!r}"
        )
    return seconds


# ------------------------------------------------------------ does it answer?


def answers(timeout: float | None = None) -> bool:
    """Says whether the Hugging Face hub can be reached, in a bounded time.

    A refusal is an answer too: what is asked for next then gives the reason.
    `HF_HUB_OFFLINE` answers no at once and `HF_ENDPOINT` names another hub, as in
    huggingface_hub. The first answer holds for the rest of the process, or until a
    call finds that the hub makes no progress.

    Args:
      timeout: Seconds to wait at most, name resolution included; None: ten, or the
        patience if that is less.
    """
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper()
    if offline in {"1", "ON", "YES", "TRUE"} or endpoint() in _stalled:
        return False
    return _answers(endpoint(), float(timeout or min(10.0, patience())))


_stalled: set[str] = set()  # endpoints that were waited for in vain


@functools.cache
def _answers(address: str, timeout: float) -> bool:
    answered = threading.Event()

    def ask() -> None:
        try:
            url = f"{address}/api/datasets/nyu-mll/glue"
            with urllib.request.urlopen(url, timeout=timeout) as reply:
                if reply.status == 200:
                    answered.set()
        except urllib.error.HTTPError:
            answered.set()
        except Exception:  # whatever goes wrong here means: it does not answer
            pass

    # A thread, because the timeout of a socket does not bound the name resolution,
    # and a daemon, so that a hanging resolver does not hold up the exit.
    thread = threading.Thread(target=ask, name="metalr-hub", daemon=True)
    thread.start()
    thread.join(timeout)
    return answered.is_set()


def forget() -> None:
    """Forgets what the hub answered, and the calls that were given up."""
    _answers.cache_clear()
    _stalled.clear()
    _left_behind.clear()


# ------------------------------------------------------------ bounded calls


def call(work: Callable[[], _T], *, online: bool = True) -> _T:
    """Returns what a call of the hub's libraries returns.

    Their log lines, warnings and progress bars are kept from the screen. The call goes
    on in a thread; a signal or a hub without progress ends the waiting for it.

    Args:
      work: The call.
      online: False lets it read the local cache alone.

    Raises:
      MetalrError: The hub makes no progress or gives an answer that is refused. The
        message is a reason, for the caller to say what was wanted.
      Exception: What `work` raises; of many kinds.
    """
    traffic = _Traffic(patience())
    ended = threading.Event()
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["value"] = work()
        except BaseException as fault:  # told to the thread that waits
            outcome["fault"] = fault
        finally:
            ended.set()

    with _LOCK, _hushed(traffic), _watched(traffic, online):
        threading.Thread(target=run, name="metalr-hub-call", daemon=True).start()
        try:
            while not ended.wait(min(0.1, traffic.patience / 10)):
                if traffic.stalls():
                    _stalled.add(endpoint())
                    raise MetalrError(
                        f"{endpoint()} made no progress for {traffic.patience:g} s "
                        f"({PATIENCE} sets how long to wait)"
                    )
        finally:
            if not ended.is_set():
                traffic.abandon()
    if traffic.refusal:
        raise MetalrError(traffic.refusal) from outcome.get("fault")
    if fault := outcome.get("fault"):
        if "Timeout" in type(fault).__name__:  # of httpx, which says no more
            raise MetalrError(
                f"{endpoint()} gave no answer within {traffic.limit:g} s"
            ) from fault
        raise fault
    return outcome["value"]


_LOCK = threading.RLock()  # the libraries' settings belong to the process
_left_behind = threading.Event()


def left_behind() -> bool:
    """Returns whether a thread may wait for the hub, and so would hold up an exit."""
    return _left_behind.is_set()


class _Traffic:
    """What passes between the libraries and the hub in one call."""

    def __init__(self, patience: float):
        self.patience = patience
        self.limit = min(_SOCKET_SECONDS, patience)  # seconds, of a socket
        self.refusal = ""
        self.abandoned = False
        self._lock = threading.Lock()
        self._pending: set[int] = set()  # threads that wait for the rest of an answer
        self._requests = 0
        self._since, self._bytes = time.monotonic(), 0.0
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    def stalls(self) -> bool:
        """Returns whether the hub owes an answer and has been too slow with it."""
        with self._lock:
            late = time.monotonic() - self._since > self.patience
            return bool(self._pending) and late

    def abandon(self) -> None:
        """Lets the threads of the call come to nothing."""
        self.abandoned = True
        _left_behind.set()

    def refuse(self, reason: str) -> Refused:
        """Returns the exception that ends the call."""
        self.refusal = self.refusal or reason
        return Refused(reason)

    def asked(self, request: Any) -> None:
        """Counts a request, and gives its socket a time limit if it has none."""
        self._check()
        limits = request.extensions.get("timeout") or {}
        request.extensions["timeout"] = {
            name: min(limits.get(name) or self.limit, self.limit)
            for name in ("connect", "read", "write", "pool")
        }
        with self._lock:
            self._requests += 1
            if self._requests > _MOST_REQUESTS:
                raise self.refuse(f"the hub leads from one request to {_MOST_REQUESTS}")
            if not self._pending:
                self._since, self._bytes = time.monotonic(), 0.0
            self._pending.add(threading.get_ident())
            self._threads.add(threading.current_thread())

    def answered(self, response: Any) -> None:
        """Checks the head of an answer and has its body counted."""
        self._check()
        library = type(response).__module__.partition(".")[0]  # httpx, or its successor
        busy = response.status_code in (408, 429) or response.status_code >= 500
        response.stream = _counted(library, response.stream, self, progress=not busy)
        wait = response.headers.get("retry-after", "")
        if busy and not (wait.isdecimal() and int(wait) <= self.patience / 4):
            if wait or response.status_code == 429:
                asks = f" and asks to wait {wait:.40} s" if wait else ""
                raise self.refuse(
                    f"{endpoint()} is busy ({response.status_code}{asks})"
                )
        if "/resolve/" in str(response.url):
            for name in _PATH_PARTS:
                value = response.headers.get(name, "").removeprefix("W/").strip('"')
                if value and not re.fullmatch(r"[\w-][\w.:+=-]*", value):
                    raise self.refuse(
                        f"{endpoint()} gives a file the {name} {value[:60]!r}, which "
                        "would lead out of the cache"
                    )

    def read(self, count: int) -> None:
        """Counts bytes of a body."""
        self._check()
        with self._lock:
            self._bytes += count
            if self._bytes >= _LEAST_RATE * self.patience:
                self._since, self._bytes = time.monotonic(), 0.0

    def done(self) -> None:
        """Counts an answer that came whole; what broke off is still owed."""
        with self._lock:
            self._pending.discard(threading.get_ident())
            self._since, self._bytes = time.monotonic(), 0.0

    def turn_away(self, request: Any) -> None:
        """Ends the threads of a call that was given up, at their next request."""
        del request
        if threading.current_thread() in self._threads:
            raise Refused("the call was given up")

    def _check(self) -> None:
        if self.abandoned:
            raise Refused("the call was given up")


def _counted(library: str, stream: Any, traffic: _Traffic, *, progress: bool) -> Any:
    """Returns a body that tells `traffic` of each piece, and of its end if it helps."""

    class Counted(importlib.import_module(library).SyncByteStream):
        elapsed = None

        def __iter__(self) -> Iterator[bytes]:
            for piece in stream:
                traffic.read(len(piece))
                yield piece
            if progress:
                traffic.done()

        def close(self) -> None:
            stream.close()

    return Counted()


@contextlib.contextmanager
def _watched(traffic: _Traffic, online: bool) -> Iterator[None]:
    """Lets huggingface_hub's clients report to `traffic`, and goes offline if need be.

    `HF_HUB_OFFLINE` is read when huggingface_hub is imported, which may have happened
    long ago, so the libraries' switches are set. Files come by plain HTTP, since the
    bytes of hf_xet can be neither counted nor stopped.
    """
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    previous = getattr(_http, "_GLOBAL_CLIENT_FACTORY", _http.default_client_factory)

    def client(asked: Callable[..., None], *answered: Callable[..., None]) -> Any:
        made = previous()
        hooks = made.event_hooks
        made.event_hooks = {
            "request": [*hooks["request"], asked],
            "response": [*hooks["response"], *answered],
        }
        return made

    switches = [(constants, "HF_HUB_DISABLE_XET", True)]
    if not online:
        switches.append((constants, "HF_HUB_OFFLINE", True))
    watched = functools.partial(client, traffic.asked, traffic.answered)
    huggingface_hub.set_client_factory(watched)
    try:
        with _set(switches):
            yield
    finally:
        after = functools.partial(client, traffic.turn_away)
        huggingface_hub.set_client_factory(after if traffic.abandoned else previous)


@contextlib.contextmanager
def _set(switches: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Sets attributes of modules meanwhile."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in switches]
    for owner, name, value in switches:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


@contextlib.contextmanager
def _hushed(traffic: _Traffic) -> Iterator[None]:
    """Keeps what the hub's libraries log, warn and draw from the screen meanwhile.

    `HF_HUB_VERBOSITY` lets them talk, as everywhere. The log stays quiet after a call
    that was given up, whose threads would complain.
    """
    import huggingface_hub.utils as utils

    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "httpx2")]
    levels = [logger.level for logger in loggers]
    bars = utils.are_progress_bars_disabled()
    if os.environ.get("HF_HUB_VERBOSITY", "critical") == "critical":
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
    with contextlib.suppress(Exception):  # warns where the environment insists
        utils.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            if not traffic.abandoned:
                logger.setLevel(level)
        if not bars:
            utils.enable_progress_bars()


# ------------------------------------------------------------ what is in the cache


def check_files(folder: Path) -> None:
    """Checks the files of a snapshot, or of any folder whose files have known hashes.

    The cache names the content of a file by the hash that the hub said: SHA-256 for
    large files, that of git for others.

    Args:
      folder: Its files, not those of its folders.

    Raises:
      MetalrError: A file leads out of the cache or is not the one that the hub has.
    """
    folder = Path(os.path.abspath(folder))
    for path in sorted(folder.iterdir()):
        if not path.is_symlink():
            continue
        repository = folder.parents[1]
        if folder.parent.name == "snapshots" and not path.resolve().is_relative_to(
            repository.parent.resolve()
        ):
            raise MetalrError(
                f"{path} leads out of the cache, to {path.resolve()}: remove "
                f"{repository} and fetch it again from a hub that you trust"
            )
        blob = Path(os.path.normpath(folder / os.readlink(path)))
        known = blob.name.lower() if blob.parent.name == "blobs" else ""
        if path.is_file() and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", known):
            found = _digest(path, git=len(known) == 40)
            if found != known:
                raise MetalrError(
                    f"{path} is not the file that the hub has: its hash is "
                    f"{found[:12]}..., the hub's {known[:12]}... It is damaged or was "
                    f"changed: remove {blob} and fetch it again"
                )


def _digest(path: Path, *, git: bool) -> str:
    digest = hashlib.sha1(usedforsecurity=False) if git else hashlib.sha256()
    with open(path, "rb") as file:
        if git:
            digest.update(b"blob %d\0" % os.fstat(file.fileno()).st_size)
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()
