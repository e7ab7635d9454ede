from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tim_async.migrate import READ, UNREAD
from tim_async.migrate._columns import Columns, paths_in
from tim_async.migrate._rows import BadField

NAMES = ["GroupId", "Member_Account", "UnreadMsgNum"]


def unread(paths: dict[str, str] | None = None, templates: dict[str, str] | None = None) -> Columns:
    return Columns(UNREAD, paths or {}, templates or {})


def formatted(columns: Columns, **found: Any) -> dict[str, Any]:
    columns.apply_templates(found)
    return found


# Invalid options


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ({"groupid": "x"}, "unknown field 'groupid'; the fields are GroupId, Member_Account, UnreadMsgNum"),
        ({"": "x"}, "unknown field ''"),
        ({"MsgReadTime": "x"}, "unknown field 'MsgReadTime'"),
        ({"GroupId": ""}, "GroupId needs the name of a column"),
    ],
)
def test_invalid_columns(paths: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unread(paths)


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ({"UnreadMsgNum": "{}"}, "'UnreadMsgNum' is not an id; the ids are GroupId, Member_Account"),
        ({"room": "{}"}, "'room' is not an id"),
        ({"GroupId": ""}, "needs a {} for the id"),
        ({"GroupId": "room"}, "needs a {} for the id"),
        ({"GroupId": "{{}}"}, "needs a {} for the id"),
        ({"GroupId": "room_{"}, "cannot be parsed"),
        ({"GroupId": "room_}"}, "cannot be parsed"),
        ({"GroupId": "{a"}, "cannot be parsed"),
        ({"GroupId": "{}}"}, "cannot be parsed"),
        ({"GroupId": "{:>8}"}, "without formats"),
        ({"GroupId": "{!r}"}, "without formats"),
        ({"GroupId": "{a:{b}}"}, "without formats"),
        ({"Member_Account": "{}{a!s}"}, "the template of Member_Account may hold"),
    ],
)
def test_invalid_templates(templates: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unread(templates=templates)


# Headers


def problem_with(columns: Columns, header: list[str]) -> str:
    """Return the reason for which a header is refused, or ""."""
    try:
        columns.field_reader(header)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("columns", "header"),
    [
        (unread(), NAMES),
        (unread(), ["x", "UnreadMsgNum", "Member_Account", "", "", "x", "GroupId"]),
        (unread({"GroupId": "room.id"}), ["room.id", *NAMES[1:]]),
        (unread({"GroupId": "Member_Account", "Member_Account": "GroupId"}), NAMES),
        (unread(templates={"GroupId": "{team}_{room}"}), ["team", "room", *NAMES[1:]]),
        # A column that its own id's template does not use may be there several times.
        (unread(templates={"GroupId": "{team}"}), ["team", "GroupId", "GroupId", *NAMES[1:]]),
        (Columns(READ, {}, {}, until_now=True), ["Peer_Account", "Report_Account"]),
        (Columns(READ, {}, {}), ["Peer_Account", "Report_Account", "MsgReadTime"]),
        # Case, blanks and byte-order marks are ignored; an exact match is preferred.
        (unread(), ["\ufeffgroupid", " MEMBER_ACCOUNT\u00a0", "unreadmsgnum\u200b"]),
        (unread(), ["groupid", "GROUPID", *NAMES]),
        (unread({"GroupId": "Room"}), ["ROOM", *NAMES[1:]]),
    ],
)
def test_headers_that_fit(columns: Columns, header: list[str]) -> None:
    assert problem_with(columns, header) == ""
    assert columns.fit(header)


@pytest.mark.parametrize(
    ("columns", "header", "problem"),
    [
        (
            unread(),
            NAMES[:2],
            "has no column UnreadMsgNum; found 'GroupId', 'Member_Account'; name it with --map UnreadMsgNum=NAME",
        ),
        (unread(), ["Group", *NAMES[1:]], "has no column GroupId; found 'Group', 'Member_Account', 'UnreadMsgNum'"),
        (unread(), ["groupid", "GROUPID", *NAMES[1:]], "has two columns groupid and GROUPID"),
        (unread({"GroupId": "room"}), NAMES, "has no column room"),
        (unread(templates={"GroupId": "{team}_{}"}), NAMES, "has no column team"),
        (unread(templates={"GroupId": "{team}_{}"}), ["team", *NAMES[1:]], "has no column GroupId"),
        (
            unread(templates={"GroupId": "{team}", "Member_Account": "{GroupId}_{}"}),
            ["team", *NAMES[1:]],
            "has no column GroupId",
        ),
        (unread(), [*NAMES, "GroupId"], "has two columns GroupId"),
        (unread({"GroupId": "room"}), ["room", "room", *NAMES], "has two columns room"),
        (unread(templates={"GroupId": "{team}_{}"}), [*NAMES, "team", "team"], "has two columns team"),
        (
            Columns(READ, {}, {}),
            ["Report_Account", "Peer_Account", "MsgReadTime", "MsgReadTime"],
            "has two columns MsgReadTime",
        ),
        (
            Columns(READ, {}, {"Peer_Account": "{MsgReadTime}"}, until_now=True),
            ["Report_Account"],
            "has no column MsgReadTime",
        ),
    ],
)
def test_headers_that_do_not_fit(columns: Columns, header: list[str], problem: str) -> None:
    assert problem in problem_with(columns, header)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("MsgReadTime", "LastReadTime"),
        ("MsgReadTime", "MsgReadedTime"),
        ("MsgReadTime", "last_seen_at"),
        ("MsgReadTime", "viewed"),
        ("MsgReadTime", "ts"),
        ("MsgReadTime", None),
        ("Peer_Account", "contact_id"),
        ("Peer_Account", "to"),
        ("Report_Account", "user"),
    ],
)
def test_the_proposed_column(name: str, column: str | None) -> None:
    """Only a hint; columns that are not similar to the field are not proposed."""
    others = [other for other in ("Report_Account", "Peer_Account", "MsgReadTime") if other != name]
    problem = problem_with(Columns(READ, {}, {}), [*others, "unread", "total", "note", *([column] if column else [])])
    assert problem.startswith(f"has no column {name}; found ")
    assert f"; try --map {name}={column}" in problem if column else f"; name it with --map {name}=NAME" in problem
    assert ("--until-now" in problem) == (name == "MsgReadTime")


def test_each_column_is_proposed_for_one_field() -> None:
    problem = problem_with(unread(), ["room", "user", "unread"])
    for name, column in zip(NAMES, ("room", "user", "unread"), strict=True):
        assert f"; try --map {name}={column}" in problem


@pytest.mark.parametrize("column", ["Group Id", "group;id", "group$id", "group'id", 'group"id'])
def test_a_proposed_option_can_be_pasted_into_a_shell(column: str) -> None:
    proposed = problem_with(unread(), [column, *NAMES[1:]]).partition("; try ")[2]
    assert shlex.split(proposed) == ["--map", f"GroupId={column}"]


def test_a_column_that_cannot_be_typed_is_not_proposed() -> None:
    problem = problem_with(unread(), ["Group\nId", *NAMES[1:]])
    assert problem.endswith(r"found 'Group\nId', 'Member_Account', 'UnreadMsgNum'; name it with --map GroupId=NAME")


def test_a_long_header_is_shortened_in_the_error() -> None:
    problem = problem_with(unread(), ["x" * 1_000_000] * 13)
    assert problem.startswith("has no column GroupId, Member_Account, UnreadMsgNum; found 'xxx")
    assert len(problem) < 1000
    assert ", …;" in problem


def test_the_fields_of_a_record() -> None:
    columns = unread({"GroupId": "room"}, {"GroupId": "{team}_{}"})
    read = columns.field_reader(["x", "UnreadMsgNum", "team", "Member_Account", "room"])
    assert read(["1", "2", "3", "4", "5"]) == {
        "GroupId": "5",
        "Member_Account": "4",
        "UnreadMsgNum": "2",
        "team": "3",
    }


def test_an_optional_column_may_be_absent() -> None:
    read = Columns(READ, {}, {}, until_now=True).field_reader(["Report_Account", "Peer_Account"])
    assert read(["a", "b"]) == {"Report_Account": "a", "Peer_Account": "b"}


# Documents


@pytest.mark.parametrize(
    ("path", "document", "found"),
    [
        ("id", {"id": 7}, 7),
        ("id", {"id": None}, None),
        ("room.id", {"room": {"id": 7}}, 7),
        ("room.id", {"room.id": 7}, 7),
        ("room.id", {"room.id": 7, "room": {"id": 8}}, 7),
        ("members.1.id", {"members": [{"id": 7}, {"id": 8}]}, 8),
        ("members.01", {"members": [7, 8]}, 8),
        ("members.0", {"members": {"0": 7}}, 7),
        ("a..b", {"a": {"": {"b": 7}}}, 7),
        (".", {"": {"": 7}}, 7),
        ("$oid.", {"$oid.": 7}, 7),
        ("room.id", {"Room": {"ID": 7}}, 7),
        ("room.id", {"ROOM.id": 7}, 7),
        ("id", {" ID ": 8, "id": 7}, 7),
        ("id", {}, ...),
        ("id.x", {"id": 7}, ...),
        ("id.x", {"id": "x"}, ...),
        ("id.0", {"id": "x"}, ...),
        ("id.x", {"id": None}, ...),
        ("members.2", {"members": [7, 8]}, ...),
        ("members.-1", {"members": [7, 8]}, ...),
        ("members.\u0660", {"members": [7, 8]}, ...),
        ("members.1_0", {"members": [7] * 20}, ...),
        ("members.", {"members": [7, 8]}, ...),
        ("members." + "9" * 5000, {"members": [7, 8]}, ...),
    ],
)
def test_the_value_at_a_path(path: str, document: dict[str, Any], found: Any) -> None:
    """Fields and the columns in templates are found in the same way."""
    expected = {} if found is ... else {"GroupId": found}
    assert unread({"GroupId": path}).read_document(document) == expected
    others = unread(templates={"GroupId": f"{{{path}}}"})
    assert others.read_document(document) == ({} if found is ... else {path: found})


def test_two_names_that_differ_only_in_case_are_refused() -> None:
    """The value is ambiguous."""
    with pytest.raises(BadField, match=r"GroupId: is there twice, as 'groupid' and 'GROUPID'"):
        unread().read_document({"groupid": "a", "GROUPID": "b"})
    with pytest.raises(BadField, match=r"GroupId: is there twice"):
        unread({"GroupId": "room.id"}).read_document({"room": {"Id": "a", "iD": "b"}})


def test_the_paths_of_a_document() -> None:
    document = {"_id": {"$oid": "5f"}, "room": {"id": 7, "tags": []}, "ls": None, "members": [1]}
    assert list(paths_in(document)) == ["_id.$oid", "room.id", "ls"]


keys = st.text(st.characters(exclude_characters="."), max_size=4)
leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
documents: st.SearchStrategy[Any] = st.recursive(
    leaves, lambda part: st.lists(part, max_size=4) | st.dictionaries(keys, part, max_size=4)
)


@given(st.data())
def test_any_value_is_found_by_its_path(data: st.DataObject) -> None:
    document: dict[str, Any] = data.draw(st.dictionaries(keys, documents, min_size=1, max_size=4), "document")
    steps: list[str] = []
    value: Any = document
    while not steps or (isinstance(value, dict | list) and value and data.draw(st.booleans(), "deeper")):
        step = data.draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))), "step")
        steps.append(str(step))
        value = value[step]
    path = ".".join(steps)
    if path:
        assert unread({"GroupId": path}).read_document(document)["GroupId"] is value


# Templates


@pytest.mark.parametrize(
    ("template", "made"),
    [
        ("{}", "7"),
        ("@TGS#{}", "@TGS#7"),
        ("{}{}", "77"),
        ("{GroupId}", "7"),
        ("{team}_{}", "red_7"),
        ("{team}", "red"),
        ("{team}/{number}", "red/3"),
        ("{{{}}}", "{7}"),
        ("{:}", "7"),
        ("{a.b}-{}", "deep-7"),
        ("{Member_Account}-{}", "m-7"),
    ],
)
def test_a_template_makes_an_id(template: str, made: str) -> None:
    columns = unread(templates={"GroupId": template})
    found = {"GroupId": 7, "Member_Account": "m", "UnreadMsgNum": 1, "team": "red", "number": 3, "a.b": "deep"}
    assert formatted(columns, **found) == {**found, "GroupId": made}


def test_templates_use_the_values_that_were_read() -> None:
    """Not the results of other templates."""
    columns = unread(templates={"GroupId": "g_{}", "Member_Account": "{GroupId}_{}"})
    assert formatted(columns, GroupId="a", Member_Account="b") == {"GroupId": "g_a", "Member_Account": "a_b"}


@pytest.mark.parametrize("value", ["", None, ...])
def test_a_missing_id_is_not_made_by_a_template(value: Any) -> None:
    found = {} if value is ... else {"GroupId": value}
    assert formatted(unread(templates={"GroupId": "room_{}"}), **found) == found


@pytest.mark.parametrize("template", ["{team}_{}", "{team}", "{}{team}{also}"])
@pytest.mark.parametrize(("value", "how"), [("", "empty"), (None, "empty"), (..., "missing")])
def test_a_template_with_a_missing_value_makes_no_id(template: str, value: Any, how: str) -> None:
    """The field becomes empty, so that a rejected file without templates does not have a valid id."""
    found = {"GroupId": "7"} if value is ... else {"GroupId": "7", "team": value}
    with pytest.raises(BadField) as caught:
        unread(templates={"GroupId": template}).apply_templates(found)
    assert (caught.value.field, caught.value.reason) == ("GroupId", f"needs team, which is {how}")
    assert found["GroupId"] == ""


def test_other_ids_are_made_when_one_template_fails() -> None:
    found = {"GroupId": "7", "Member_Account": "8"}
    with pytest.raises(BadField):
        unread(templates={"GroupId": "{team}_{}", "Member_Account": "u_{}"}).apply_templates(found)
    assert found == {"GroupId": "", "Member_Account": "u_8"}


@pytest.mark.parametrize("value", [1.5, True, [], {}, [7], " 7", "7\n", "\u3000"])
def test_a_prefix_does_not_make_an_id_valid(value: Any) -> None:
    columns = unread(templates={"GroupId": "room_{}", "Member_Account": "{GroupId}_{}"})
    found = formatted(columns, GroupId=value, Member_Account="m", UnreadMsgNum=1)
    assert found["GroupId"] == found["Member_Account"] == value
    with pytest.raises(BadField):
        UNREAD.row(1, found)


@given(
    st.lists(st.text() | st.sampled_from(["{}", "{team}", "{number}"]), min_size=1, max_size=6),
    st.text(min_size=1).filter(lambda text: text == text.strip()),
    st.integers(),
)
def test_a_template_is_equivalent_to_format(parts: list[str], team: str, number: int) -> None:
    fields = {"{}": "own", "{team}": team, "{number}": str(number)}
    assume(fields.keys() & set(parts))
    template = "".join(part if part in fields else part.replace("{", "{{").replace("}", "}}") for part in parts)
    found = formatted(unread(templates={"GroupId": template}), GroupId="own", team=team, number=number)
    assert found["GroupId"] == "".join(fields.get(part, part) for part in parts)
