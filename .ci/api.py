"""Build the API pages from the docstrings: python .ci/api.py [FOLDER]."""

import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc

import metalr


def main() -> None:
    """Write a page for each module, and fail if a public name has no page."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/api")
    for name in metalr.__all__:  # resolve what is imported lazily
        setattr(metalr, name, getattr(metalr, name))
    warnings.filterwarnings("error", message=".*does not resolve")
    pdoc.render.configure(docformat="google")
    # `__all__` names no submodules, so they are named here; a package adds its own.
    modules = [
        f"metalr.{module.name}" for module in pkgutil.iter_modules(metalr.__path__)
    ]
    modules.remove("metalr.__main__")
    pdoc.pdoc("metalr", *modules, output_directory=folder)
    print(f"{folder}/index.html: {len([*folder.rglob('*.html')])} pages")


if __name__ == "__main__":
    main()
