"""What came of a demo: for people as tables and lines, for machines as one document."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tim_async.cli.output import make_table, plain
from tim_async.cli.seen import seen_table

from .compare import Comparison, Difference
from .process import Final
from .results import COUNT, ENDPOINTS, MARK, RECEIPTS, SET, Results
from .sample import Sample

if TYPE_CHECKING:
    from rich.table import Table

_MOST_SHOWN = 3
_MOST_LISTED = 1000

_WHAT = {
    SET: "unread counts set (rows)",
    MARK: "conversations marked read (rows)",
    COUNT: "unread counts queried (peers)",
    RECEIPTS: "read receipts pulled (messages)",
}


def as_plain(sample: Sample, results: Results, final: Final, comparison: Comparison, *, naive: bool) -> dict[str, Any]:
    """The whole report, ready for JSON; of many differences, the first thousand are listed."""
    return {
        "file": sample.name,
        "naive": naive,
        "seconds": round(results.seconds, 3),
        "rows": {"valid": len(sample.rows), "invalid": [asdict(row) for row in sample.invalid]},
        "emulator": final.report,
        "comparison": {
            endpoint: {
                "checked": comparison.checked[endpoint],
                "lost": comparison.count("lost", endpoint),
                "wrong": comparison.count("wrong", endpoint),
                "reported_failed": comparison.reported_failed[endpoint],
            }
            for endpoint in ENDPOINTS
        },
        "lost": comparison.count("lost"),
        "wrong": comparison.count("wrong"),
        "lowered": comparison.lowered,
        "ignored": comparison.ignored,
        "done_yet_reported": comparison.done_yet_reported,
        "differences": [asdict(difference) for difference in comparison.differences[:_MOST_LISTED]],
    }


def as_text(
    sample: Sample, results: Results, final: Final, comparison: Comparison, *, limit: int, naive: bool
) -> list[Table | str]:
    """The whole report, for people."""
    endpoints = final.report["endpoints"]
    how = f"aiohttp and AsyncLimiter({limit}, 1)" if naive else "tim_async"
    fullest = max((seen["fullest_sliding_second"] for seen in endpoints.values()), default=0)
    return [
        f"What the emulator saw of {how}, in {results.seconds:.1f} s:\n",
        seen_table({name: endpoints[name] for name in ENDPOINTS if name in endpoints}),
        f"\nThe fullest second of any endpoint held {fullest} calls; {limit} are allowed.",
        _faults(final.report["total"]),
        f"\nThe final state compared with {sample.name} row by row, and every answer:\n",
        _comparison_table(comparison),
        *_exceptions(comparison),
        *_differences(comparison),
        *_invalid(sample),
        f"\n{comparison.count('lost'):,} lost, {comparison.count('wrong'):,} wrong",
    ]


def _faults(total: dict[str, Any]) -> str:
    faults = sum(total["faults"].values())
    share = 100 * faults / total["calls"] if total["calls"] else 0.0
    kinds = "".join(f"\n  {kind}: {number:,}" for kind, number in sorted(total["faults"].items()))
    return f"Faults it injected: {faults:,} in {total['calls']:,} calls, {share:.1f} %{kinds}"


def _comparison_table(comparison: Comparison) -> Table:
    numbers = ("checked", "right", "lost", "wrong")
    table = make_table("", *numbers, right=numbers)
    for endpoint in ENDPOINTS:
        checked = comparison.checked[endpoint]
        lost, wrong = comparison.count("lost", endpoint), comparison.count("wrong", endpoint)
        table.add_row(_WHAT[endpoint], f"{checked:,}", f"{checked - lost - wrong:,}", f"{lost:,}", f"{wrong:,}")
    return table


def _exceptions(comparison: Comparison) -> list[str]:
    lines = []
    if comparison.lowered:
        lines.append(f"{comparison.lowered} rows ask for more than their group's messages; the service lowers them")
    if comparison.ignored:
        lines.append(f"{comparison.ignored} rows are of groups without unread counts; it answers them with success")
    return ["\nAs the service documents it:", *(f"  {line}" for line in lines)] if lines else []


def _differences(comparison: Comparison) -> list[str]:
    if not comparison.differences:
        return []
    reasons = Counter(difference.reported or "not reported" for difference in comparison.differences)
    listed = ", ".join(f"{reason}: {number:,}" for reason, number in reasons.most_common())
    lines = [f"\nWhat was reported of them: {plain(listed)}", "The first of each endpoint:"]
    for difference in _first_of_each(comparison.differences):
        where = f"line {difference.line}: " if difference.line is not None else ""
        found = "no answer" if difference.found is None else difference.found
        lines.append(f"  {where}{plain(difference.item)}: {difference.kind}, {found} instead of {difference.expected}")
    if comparison.done_yet_reported:
        lines.append(f"Besides, {comparison.done_yet_reported} rows were reported as failed and yet carried out.")
    return lines


def _first_of_each(differences: list[Difference]) -> list[Difference]:
    """A few of each endpoint."""
    shown: Counter[str] = Counter()
    first = []
    for difference in differences:
        shown[difference.endpoint] += 1
        if shown[difference.endpoint] <= _MOST_SHOWN:
            first.append(difference)
    return first


def _invalid(sample: Sample) -> list[str]:
    if not sample.invalid:
        return []
    lines = [f"\n{len(sample.invalid)} rows of {sample.name} are invalid and were not sent:"]
    lines += [f"  line {row.line}: {plain(row.reason)}" for row in sample.invalid]
    return lines
