"""What passes between the hub's libraries and the hub: counted, checked, hushed."""

import contextlib
import functools
import importlib
import logging
import os
import re
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

# Less than this a second is no progress: BERT-base would take five days.
_LEAST_RATE = 1000.0
_MOST_REQUESTS = 50_000  # of one call; the largest set that is known here has 10
_SOCKET_SECONDS = 10.0
# What the libraries make parts of a path in the cache of.
_PATH_PARTS = ("etag", "x-linked-etag", "x-repo-commit")


class Refused(Exception):
    """An answer of the hub that its libraries must not act on; none of their own."""


class Traffic:
    """What passes between the libraries and the hub in one call."""

    def __init__(self, patience: float, endpoint: str):
        self.patience = patience  # seconds without progress
        self.endpoint = endpoint
        self.limit = min(_SOCKET_SECONDS, patience / 2)  # seconds, of a socket
        self.refusal = ""
        self.status = 0  # of the last answer
        self.abandoned = False  # True: the call's threads are to come to nothing
        self._lock = threading.Lock()
        self._pending: set[int] = set()  # threads that wait for the rest of an answer
        self._requests = 0
        self._since, self._bytes = time.monotonic(), 0.0
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    def stalls(self) -> bool:
        """Return whether the hub owes an answer and has been too slow with it."""
        with self._lock:
            late = time.monotonic() - self._since > self.patience
            return bool(self._pending) and late

    def refuse(self, reason: str) -> Refused:
        """Return the exception that ends the call."""
        self.refusal = self.refusal or reason
        return Refused(reason)

    def asked(self, request: Any) -> None:
        """Count a request and its body, and give its socket a time limit."""
        self._check()
        request.stream = _counted(request, request.stream, self, progress=False)
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
        """Check the head of an answer and have its body counted."""
        self._check()
        self.status = response.status_code
        busy = response.status_code in (408, 429) or response.status_code >= 500
        response.stream = _counted(response, response.stream, self, progress=not busy)
        wait = response.headers.get("retry-after", "")
        if busy and not (wait.isdecimal() and int(wait) <= self.patience / 4):
            if wait or response.status_code == 429:
                asks = f" and asks to wait {wait:.40} s" if wait else ""
                raise self.refuse(
                    f"{self.endpoint} is busy ({response.status_code}{asks})"
                )
        if "/resolve/" in str(response.url):
            for name in _PATH_PARTS:
                value = response.headers.get(name, "").removeprefix("W/").strip('"')
                if value and not re.fullmatch(r"[\w-][\w.:+=-]*", value):
                    raise self.refuse(
                        f"{self.endpoint} gives a file the {name} {value[:60]!r}, "
                        "which would lead out of the cache"
                    )

    def read(self, count: int) -> None:
        """Count bytes of a body."""
        self._check()
        with self._lock:
            self._bytes += count
            if self._bytes >= _LEAST_RATE * self.patience:
                self._since, self._bytes = time.monotonic(), 0.0

    def done(self) -> None:
        """Count an answer that came whole; what broke off is still owed."""
        with self._lock:
            self._pending.discard(threading.get_ident())
            self._since, self._bytes = time.monotonic(), 0.0

    def turn_away(self, request: Any) -> None:
        """End the threads of a call that was given up, at their next request."""
        del request
        if threading.current_thread() in self._threads:
            raise Refused("the call was given up")

    def _check(self) -> None:
        if self.abandoned:
            raise Refused("the call was given up")


def _counted(of: Any, stream: Any, traffic: Traffic, *, progress: bool) -> Any:
    """Return a body that tells `traffic` of each piece, and of its end if it helps."""
    library = type(of).__module__.partition(".")[0]  # httpx, or its successor

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
def watched(traffic: Traffic, online: bool) -> Iterator[None]:
    """Let huggingface_hub's clients report to `traffic`, and go offline if need be.

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
    """Set attributes of modules meanwhile."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in switches]
    for owner, name, value in switches:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


@contextlib.contextmanager
def hushed(traffic: Traffic) -> Iterator[None]:
    """Keep what the hub's libraries log, warn and draw from the screen meanwhile.

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
