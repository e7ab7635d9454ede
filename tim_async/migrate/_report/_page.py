"""The page of the report: headline, figures, charts, failures and sessions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from importlib import resources
from itertools import islice, pairwise
from pathlib import PureWindowsPath
from typing import Any

from tim_async._codes import explanations
from tim_async.migrate._notes import Notes
from tim_async.migrate._recorder import Slot, quantile
from tim_async.migrate._store import Calls, FailureCount, Problem, Session, Status

from ._charts import bar, charts, swatch
from ._headline import ENDS, DryRun, dry_run_headline, headline_of, last_seen, were
from ._timeline import SHORTEST, Panel, lay_out
from ._words import NOTHING, clock, duration, latency, rate, safe, share

_KINDS = {"unread": "Migration of unread counts", "read": "Migration of read conversations"}

_MAX_LISTED = 1000
"""The maximum number of rejected rows that a page lists."""

# The page is self-contained; its policy makes the browser fetch nothing, whatever a migration's text contains.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="robots" content="noindex">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def render(status: Status, notes: Notes | None = None, *, dry_run: DryRun | None = None) -> str:
    """Return a self-contained HTML page about a migration.

    The same status gives the same page, to the byte: its times are those of the store.

    Args:
        status: the status of the migration, see `read_status`.
        notes: the source's notes on the rows.
        dry_run: the results of a dry run; None for a migration.

    Returns:
        HTML without scripts and external references; to be written as UTF-8.
    """
    headline = headline_of(status) if dry_run is None else dry_run_headline(status, dry_run)
    kind = _KINDS.get(status.kind, f"Migration of {status.kind}") + ("" if dry_run is None else ", dry run")
    source = "standard input" if status.source == "-" else PureWindowsPath(status.source).name
    subject = " · ".join(part for part in (kind, source, status.name) if part)
    noted = "".join(f"<li>{safe(sentence)}.</li>" for sentence in notes.sentences()) if notes is not None else ""
    parts = [
        f'<header class="{headline.tone}"><p class="what">{safe(subject)}</p>'
        f"<h1>{safe(headline.title)}</h1><p class=said>{safe(headline.summary)}</p></header>",
        _states(status, dry=dry_run is not None),
        _section("Worth checking", noted, "ul", "notes"),
    ]
    if dry_run is None:
        panels = lay_out(status.sessions)
        parts += [_run(status.sessions), _over_time(status.sessions, panels)]
    parts.append(_failures(status.failures, "Rows that did not arrive" if dry_run is None else "Why rows are rejected"))
    if dry_run is not None:
        parts += [_rejected(dry_run.rejected, status.counts.rejected), _first(dry_run.first)]
    parts += [_sessions(status), _workers(status), _about(status)]
    title = safe(f"{headline.title} · {source}")
    files = (resources.files("tim_async").joinpath("_style.css"), resources.files(__package__).joinpath("style.css"))
    style = "".join(file.read_text(encoding="utf-8") for file in files)
    return _PAGE.format(title=title, style=style, body="\n".join(part for part in parts if part))


def _states(status: Status, *, dry: bool) -> str:
    """Return the rows by state: a bar and a table."""
    counts, read = status.counts, status.kind == "read"
    left = "Valid." if dry else "Not settled yet."
    if counts.sending:
        when = "under way" if status.running else "under way when the run ended; sent again by the next"
        left += f" Of these {counts.sending:,} {were(counts.sending)} {when}."
    member = "conversation" if read else "member"
    found = [
        ("Taken", "done", counts.taken, "The service accepted them."),
        ("of these lowered", "lowered", counts.lowered, "Above the group's messages; the service lowers it to that."),
        (
            "Superseded",
            "superseded",
            counts.superseded,
            f"A later row is for the same {member}; only the last is sent.",
        ),
        ("Failed", "failed", counts.failed, f"The service refused {'' if read else 'or would ignore '}them."),
        ("Rejected", "rejected", counts.rejected, "Invalid; never sent."),
        ("To be sent" if dry else "Left", "left", counts.left, left),
    ]
    # Conversations are never lowered, and a dry run has no answers.
    absent = {"done", "lowered", "failed"} if dry else {"lowered"} if read else set()
    found = [one for one in found if one[1] not in absent or one[2]]
    lines = "".join(
        f'<tr class="{colour}{"" if count else " zero"}"><th scope="row">{swatch("area", colour)} {name}</th>'
        f"<td class=n>{count:,}</td><td class=n>{share(count, counts.total)}</td><td class=why>{why}</td></tr>"
        for name, colour, count, why in found
    )
    shown = [(colour, counts.done if colour == "done" else count) for _, colour, count, _ in found]
    summary = "Rows by state: " + ", ".join(f"{name.lower()} {count:,}" for name, _, count, _ in found)
    return (
        f'<section>{bar(shown, summary)}<table class="states"><thead><tr><th>State</th><th class=n>Rows</th>'
        '<th class=n>Share</th><th class=why>What it means</th></tr></thead><tbody><tr class="sum">'
        f'<th scope="row">All rows</th><td class=n>{counts.total:,}</td><td></td><td></td></tr>{lines}</tbody></table>'
        "</section>"
    )


def _lasted(session: Session) -> float:
    return max(0.0, last_seen(session) - session.started)


def _sending(session: Session) -> float:
    """Return the seconds from the first request to the last answer, but not less than the calls take at the limit.

    A call counts toward the limit for a second, which has only begun when the last call ends.
    """
    series = session.series
    if series is None or not series.slots:
        return _lasted(session)
    return max(series.seconds, session.calls.done / series.limit if series.limit else 0.0)


def _run(sessions: Sequence[Session]) -> str:
    """Return the figures of the run; the requests are the sessions' own counts, which the series may lack."""
    calls = Calls(*(sum(getattr(one.calls, name.name) for one in sessions) for name in fields(Calls)))
    seconds = sum(map(_sending, sessions))
    timed = [(one, one.series) for one in sessions if one.series is not None and one.series.limit]
    allowed = sum(series.limit * _sending(one) for one, series in timed)
    done = sum(one.calls.done for one, _ in timed)
    took = Slot.sum(slot for one in sessions if one.series for slot in one.series.slots).took
    several = f"in {len(sessions):,} sessions, pauses left out" if len(sessions) > 1 else ""
    median, p95, p99 = (latency(quantile(took, q)) for q in (0.5, 0.95, 0.99))
    figures = [
        ("Duration", duration(sum(map(_lasted, sessions))) if sessions else NOTHING, several),
        (
            "Mean rate",
            f"{rate(calls.done / seconds)}/s" if seconds > SHORTEST else NOTHING,
            f"{share(done, allowed)} of the limit, outages included" if allowed else "",
        ),
        ("Median latency", median, f"95% within {p95}, 99% within {p99}" if took else ""),
        ("Requests", f"{calls.sent:,}", f"{calls.done:,} succeeded"),
        ("Refused", f"{calls.refused:,}", f"{share(calls.refused, calls.sent)}, over the rate"),
        ("Faults", f"{calls.faults:,}", f"{share(calls.faults, calls.sent)}, all other failures"),
        ("Retried", f"{calls.retried:,}", f"{share(calls.retried, calls.sent)}, repeats of a request"),
        ("Sent again", f"{calls.again:,}", "rows under way when a run was killed"),
    ]
    tiles = "".join(
        f"<div><dt>{name}</dt><dd><span class=big>{value}</span>{f'<small>{more}</small>' if more else ''}</dd></div>"
        for name, value, more in figures
    )
    return _section("The run", tiles, "dl", "figures")


def _over_time(sessions: Sequence[Session], panels: Sequence[Panel]) -> str:
    if not panels:
        text = "No measurements were kept." if sessions else "Nothing was sent."
        return _section("Over time", text, "p", "none")
    spans = f"{clock(panels[0].start)} to {clock(panels[-1].end)} UTC."
    pauses = [max(0.0, after.start - before.end) for before, after in pairwise(panels)]
    if pauses:
        lengths = " to ".join(dict.fromkeys((duration(min(pauses)), duration(max(pauses)))))
        spans += f" The sessions stand side by side, by number; {lengths} of pause between them left out."
    return _section("Over time", f'<p class="note span">{spans}</p>{charts(panels)}')


def _failures(failures: Sequence[FailureCount], title: str) -> str:
    """Return the failed and rejected rows by code or field, and an explanation of each known code."""
    lines = [
        (_state(failure), f"{failure.rows:,}", f"{failure.first_line:,}", safe(failure.reason)) for failure in failures
    ]
    explained = "".join(f"<li>{safe(line)}</li>" for line in explanations(failure.code for failure in failures))
    table = _table(("State", "Rows#", "First line#", "One example"), lines)
    return _section(title, table + (f'<ul class="notes">{explained}</ul>' if explained else ""))


def _state(failure: FailureCount) -> str:
    if failure.rejected:
        return "rejected"
    return "failed" if failure.code is None else safe(f"failed, {failure.code}")


def _rejected(rejected: Iterable[Problem], total: int) -> str:
    lines = [
        (f"{problem.line:,}", safe(problem.reason), _fields(problem.fields))
        for problem in islice(rejected, _MAX_LISTED)
    ]
    rest = total - len(lines)
    more = f"<p class=none>And {rest:,} more: the rejected file has all of them.</p>" if lines and rest > 0 else ""
    return _section("Rejected rows", _table(("Line", "Reason", "Row"), lines) + more)


def _first(first: Sequence[Mapping[str, Any]]) -> str:
    lines = [(f"{number:,}", _fields(row)) for number, row in enumerate(first, 1)]
    return _section("The first requests", _table(("Number", "What is sent"), lines))


def _fields(row: Mapping[str, Any]) -> str:
    return " ".join(
        f"<span class=field><small>{safe(name)}</small> {safe(str(value))}</span>" for name, value in row.items()
    )


def _sessions(status: Status) -> str:
    last = len(status.sessions)
    lines = []
    for number, session in enumerate(status.sessions, 1):
        running = status.running and number == last
        ends = ENDS | {"done": "finished", "": "running" if running else "killed"}
        seconds, after = _sending(session), clock(last_seen(session))
        lines.append(
            (
                f"{number}. {clock(session.started)}",
                (NOTHING if running else f"after {after}") if session.ended is None else after,
                safe(ends.get(session.how, session.how)),
                duration(_lasted(session)),
                f"{session.calls.sent:,}",
                rate(session.calls.done / seconds if seconds > SHORTEST else None),
            )
        )
    titles = ("Started, UTC", "Ended, UTC:", "Outcome", "Duration#", "Requests#", "Rows/s#")
    return _section("Sessions", _table(titles, lines))


def _workers(status: Status) -> str:
    lines = [
        (
            f"<span class=name>{safe(worker.name)}</span>",
            safe(worker.how.replace("_", " ") or ("at work" if worker.working else "silent")),
            f"{worker.rows:,}",
            f"{duration(worker.seen)} ago",
        )
        for worker in status.workers
    ]
    return _section("Workers", _table(("Worker", "State", "Rows#", "Last seen#"), lines))


def _about(status: Status) -> str:
    """Return the source and the destination of the migration."""
    found = [
        ("File", "standard input" if status.source == "-" else status.source),
        ("Read as", _read_as(status.arguments)),
        ("Kept in", " ".join(part for part in (status.journal, status.name) if part)),
        ("App", f"SDKAppID {status.sdk_app_id}" if status.sdk_app_id else "not known yet"),
        ("Service", status.base_url),
    ]
    lines = "".join(f"<dt>{name}</dt><dd>{safe(value)}</dd>" for name, value in found if value)
    return _section("What was migrated", lines, "dl", "about")


def _read_as(arguments: Mapping[str, Any]) -> str:
    """Return the arguments of the source that were given."""
    texts = []
    for name, given in arguments.items():  # of any type: the source may be the user's own
        word = {"columns": "from", "id_formats": "as"}.get(name)
        if word and isinstance(given, Mapping):
            texts += [f"{field} {word} {value}" for field, value in given.items()]
        elif given:
            texts.append(str(given) if name == "format" else f"{name.replace('_', ' ')} {given}")
    return ", ".join(texts) or "detected from its name and content"


def _section(title: str, inside: str, tag: str = "", classes: str = "") -> str:
    """Return a section with a heading; "" without content."""
    body = f'<{tag} class="{classes}">{inside}</{tag}>' if tag else inside
    return f"<section><h2>{title}</h2>{body}</section>" if inside else ""


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table; "" without rows.

    Args:
        titles: the titles of the columns.  "#" at the end marks a column of numbers; "#" or ":" shows the title before
            each cell on a phone, where the table has no head.
        lines: the rows, as HTML cells.
    """
    if not lines:
        return ""
    kinds = [" class=n" if title.endswith("#") else "" for title in titles]
    names = [title.rstrip("#:") for title in titles]
    head = "".join(f"<th{kind}>{name}</th>" for kind, name in zip(kinds, names, strict=True))
    labels = [
        kind + (f' data-is="{name.lower().partition(",")[0]}"' if name != title else "")
        for kind, name, title in zip(kinds, names, titles, strict=True)
    ]
    body = "".join(
        "<tr>" + "".join(f"<td{label}>{cell}</td>" for label, cell in zip(labels, line, strict=True)) + "</tr>"
        for line in lines
    )
    return f"<table class=list><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
