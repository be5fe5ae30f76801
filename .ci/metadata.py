"""Fill in what depends on where a wheel is built: the address of the project.

A repository can move, so no file of it holds its address. On GitHub the environment
says it; the package then gets its links, and the links and pictures of the README
become absolute, as PyPI needs them. Elsewhere both stay as they are.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?\[[^\]]*\]\()(?!https?:|#)([^)\s]+)\)")


def absolute(text: str, address: str, revision: str) -> str:
    """Return Markdown whose relative links lead to files of a repository on GitHub."""

    def link(match: re.Match[str]) -> str:
        view = "raw" if match[1].startswith("!") else "blob"
        return f"{match[1]}{address}/{view}/{revision}/{match[2]})"

    return _LINK.sub(link, text)


class Metadata(MetadataHookInterface):
    """The hook that hatchling calls; its name does not matter."""

    def update(self, metadata: dict) -> None:
        """Set the README and, if the address is known, the links."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        address = address_of(os.environ)
        if address:
            text = absolute(text, address, os.environ.get("GITHUB_SHA", "main"))
            metadata["urls"] = {
                "Source": address,
                "Documentation": f"{address}/tree/main/docs",
                "Changelog": f"{address}/blob/main/CHANGELOG.md",
                "Issues": f"{address}/issues",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def address_of(environment: Mapping[str, str]) -> str:
    """Return the repository's address on GitHub, or "" elsewhere."""
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY")
    parts = [environment.get(name, "") for name in names]
    return "/".join(parts) if all(parts) else ""
