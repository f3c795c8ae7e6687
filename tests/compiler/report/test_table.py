import io

import pytest

from sottovoce_compiler.report.table import Table, show

TABLE = Table("title", ("name", "n", "word"), (("long name", "1", "one"), ("b", "22", "twelve")))


def test_plain_columns_align_and_lines_do_not_end_in_spaces() -> None:
    assert TABLE.plain().splitlines() == [
        "title",
        "name        n  word",
        "long name   1  one",
        "b          22  twelve",
    ]


def test_a_file_gets_plain_text() -> None:
    stream = io.StringIO()
    show([TABLE, TABLE], stream)
    assert stream.getvalue() == f"{TABLE.plain()}\n\n{TABLE.plain()}\n"


def test_a_terminal_gets_every_cell_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    show([Table("", ("text",), (("[bold]not markup",),))], stream)
    assert "[bold]not markup" in stream.getvalue()
