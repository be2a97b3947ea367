"""A report, as Markdown and as one HTML page that needs nothing else: no script, no font, no network."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

from shieldguard.evaluation.drawing import Chart


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`head` and each row have as many cells. `marked`: rows that stand out."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """`says` stands above its charts and tables, each a paragraph, with code in backticks. Charts are only in
    the HTML."""

    title: str
    says: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One figure to see first."""

    name: str
    value: str
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    over: str
    title: str
    lead: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]


def markdown(document: Document) -> str:
    parts = [f"# {document.title}: {document.over}", document.lead]
    parts.append("\n".join(f"* {tile.name}: **{tile.value}** ({tile.says})" for tile in document.tiles))
    for section in document.sections:
        parts += [f"## {section.title}", *section.says]
        parts += [grid(table.head, table.rows) for table in section.tables]
    return "\n\n".join(part for part in parts if part) + "\n"


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown: names on the left, figures on the right."""
    align = ["---", *["--:"] * (len(head) - 1)]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in (head, align, *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def page(title: str, style: str, body: str) -> str:
    """A page of HTML; `title` is text."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>\n{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def with_code(text: str) -> str:
    """Escaped, and what stands in backticks as code."""
    first, *rest = escape(text).split("`")
    marks = ("<code>", "</code>")
    return first + "".join(marks[at % 2] + part for at, part in enumerate(rest))


def html(document: Document) -> str:
    style = resources.files(__package__).joinpath("document.css").read_text(encoding="utf-8")
    tiles = "".join(
        f"<div>{escape(tile.name)}<b>{escape(tile.value)}</b><small>{escape(tile.says)}</small></div>"
        for tile in document.tiles
    )
    body = "\n".join(
        [
            f'<header><p class="over">{escape(document.over)}</p>',
            f"<h1>{escape(document.title)}</h1>",
            f'<p class="lead">{escape(document.lead)}</p></header>',
            f'<div class="tiles">{tiles}</div>',
            *map(_section, document.sections),
        ]
    )
    return page(f"{document.title}: {document.over}", style, body)


def _section(section: Section) -> str:
    charts = "".join(
        f"<figure>{chart.svg()}<figcaption>{escape(chart.says)}</figcaption></figure>"
        for chart in section.charts
    )
    return "\n".join(
        [
            f"<section><h2>{escape(section.title)}</h2>",
            *(f"<p>{with_code(line)}</p>" for line in section.says),
            f'<div class="charts">{charts}</div>' if charts else "",
            *map(_table, section.tables),
            "</section>",
        ]
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    rows = []
    for number, (first, *rest) in enumerate(table.rows):
        mark = ' class="marked"' if number in table.marked else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        rows.append(f"<tr{mark}><th>{escape(first)}</th>{cells}</tr>")
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )
