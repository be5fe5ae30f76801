"""Tables show what stands in their cells, and nothing that the cells would do."""

import pytest

from metalr.runtime.console import print_table

pytestmark = pytest.mark.fast

CELLS = {
    "[bold]x": "[bold]x",
    "[/]": "[/]",
    ":smile: 😀": ":smile: 😀",
    "größer": "größer",
    "\x1b[2Jx\ny": r"\x1b[2Jx\ny",
}


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_is_printed_as_it_is(cell, capsys):
    print_table(("class", "rows"), [(cell, "1")])
    *_, line, _ = capsys.readouterr().out.splitlines()
    assert line.split("   ")[0].strip() == CELLS[cell]
