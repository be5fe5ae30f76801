"""The links of the documents lead somewhere, and the README is short."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
DOCUMENTS += (ROOT / ".github").glob("*.md")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_the_documents_lead_to_files(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#")):
            assert (path.parent / target.partition("#")[0]).exists(), target


def test_readme_is_short_and_has_one_line_that_runs_the_tests():
    code = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    lines = [line for block in code for line in block.splitlines()]
    assert sum("pytest" in line for line in lines) == 1
    assert 600 <= len(README.split()) <= 800
