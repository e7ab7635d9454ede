"""The page: how it ended, the figures, the charts, the failures and the sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any, NamedTuple

from tim_async.migrate._recorder import Slot, quantile

from . import charts
from .style import STYLE
from .timeline import Timeline, lay_out
from .wording import NOTHING, clock, duration, latency, number, rate, rows, safe, share

if TYPE_CHECKING:
    from tim_async.migrate.events import Counts
    from tim_async.migrate.schema import FailureCount
    from tim_async.migrate.status import Session, Status

_KINDS = {"unread": "Migration of unread counts", "read": "Migration of read conversations"}

_ENDS = {
    "done": "finished",
    "interrupted": "interrupted",
    "limit": "stopped at a limit",
    "failed": "stopped by an error",
    "nothing_to_do": "nothing to do",
}

# Everything the page needs is in it; a browser is told to fetch nothing, whatever somebody's text holds.
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="robots" content="noindex">
<link rel="icon" href="data:,">
"""


class _Headline(NamedTuple):
    """How it stands, in a few words and in a sentence or two; and whether that is good, bad or open."""

    tone: str
    title: str
    said: str


def render(status: Status) -> str:
    """One self-contained HTML page about a migration.

    The same status gives the same page, to the byte: what it says of time is what the journal knows.

    Args:
        status: what the journal knows, see `read_status`.

    Returns:
        HTML that holds no script and refers to nothing outside; to be written as UTF-8.
    """
    headline = _headline(status)
    timeline = lay_out(status.sessions)
    total = Slot.sum(slot for session in status.sessions if session.series for slot in session.series.slots)
    kind = _KINDS.get(status.kind, f"Migration of {status.kind}")
    source = "standard input" if status.source == "-" else PureWindowsPath(status.source).name
    parts = [
        f'<header class="{headline.tone}"><p class="what">{safe(kind)} · {safe(source)}</p>',
        f"<h1>{safe(headline.title)}</h1><p class=said>{safe(headline.said)}</p></header>",
        _states(status),
        _run(status.sessions, timeline, total),
        _charts(status.sessions, timeline, total),
        _failures(status.failures),
        _sessions(status),
        _about(status),
    ]
    return (
        f"{_HEAD}<title>{safe(f'{headline.title} · {source}')}</title>\n<style>{STYLE}</style>\n</head>\n"
        "<body>\n<main>\n" + "\n".join(part for part in parts if part) + "\n</main>\n</body>\n</html>\n"
    )


def _headline(status: Status) -> _Headline:
    counts = status.counts
    if not status.planned:
        if status.running:
            return _Headline("open", "Still reading the file", f"{rows(counts.total)} so far; nothing is sent yet.")
        return _Headline("bad", "Nothing was sent", "It ended before the file was read to its end. Run it again.")
    if status.running:
        title = f"Still running, {rows(counts.left)} left"
        return _Headline("open", title, f"As of {_as_of(status)}. {_summary(counts)}")
    if not counts.total:
        return _Headline("open", "There were no rows", "The file holds none, so that nothing was sent.")
    if counts.left:
        how = status.sessions[-1].how if status.sessions else None
        begun = {
            "interrupted": "Interrupted",
            "limit": "Stopped at a limit",
            "failed": "Stopped by an error",
            "": "Cut off",
            None: "Not begun",
        }.get(how, "Not finished")
        why = "The run was killed, or its machine was. " if how == "" else ""
        title = f"{begun}, {rows(counts.left)} left"
        return _Headline("bad", title, f"{why}{_summary(counts)} The same command goes on where it ended.")
    if counts.errors:
        return _Headline("bad", f"{rows(counts.errors)} did not arrive", _summary(counts))
    return _Headline("good", "Every row arrived", _summary(counts))


def _summary(counts: Counts) -> str:
    """The rows in one or two sentences."""
    text = f"The service took {number(counts.taken)} of {rows(counts.total)}."
    more = []
    if counts.failed:
        more.append(f"{number(counts.failed)} failed")
    if counts.rejected:
        more.append(f"{number(counts.rejected)} could not be valid and {_were(counts.rejected)} never sent")
    if counts.superseded:
        by = "a later one" if counts.superseded == 1 else "later ones"
        more.append(f"{number(counts.superseded)} {_were(counts.superseded)} superseded by {by}")
    return f"{text} {', '.join(more)}." if more else text


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _as_of(status: Status) -> str:
    """The last moment that is known of."""
    return f"{clock(max((_last_seen(session) for session in status.sessions), default=0.0))} UTC"


def _last_seen(session: Session) -> float:
    if session.ended is not None:
        return session.ended
    series = session.series
    return session.started if series is None or not series.slots else series.started + series.seconds


def _states(status: Status) -> str:
    """The rows by state: a bar and a table."""
    counts = status.counts
    member = "conversation" if status.kind == "read" else "member"
    under_way = ""
    if counts.sending:
        when = "under way" if status.running else "under way when the run ended; sent again by the next"
        under_way = f" Of these {number(counts.sending)} {_were(counts.sending)} {when}."
    refused = "The service refused them." if status.kind == "read" else "The service refused or would ignore them."
    found = [
        ("Taken", "done", counts.taken, "The service took them."),
        (
            "of these lowered",
            "lowered",
            counts.lowered,
            "The number was above the group's messages; the service lowers it to that.",
        ),
        (
            "Superseded",
            "superseded",
            counts.superseded,
            f"A later row is for the same {member}; only the last one is sent.",
        ),
        ("Failed", "failed", counts.failed, refused),
        ("Rejected", "rejected", counts.rejected, "They cannot be valid; never sent."),
        ("Left", "left", counts.left, f"Their end is still to come.{under_way}"),
    ]
    lines = []
    for name, colour, count, why in found:
        if colour == "lowered" and status.kind == "read" and not count:
            continue  # there is no such thing
        classes = " ".join(name for name, wanted in (("part", colour == "lowered"), ("zero", not count)) if wanted)
        lines.append(
            f'<tr class="{classes}"><th scope="row">{charts.swatch("fill", colour)} {name}</th>'
            f"<td class=n>{number(count)}</td><td class=n>{share(count, counts.total)}</td>"
            f"<td class=why>{why}</td></tr>"
        )
    shown = [("done", counts.done), *((colour, count) for _, colour, count, _ in found[1:])]
    summary = "Rows by state: " + ", ".join(f"{name.lower()} {number(count)}" for name, _, count, _ in found)
    return (
        f'<section>{charts.bar(shown, summary)}<table class="states">'
        "<thead><tr><th>State</th><th class=n>Rows</th><th class=n>Share</th>"
        "<th class=why>What it means</th></tr></thead><tbody>"
        f'<tr class="sum"><th scope="row">All rows</th><td class=n>{number(counts.total)}</td><td></td><td></td></tr>'
        f"{''.join(lines)}</tbody></table></section>"
    )


def _run(sessions: Sequence[Session], timeline: Timeline, total: Slot) -> str:
    """The figures of the run."""
    lasted = sum(max(0.0, _last_seen(session) - session.started) for session in sessions)
    several = f"in {number(len(sessions))} sessions, pauses left out" if len(sessions) > 1 else ""
    figures = [("Duration", duration(lasted) if sessions else NOTHING, several)]
    series = [session.series for session in sessions if session.series is not None and session.series.slots]
    seconds = sum(one.seconds for one in series)
    allowed = sum(one.limit * one.seconds for one in series)
    usual = _median([cell.per_second(cell.slot.done) for cell in timeline.cells])
    figures += [
        (
            "Mean rate",
            f"{rate(total.done / seconds)}/s" if seconds else NOTHING,
            f"median {rate(usual)}/s" if seconds else "",
        ),
        ("Share of the limit", share(total.done, allowed), "outages included" if seconds else ""),
        ("Requests", number(total.sent), f"{number(total.done)} succeeded"),
        ("Refused", number(total.refused), f"{share(total.refused, total.sent)}, over the rate" if total.sent else ""),
        (
            "Faults",
            number(total.faults),
            f"{share(total.faults, total.sent)}, all other failures" if total.sent else "",
        ),
        ("Retried", number(total.retried), f"{share(total.retried, total.sent)}, repeats" if total.sent else ""),
        *((f"Latency, {name}", latency(quantile(total.took, q)), "") for name, q in charts.QUANTILES),
    ]
    tiles = "".join(
        f"<div><dt>{name}</dt><dd><span class=big>{value}</span>{f'<small>{more}</small>' if more else ''}</dd></div>"
        for name, value, more in figures
    )
    return f'<section><h2>The run</h2><dl class="figures">{tiles}</dl></section>'


def _median(values: Sequence[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None


def _charts(sessions: Sequence[Session], timeline: Timeline, total: Slot) -> str:
    if not timeline.panels:
        text = "No measurements were kept." if sessions else "Nothing was sent."
        return f'<section><h2>Over time</h2><p class="none">{text}</p></section>'
    first, last = timeline.panels[0], timeline.panels[-1]
    spans = f"{clock(first.start)} to {clock(last.end)} UTC."
    if len(timeline.panels) > 1:
        spans += f" The sessions stand side by side, by number; {_pauses(timeline)} left out."
    return (
        f'<section><h2>Over time</h2><p class="note span">{spans}</p>'
        + charts.rate_chart(timeline)
        + charts.trouble_chart(timeline)
        + charts.latency_chart(timeline)
        + charts.histogram_chart(total.took)
        + "</section>"
    )


def _pauses(timeline: Timeline) -> str:
    lengths = [max(0.0, after.start - before.end) for before, after in pairwise(timeline.panels)]
    if len(lengths) == 1:
        return f"the pause of {duration(lengths[0])} between them is"
    return f"the pauses between them, {duration(min(lengths))} to {duration(max(lengths))}, are"


def _failures(failures: Sequence[FailureCount]) -> str:
    """The failed and rejected rows by code or field."""
    if not failures:
        return ""
    lines = [
        f"<tr><td class=code>{_what(failure)}</td><td class=n data-is=rows>{number(failure.rows)}</td>"
        f"<td class=n data-is=line>{number(failure.first_line)}</td>"
        f"<td class=reason>{safe(failure.reason)}</td></tr>"
        for failure in failures
    ]
    return (
        "<section><h2>Rows that did not arrive</h2><table class=failures><thead><tr><th>What</th><th class=n>Rows</th>"
        f"<th class=n>First line</th><th class=reason>One example</th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></section>"
    )


def _what(failure: FailureCount) -> str:
    if failure.rejected:
        return "rejected"
    return "failed" if failure.code is None else safe(f"failed, {failure.code}")


def _sessions(status: Status) -> str:
    if not status.sessions:
        return ""
    last = len(status.sessions)
    lines = [_session(at, session, status.running and at == last) for at, session in enumerate(status.sessions, 1)]
    return (
        '<section><h2>Sessions</h2><table class="sessions"><thead><tr><th>Started, UTC</th><th>Ended, UTC</th>'
        f"<th>How</th><th class=n>Lasted</th><th class=n>Rows/s</th></tr></thead><tbody>{''.join(lines)}</tbody>"
        "</table></section>"
    )


def _session(at: int, session: Session, running: bool) -> str:
    series = session.series
    seconds = series.seconds if series is not None else 0.0
    mean = sum(slot.done for slot in series.slots) / seconds if series is not None and seconds else None
    how = _ENDS.get(session.how, session.how) or ("running" if running else "killed")
    ended = (
        clock(session.ended)
        if session.ended is not None
        else NOTHING
        if running
        else f"after {clock(_last_seen(session))}"
    )
    return (
        f"<tr><td class=begin>{at}. {clock(session.started)}</td><td class=end data-is=ended>{ended}</td>"
        f"<td>{safe(how)}</td>"
        f"<td class=n data-is=lasted>{duration(max(0.0, _last_seen(session) - session.started))}</td>"
        f'<td class=n data-is="rows/s">{rate(mean)}</td></tr>'
    )


def _about(status: Status) -> str:
    """What was migrated, and where to."""
    found = [
        ("File", "standard input" if status.source == "-" else status.source),
        ("Read as", _read_as(status.arguments)),
        ("App", f"SDKAppID {status.sdk_app_id}"),
        ("Service", status.base_url),
    ]
    lines = "".join(f"<dt>{name}</dt><dd>{safe(value)}</dd>" for name, value in found)
    return f'<section><h2>What was migrated</h2><dl class="about">{lines}</dl></section>'


def _read_as(arguments: Mapping[str, Any]) -> str:
    """What the file was read with, as far as it was given."""
    texts = [str(arguments["format"])] if arguments.get("format") else []
    for name, word in (("columns", "from"), ("id_formats", "as")):
        given = arguments.get(name)  # a source of the user's own may have anything there
        if isinstance(given, Mapping):
            texts += [f"{field} {word} {value}" for field, value in given.items()]
    return ", ".join(texts) or "told by its name and content"
