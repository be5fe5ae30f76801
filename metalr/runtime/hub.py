"""The Hugging Face hub: calls that end in bounded time, in one line, and quietly.

The libraries of the hub retry for minutes, sleep as long as a server asks them to, and
log each attempt. Here every call of theirs runs in a thread of its own and is left
alone once the hub makes no progress; what they write to the cache is checked.
"""

import functools
import hashlib
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from metalr.errors import MetalrError
from metalr.runtime import hub_traffic

ENDPOINT = "https://huggingface.co"
PATIENCE = "METALR_HUB_PATIENCE"  # environment: seconds without progress; 30 unsaid

_T = TypeVar("_T")


def endpoint() -> str:
    """Return the address of the hub in use."""
    return (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")


def patience() -> float:
    """Return the seconds that the hub may take without any progress.

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
    """Say whether the Hugging Face hub can be reached, in a bounded time.

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
    """Forget what the hub answered, and the calls that were given up."""
    _answers.cache_clear()
    _stalled.clear()
    _left_behind.clear()


# ------------------------------------------------------------ bounded calls


def call(work: Callable[[], _T], *, online: bool = True) -> _T:
    """Return what a call of the hub's libraries returns.

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
    traffic = hub_traffic.Traffic(patience(), endpoint())
    ended = threading.Event()
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["value"] = work()
        except BaseException as fault:  # told to the thread that waits
            outcome["fault"] = fault
        finally:
            ended.set()

    with _LOCK, hub_traffic.hushed(traffic), hub_traffic.watched(traffic, online):
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
                traffic.abandoned = True
                _left_behind.set()
    if traffic.refusal:
        raise MetalrError(traffic.refusal) from outcome.get("fault")
    if fault := outcome.get("fault"):
        if reason := _behind(fault, traffic):
            raise MetalrError(reason) from fault
        raise fault
    return outcome["value"]


def _behind(fault: BaseException, traffic: hub_traffic.Traffic) -> str:
    """Return what is behind a fault that the libraries word as another one, or ""."""
    if traffic.status >= 500:
        return f"{endpoint()} answers with status {traffic.status}"
    chain: BaseException | None = fault
    while chain is not None:
        if "Timeout" in type(chain).__name__:  # of httpx, which says no more
            return f"{endpoint()} gave no answer within {traffic.limit:g} s"
        chain = chain.__cause__ or chain.__context__
    return ""


_LOCK = threading.RLock()  # the libraries' settings belong to the process
_left_behind = threading.Event()


def left_behind() -> bool:
    """Return whether a thread may wait for the hub, and so would hold up an exit."""
    return _left_behind.is_set()


# ------------------------------------------------------------ what is in the cache


def check_files(folder: Path, said: Mapping[str, str] | None = None) -> None:
    """Check the files of a snapshot, or of any folder whose files have known hashes.

    The cache names the content of a file by the hash that the hub said: SHA-256 for
    large files, that of git for others.

    Args:
      folder: Its files, not those of its folders.
      said: The hub's hashes by file, for a cache without links.

    Raises:
      MetalrError: A file leads out of the cache or is not the one that the hub has.
    """
    folder = Path(os.path.abspath(folder))
    for path in sorted(folder.iterdir()):
        if not path.is_symlink():
            _check_hash(path, (said or {}).get(path.name, ""), path)
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
        _check_hash(path, blob.name if blob.parent.name == "blobs" else "", blob)


def _check_hash(path: Path, known: str, content: Path) -> None:
    """Check a file against the hash that the hub has, if that is one."""
    known = known.lower()
    if not (path.is_file() and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", known)):
        return
    found = _digest(path, git=len(known) == 40)
    if found != known:
        raise MetalrError(
            f"{path} is not the file that the hub has: its hash is {found[:12]}..., "
            f"the hub's {known[:12]}... It is damaged or was changed: remove {content} "
            "and fetch it again"
        )


def _digest(path: Path, *, git: bool) -> str:
    digest = hashlib.sha1(usedforsecurity=False) if git else hashlib.sha256()
    with open(path, "rb") as file:
        if git:
            digest.update(b"blob %d\0" % os.fstat(file.fileno()).st_size)
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()
