from __future__ import annotations

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


# What cannot be right


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ({"groupid": "x"}, "unknown field 'groupid'; the fields are GroupId, Member_Account, UnreadMsgNum"),
        ({"": "x"}, "unknown field ''"),
        ({"MsgReadTime": "x"}, "unknown field 'MsgReadTime'"),
        ({"GroupId": ""}, "GroupId needs the name of a column"),
    ],
)
def test_no_paths(paths: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        unread(paths)


@pytest.mark.parametrize(
    ("templates", "said"),
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
def test_no_templates(templates: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        unread(templates=templates)


# Headers


def problem_with(columns: Columns, header: list[str]) -> str:
    """Why a header does not fit; "" when it does."""
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
        # The column of an id that is made of others is of no use, and may be there as often as it likes.
        (unread(templates={"GroupId": "{team}"}), ["team", "GroupId", "GroupId", *NAMES[1:]]),
        (Columns(READ, {}, {}, until_now=True), ["Peer_Account", "Report_Account"]),
        (Columns(READ, {}, {}), ["Peer_Account", "Report_Account", "MsgReadTime"]),
        # Without case, blanks and byte-order marks; what is exactly right goes first.
        (unread(), ["\ufeffgroupid", " MEMBER_ACCOUNT\u00a0", "unreadmsgnum\u200b"]),
        (unread(), ["groupid", "GROUPID", *NAMES]),
        (unread({"GroupId": "Room"}), ["ROOM", *NAMES[1:]]),
    ],
)
def test_headers(columns: Columns, header: list[str]) -> None:
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
def test_no_headers(columns: Columns, header: list[str], problem: str) -> None:
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
def test_what_may_be_meant(name: str, column: str | None) -> None:
    """A hint, for a person to judge; names that have nothing to do with the field are none."""
    others = [other for other in ("Report_Account", "Peer_Account", "MsgReadTime") if other != name]
    problem = problem_with(Columns(READ, {}, {}), [*others, "unread", "total", "note", *([column] if column else [])])
    assert problem.startswith(f"has no column {name}; found ")
    assert f"; try --map {name}={column}" in problem if column else f"; name it with --map {name}=NAME" in problem
    assert ("--until-now" in problem) == (name == "MsgReadTime")


def test_a_name_is_meant_once() -> None:
    problem = problem_with(unread(), ["room", "user", "unread"])
    for name, column in zip(NAMES, ("room", "user", "unread"), strict=True):
        assert f"; try --map {name}={column}" in problem


def test_an_optional_column_that_was_named_must_be_there() -> None:
    """Or a slip of the pen would mark every conversation as read up to now, whatever its time was."""
    columns = Columns(READ, {"MsgReadTime": "last_raed"}, {}, until_now=True)
    assert columns.needed == {"Report_Account", "Peer_Account", "MsgReadTime"}
    problem = problem_with(columns, ["Report_Account", "Peer_Account", "last_read"])
    assert problem.startswith("has no column last_raed; found 'Report_Account', 'Peer_Account', 'last_read'")
    assert problem.endswith("; try --map MsgReadTime=last_read")
    assert Columns(READ, {"Report_Account": "me"}, {}, until_now=True).needed == {"Report_Account", "Peer_Account"}


def test_a_long_header_is_named_in_part() -> None:
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


def test_a_text_that_stands_for_nothing() -> None:
    """In a record as in a document, and only when it is all there is."""
    columns = Columns(UNREAD, {}, {}, "\\N")
    assert columns.field_reader(NAMES)(["\\N", "\\Nx", ""]) == dict(zip(NAMES, (None, "\\Nx", ""), strict=True))
    assert columns.read_document({"GroupId": "\\N", "UnreadMsgNum": 0}) == {"GroupId": None, "UnreadMsgNum": 0}


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
def test_paths(path: str, document: dict[str, Any], found: Any) -> None:
    """A field and a column that a template names are found alike."""
    expected = {} if found is ... else {"GroupId": found}
    assert unread({"GroupId": path}).read_document(document) == expected
    others = unread(templates={"GroupId": f"{{{path}}}"})
    assert others.read_document(document) == ({} if found is ... else {path: found})


def test_two_names_that_differ_in_case_only() -> None:
    """Which is meant is not for a program to say."""
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
def test_whatever_is_there_is_found_by_its_path(data: st.DataObject) -> None:
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
def test_templates(template: str, made: str) -> None:
    columns = unread(templates={"GroupId": template})
    found = {"GroupId": 7, "Member_Account": "m", "UnreadMsgNum": 1, "team": "red", "number": 3, "a.b": "deep"}
    assert formatted(columns, **found) == {**found, "GroupId": made}


def test_templates_are_made_of_what_was_read() -> None:
    """And not of one another."""
    columns = unread(templates={"GroupId": "g_{}", "Member_Account": "{GroupId}_{}"})
    assert formatted(columns, GroupId="a", Member_Account="b") == {"GroupId": "g_a", "Member_Account": "a_b"}


@pytest.mark.parametrize("value", ["", None, ...])
def test_an_id_that_is_not_there_stays_away(value: Any) -> None:
    """It is no id, with a prefix or without."""
    found = {} if value is ... else {"GroupId": value}
    assert formatted(unread(templates={"GroupId": "room_{}"}), **found) == found


@pytest.mark.parametrize("template", ["{team}_{}", "{team}", "{}{team}{also}"])
@pytest.mark.parametrize(("value", "how"), [("", "empty"), (None, "empty"), (..., "missing")])
def test_a_template_that_lacks_a_value(template: str, value: Any, how: str) -> None:
    """The id is empty then: written out and read again without the template, it may not pass for one."""
    found = {"GroupId": "7"} if value is ... else {"GroupId": "7", "team": value}
    with pytest.raises(BadField) as caught:
        unread(templates={"GroupId": template}).apply_templates(found)
    assert (caught.value.field, caught.value.reason) == ("GroupId", f"needs team, which is {how}")
    assert found["GroupId"] == ""


def test_the_other_ids_are_made_all_the_same() -> None:
    found = {"GroupId": "7", "Member_Account": "8"}
    with pytest.raises(BadField):
        unread(templates={"GroupId": "{team}_{}", "Member_Account": "u_{}"}).apply_templates(found)
    assert found == {"GroupId": "", "Member_Account": "u_8"}


@pytest.mark.parametrize("value", [1.5, True, [], {}, [7], " 7", "7\n", "\u3000"])
def test_what_is_no_id_by_itself_is_none_with_a_prefix(value: Any) -> None:
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
def test_a_template_does_what_format_does(parts: list[str], team: str, number: int) -> None:
    fields = {"{}": "own", "{team}": team, "{number}": str(number)}
    assume(fields.keys() & set(parts))
    template = "".join(part if part in fields else part.replace("{", "{{").replace("}", "}}") for part in parts)
    found = formatted(unread(templates={"GroupId": template}), GroupId="own", team=team, number=number)
    assert found["GroupId"] == "".join(fields.get(part, part) for part in parts)
