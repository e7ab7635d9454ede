from __future__ import annotations

import io
import json
import sys

import pytest

from tim_async.cli.output import console_for, make_table, plain, show, show_json


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_whole_lines_without_colour(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the width of a row, and the environment's settings for terminals."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    table = make_table({"Id": "text", "Count": "count"}, [("x" * 500, 1)])
    show(table, "y" * 300)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "x" * 500 + "      1"
    assert lines[3] == "y" * 300
    assert "\x1b" not in "".join(lines)


def test_a_terminal_loses_no_part_of_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long text is folded onto the next line."""
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    table = make_table({"Id": "text", "Count": "count"}, [("abcdefghij" * 10, 1)])
    console_for(terminal).print(table)
    assert terminal.getvalue().count("abcdefghij"[0]) == 10
    assert "…" not in terminal.getvalue()


def test_data_is_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = make_table({"Name": "text"}, [("[bold]x[/bold] :smile: [/]",)])
    show(table, "[red]line")
    assert "[bold]x[/bold] :smile: [/]" in (out := capsys.readouterr().out)
    assert "[red]line" in out


def test_the_kinds_of_cells(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers are aligned to the right; a cell may be empty, and the last ones may be missing."""
    columns = {"id": "text", "seq": "number", "rows": "count", "/s": "rate", "part": "share", "": "text"}
    show(make_table(columns, [("a\x1b", 1234, 12_345_678, 1234.56, 0.25, "note"), ("b", "-", 0.5, None)]))
    _, _, *lines = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in lines] == [
        "a\\x1b  1234  12,345,678  1,234.6   25%  note",
        "b         -         0.5",
    ]


def test_names_do_not_control_the_terminal() -> None:
    """Control characters are escaped; joined emoji and all scripts are unchanged."""
    assert plain("a\x1b[2Jb\nc\r\u2028") == "a\\x1b[2Jb\\nc\\r\\u2028"
    assert plain("陈 보라 👨‍👩‍👧 é") == "陈 보라 👨‍👩‍👧 é"


def test_json_where_there_is_no_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    """Escapes keep the JSON equal, and every stream can encode them."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    show_json({"name": "陈💜"})
    assert json.loads(raw.getvalue().decode("ascii")) == {"name": "陈💜"}
