"""Models to the Hugging Face hub."""

import re
from pathlib import Path

from metalr.errors import MetalrError
from metalr.runtime import hub

_NAME = r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9])?"


def check(name: str) -> str:
    """Check, before hours of training, that a model may be pushed under a name.

    Args:
      name: OWNER/NAME, or NAME of the account's own.

    Returns:
      OWNER/NAME.

    Raises:
      MetalrError: The name is malformed, the hub does not answer, or no account is
        logged in.
    """
    import huggingface_hub

    owner, _, last = name.rpartition("/")
    if not re.fullmatch(rf"(?:{_NAME}/)?{_NAME}", name) or ".." in name or "--" in name:
        raise MetalrError(
            f"--push-to-hub takes OWNER/NAME of letters, digits, '-', '_' and '.', got "
            f"{name!r}"
        )
    if not hub.answers():
        raise MetalrError(f"--push-to-hub: {hub.endpoint()} does not answer")
    if not huggingface_hub.get_token():
        raise MetalrError(
            "--push-to-hub needs a token that may write: hf auth login, or HF_TOKEN"
        )
    api = huggingface_hub.HfApi(endpoint=hub.endpoint())
    try:
        account = hub.call(api.whoami)
    except Exception as fault:  # of many kinds
        raise MetalrError(
            f"--push-to-hub: {hub.endpoint()} does not accept the token "
            f"({_line(fault)}). Take a new one: hf auth login, or HF_TOKEN"
        ) from fault
    return f"{owner or account['name']}/{last}"


def push(folder: Path, name: str, *, private: bool = False) -> str:
    """Upload the files of a model, into a new repository or on top of an old one.

    Args:
      folder: Of the model.
      name: OWNER/NAME.
      private: Of a new repository: whether others may not see it.

    Returns:
      The address of the commit.

    Raises:
      MetalrError: The hub refuses it, or makes no progress.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi(endpoint=hub.endpoint())

    def upload() -> str:
        api.create_repo(name, private=private, exist_ok=True)
        return str(
            api.upload_folder(
                repo_id=name,
                folder_path=folder,
                commit_message="Upload a model that metalr fine-tuned",
                ignore_patterns=[".*"],  # drafts that a kill left
            ).commit_url
        )

    try:
        return hub.call(upload)
    except Exception as fault:  # of many kinds
        raise MetalrError(
            f"cannot push to {name}: {_line(fault)}. The model lies in {folder}, and "
            "the same command pushes it"
        ) from fault


def _line(fault: BaseException) -> str:
    return (" ".join(str(fault).split())[:300] or type(fault).__name__).rstrip(".")
