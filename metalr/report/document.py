"""A page as a list of blocks, written as Markdown or as one HTML file."""

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Heading(NamedTuple):
    """A heading; level 1 is the title."""

    level: int
    text: str


class Text(NamedTuple):
    """A paragraph."""

    text: str


class Points(NamedTuple):
    """A list, one line a point."""

    points: Sequence[str]


class Table(NamedTuple):
    """A table; the first column is aligned left, the others right."""

    head: Sequence[str]
    cells: Sequence[Sequence[str]]
    strong: Sequence[str] = ()  # first cells of the lines to emphasise
    left: bool = False  # align all columns left: words, not numbers


class Picture(NamedTuple):
    """A PNG and its caption."""

    file: Path
    caption: str


Block = Heading | Text | Points | Table | Picture

# Fonts of the reader's machine; nothing is loaded from the network.
CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 72rem; margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; }
h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc; }
h3 { font-size: 1.05rem; margin-top: 1.8rem; }
p, li { max-width: 46rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; margin: .6rem 0;
  font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #e6e6e6; }
th { border-bottom: 1px solid #888; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child, .words th, .words td { text-align: left; }
.words td { white-space: normal; }
tr.strong { font-weight: 600; background: #f1f6fa; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
figcaption { font-size: .85rem; color: #555; max-width: 46rem; }
@media (max-width: 40rem) { th:first-child, td:first-child { position: sticky;
  left: 0; background: #fff; } tr.strong td:first-child { background: #f1f6fa; }
  figure { overflow-x: auto; } img { max-width: none; width: 44rem; }
  figcaption { position: sticky; left: 0; } ul { padding-left: 1.2rem; } }
@media print { body { max-width: none; font-size: 10pt; } table { font-size: 7pt; }
  .table { overflow: visible; } figure, tr { break-inside: avoid; }
  th, td { padding: .15rem .3rem; } h2, h3 { break-after: avoid; } }
"""


def to_markdown(blocks: Sequence[Block], folder: Path) -> str:
    """Return the page as Markdown, with pictures linked relative to `folder`."""
    return "\n\n".join(_markdown(block, folder) for block in blocks) + "\n"


def _markdown(block: Block, folder: Path) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {_md(text)}"
        case Text(text):
            return _md(text)
        case Points(points):
            return "\n".join(f"- {_md(point)}" for point in points)
        case Table(head, cells, strong, left):
            rule = ["---", *["---" if left else "--:"] * (len(head) - 1)]
            lines = [[_md(cell) for cell in head], rule]
            for line in cells:
                mark = "**" if line[0] in strong else ""
                lines.append([f"{mark}{_md(cell)}{mark}" for cell in line])
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Picture(file, caption):
            where = file.relative_to(folder).as_posix()
            return f"![{_md(caption)}]({where})"


def _md(text: str) -> str:
    """Escape text for Markdown, on one line.

    >>> print(_md("a|b *c* <i> my_model"))
    a\\|b \\*c\\* &lt;i> my\\_model
    """
    marked = re.sub(r"([\\`*_\[\]|#])", r"\\\1", " ".join(text.split()))
    return marked.replace("<", "&lt;")


def to_html(blocks: Sequence[Block]) -> str:
    """Return the page as one HTML file that includes its pictures."""
    title = next((b.text for b in blocks if isinstance(b, Heading)), "")
    body = "\n".join(map(_html, blocks))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _text(text: str) -> str:
    """Escape text for HTML.

    >>> _text("<b> & 95 %").encode("ascii", "xmlcharrefreplace")
    b'&lt;b&gt; &amp; 95&#160;%'
    """
    return html.escape(text).replace(" %", "\u00a0%")  # do not break before the sign


def _html(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"<h{level}>{_text(text)}</h{level}>"
        case Text(text):
            return f"<p>{_text(text)}</p>"
        case Points(points):
            lines = "".join(f"<li>{_text(point)}</li>" for point in points)
            return f"<ul>{lines}</ul>"
        case Table():
            return _html_table(block)
        case Picture(file, caption):
            coded = base64.b64encode(file.read_bytes()).decode()
            text = _text(caption)
            return (
                f'<figure><img src="data:image/png;base64,{coded}" alt="{text}">'
                f"<figcaption>{text}</figcaption></figure>"
            )


def _html_table(table: Table) -> str:
    line = lambda tag, cells: "".join(  # noqa: E731
        f"<{tag}>{_text(cell)}</{tag}>" for cell in cells
    )
    body = ""
    for cells in table.cells:
        mark = ' class="strong"' if cells[0] in table.strong else ""
        body += f"<tr{mark}>{line('td', cells)}</tr>\n"
    kind = ' class="words"' if table.left else ""
    return (
        f'<div class="table"><table{kind}><thead><tr>{line("th", table.head)}</tr>'
        f"</thead>\n<tbody>{body}</tbody></table></div>"
    )
