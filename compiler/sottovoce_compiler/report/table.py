"""Rows of text as a table: aligned plain text for files and pipes, drawn by rich on a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True, slots=True)
class Table:
    """A title, column heads, and rows of as many cells; a column of whole numbers aligns right."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def is_number(self, column: int) -> bool:
        """Whether every cell of a column is a whole number."""
        return all(row[column].isdecimal() for row in self.rows)

    def plain(self) -> str:
        """Monospaced text without a final newline; one line a row, columns two spaces apart."""
        lines = [self.heads, *self.rows]
        columns = range(len(self.heads))
        widths = [max(len(line[column]) for line in lines) for column in columns]
        numbers = [self.is_number(column) for column in columns]
        texts = [self.title] if self.title else []
        for line in lines:
            cells = (
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(line, widths, numbers, strict=True)
            )
            texts.append("  ".join(cells).rstrip())
        return "\n".join(texts)


def show(tables: Sequence[Table], stream: TextIO) -> None:
    """Writes the tables to `stream`, an empty line between them."""
    if not stream.isatty():
        stream.write("\n\n".join(table.plain() for table in tables) + "\n")
        return
    import rich.box
    import rich.console
    import rich.table
    import rich.text

    console = rich.console.Console(file=stream)
    for table in tables:
        drawn = rich.table.Table(title=table.title or None, title_justify="left", box=rich.box.SIMPLE_HEAD)
        for column, head in enumerate(table.heads):
            drawn.add_column(head, justify="right" if table.is_number(column) else "left")
        for row in table.rows:
            drawn.add_row(*(rich.text.Text(cell) for cell in row))
        console.print(drawn)
