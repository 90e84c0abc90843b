"""The report of a map as PDF, on A4, drawn by ReportLab."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import (
    Flowable,
    Image,
    KeepTogether,
    ListFlowable,
    ListItem,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    TableStyle,
)
from reportlab.platypus import Table as PdfTable

from weedseg.maps.page import Number, Page, Picture, Section, Table

_FONT, _BOLD = "DejaVuSans", "DejaVuSans-Bold"
_MARGIN = 17 * mm
_WIDTH = A4[0] - 2 * _MARGIN
_INK, _QUIET, _LINE = HexColor("#1d2327"), HexColor("#57606a"), HexColor("#d9dedb")
_GREEN, _AMBER, _CREAM, _HEAD = (HexColor(c) for c in ("#009e73", "#e69f00", "#fff3d6", "#f6f8f6"))
_NUMBERS_A_ROW = 3

_TEXT = ParagraphStyle("text", fontName=_FONT, fontSize=9, leading=13, textColor=_INK)
_LEAD = ParagraphStyle("lead", _TEXT, keepWithNext=1)
_SMALL = ParagraphStyle("small", _TEXT, fontSize=7.8, leading=11, textColor=_QUIET)
_CELL = ParagraphStyle("cell", _TEXT, fontSize=7.8, leading=10.5)
_RIGHT = ParagraphStyle("right", _CELL, alignment=2)
_STRONG = ParagraphStyle("strong", _CELL, fontName=_BOLD)
_STRONG_RIGHT = ParagraphStyle("strong right", _STRONG, alignment=2)
_VALUE = ParagraphStyle("value", _TEXT, fontName=_BOLD, fontSize=13, leading=17)
_TITLE = ParagraphStyle("title", _TEXT, fontName=_BOLD, fontSize=17, leading=22)
_CHAPTER = ParagraphStyle(
    "chapter",
    _TEXT,
    fontName=_BOLD,
    fontSize=12,
    leading=16,
    spaceBefore=14,
    spaceAfter=5,
    keepWithNext=1,
)


def render_pdf(page: Page) -> bytes:
    """Return a report as a PDF file; the same page gives the same bytes."""
    _register_fonts()
    buffer = io.BytesIO()
    document = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=16 * mm,
        bottomMargin=18 * mm,
        initialFontName=_FONT,
        title=page.title,
        author="weedseg",
        lang="en",
        invariant=1,
    )

    def foot(canvas: Any, _: Any) -> None:
        canvas.setFont(_FONT, 7.5)
        canvas.setFillColor(_QUIET)
        canvas.drawString(_MARGIN, 10 * mm, page.title[:100])
        canvas.drawRightString(A4[0] - _MARGIN, 10 * mm, f"page {canvas.getPageNumber()}")

    document.build(list(_story(page)), onFirstPage=foot, onLaterPages=foot)
    return buffer.getvalue()


def _register_fonts() -> None:
    """Make the font of the figures known, which has the letters of most languages."""
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    for name in (_FONT, _BOLD):
        if name not in pdfmetrics.getRegisteredFontNames():
            pdfmetrics.registerFont(TTFont(name, str(folder / f"{name}.ttf")))
    pdfmetrics.registerFontFamily(_FONT, normal=_FONT, bold=_BOLD, italic=_FONT, boldItalic=_BOLD)


def _story(page: Page) -> Iterator[Flowable]:
    yield Paragraph(escape(page.title), _TITLE)
    yield Paragraph(escape(page.subtitle), _SMALL)
    yield Spacer(0, 3 * mm)
    for warning in page.warnings:
        yield _warning(warning)
        yield Spacer(0, 2 * mm)
    yield Spacer(0, 2 * mm)
    yield _numbers(page.numbers)
    for section in page.sections:
        yield from _section(section)


def _warning(text: str) -> PdfTable:
    box = PdfTable([[Paragraph(escape(text), _TEXT)]], colWidths=[_WIDTH])
    box.setStyle(
        TableStyle(
            [
                ("BACKGROUND", (0, 0), (-1, -1), _CREAM),
                ("LINEBEFORE", (0, 0), (0, -1), 3, _AMBER),
                ("LEFTPADDING", (0, 0), (-1, -1), 9),
            ]
        )
    )
    return box


def _numbers(numbers: Sequence[Number]) -> PdfTable:
    cells = [
        [
            Paragraph(escape(n.name), _STRONG),
            Paragraph(escape(n.value), _VALUE),
            Paragraph(escape(n.meaning), _SMALL),
        ]
        for n in numbers
    ]
    missing = -len(cells) % _NUMBERS_A_ROW
    cells += [[] for _ in range(missing)]
    rows = [cells[i : i + _NUMBERS_A_ROW] for i in range(0, len(cells), _NUMBERS_A_ROW)]
    table = PdfTable(rows, colWidths=[_WIDTH / _NUMBERS_A_ROW] * _NUMBERS_A_ROW)
    table.setStyle(
        TableStyle(
            [
                ("GRID", (0, 0), (-1, -1), 0.5, _LINE),
                ("LINEABOVE", (0, 0), (-1, 0), 1.5, _GREEN),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("TOPPADDING", (0, 0), (-1, -1), 5),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 6),
            ]
        )
    )
    return table


def _section(section: Section) -> Iterator[Flowable]:
    """Yield a chapter; its title and first sentences stay with what comes next."""
    yield Paragraph(escape(section.title), _CHAPTER)
    shown = bool(section.table or section.pictures)
    for text in section.sentences:
        yield Paragraph(escape(text), _LEAD if shown else _TEXT)
    if section.table and section.table.rows:
        yield _table(section.table)
        yield Spacer(0, 2 * mm)
    for picture in section.pictures:
        yield _picture(picture)
        yield Spacer(0, 2 * mm)
    for text in section.notes:
        yield Paragraph(escape(text), _SMALL)
    if section.points:
        items: list[Any] = [
            ListItem(Paragraph(escape(text), _TEXT), spaceAfter=3) for text in section.points
        ]
        yield ListFlowable(
            items, bulletType="bullet", start="•", leftIndent=12, bulletOffsetY=1, bulletFontSize=9
        )


def _picture(picture: Picture) -> Flowable:
    width, height = ImageReader(io.BytesIO(picture.data)).getSize()
    scale = min(_WIDTH / width, picture.height_mm * mm / height)
    image = Image(io.BytesIO(picture.data), width * scale, height * scale, hAlign="LEFT")
    return KeepTogether([image, Paragraph(escape(picture.caption), _SMALL)])


def _table(table: Table) -> PdfTable:
    has_head = bool(table.head)
    rows = [[_swatch(colour), *row] for colour, row in zip(_colours(table), _cells(table))]
    if has_head:
        head = [Paragraph(escape(table.head[0]), _STRONG)]
        head += [Paragraph(escape(text), _STRONG_RIGHT) for text in table.head[1:]]
        rows.insert(0, ["", *head])
    drawn = PdfTable(rows, colWidths=_column_widths(table), repeatRows=int(has_head), hAlign="LEFT")
    style: list[Any] = [
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, _LINE),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("TOPPADDING", (0, 0), (-1, -1), 3),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
        ("LEFTPADDING", (0, 0), (0, -1), 0),
        ("RIGHTPADDING", (0, 0), (0, -1), 0),
    ]
    if has_head:
        style.append(("BACKGROUND", (0, 0), (-1, 0), _HEAD))
    drawn.setStyle(TableStyle(style))
    return drawn


def _cells(table: Table) -> Iterator[list[Paragraph]]:
    other = _RIGHT if table.head else _CELL
    for row in table.rows:
        yield [Paragraph(escape(text), other if i else _CELL) for i, text in enumerate(row)]


def _colours(table: Table) -> Sequence[str]:
    return table.swatches or [""] * len(table.rows)


def _swatch(colour: str) -> Flowable | str:
    if not colour:
        return ""
    square = PdfTable([[""]], colWidths=[8], rowHeights=[8])
    square.setStyle(
        TableStyle(
            [
                ("BACKGROUND", (0, 0), (-1, -1), HexColor(colour)),
                ("BOX", (0, 0), (-1, -1), 0.4, _QUIET),
            ]
        )
    )
    return square


def _column_widths(table: Table) -> list[float]:
    """Give each column what its longest text takes; the widest ones get less if need be."""
    swatch = 12.0 if table.swatches else 0.0
    columns = zip(*table.rows, *([table.head] if table.head else []))
    wanted = [
        max(pdfmetrics.stringWidth(text, _BOLD, _CELL.fontSize) for text in column) + 13
        for column in columns
    ]
    room, left = _WIDTH - swatch, len(wanted)
    widths = [0.0] * left
    for column in sorted(range(left), key=wanted.__getitem__):
        widths[column] = min(wanted[column], room / left)
        room, left = room - widths[column], left - 1
    return [swatch, *widths]
