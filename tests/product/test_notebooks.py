"""The notebooks of docs/ run from top to bottom, and say what the multiplier did."""

from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.slow,
    # asyncio and the kernel's sockets, when all is over.
    pytest.mark.filterwarnings("default"),
]
FOLDER = Path(__file__).parents[2] / "docs/notebooks"


def test_there_are_notebooks():
    assert len(list(FOLDER.glob("*.ipynb"))) == 2


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebook_runs(path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    for needed in ("ipykernel", "equinox", "sklearn", "matplotlib"):
        pytest.importorskip(needed)
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel's own draws into cells
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parents[1]))
    book = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3").execute()
    printed = [
        output["text"]
        for cell in book.cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "stream" and output["name"] == "stdout"
    ]
    assert any("rate x" in text and "best estimate x" in text for text in printed)
    drawn = [
        output
        for cell in book.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(drawn) == 2  # rate, multiplier and loss of each loop
