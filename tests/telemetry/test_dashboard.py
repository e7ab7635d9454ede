"""The dashboard's queries use metrics and labels that `Prometheus` exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from prometheus_client.parser import text_string_to_metric_families

import tim_async.telemetry
from tests.stand_in import StandIn, client_of, error
from tim_async import QuotaExhausted

from .exporting import Exporting

DASHBOARD = json.loads((Path(tim_async.telemetry.__file__).parent / "grafana.json").read_text(encoding="utf-8"))
TARGETS = [(panel["title"], target) for panel in DASHBOARD["panels"] for target in panel["targets"]]


async def exported(service: StandIn) -> dict[str, set[str]]:
    """Return the labels of each series that a client exports."""
    exporting = Exporting()
    service.script.append(error(60007))
    async with client_of(service, on_attempt=exporting.hooks, rates={"get_c2c_unread_msg_num": 2}) as tim:
        await tim.get_all_c2c_unread_msg_num("alice")
        with pytest.raises(QuotaExhausted):
            await tim.with_options(max_wait=0).get_all_c2c_unread_msg_num("alice")
        families = [*text_string_to_metric_families(exporting.text)]
    return {sample.name: {*sample.labels} for family in families for sample in family.samples}


def parsed(query: str) -> Any:
    """Parse a query, with a value for each of Grafana's variables."""
    return promql_parser.parse(re.sub(r"\$\w+", "5m", query))


def nodes(node: Any) -> Iterator[Any]:
    """Yield a query and its parts."""
    yield node
    for name in ("expr", "lhs", "rhs", "vector_selector"):
        if (inner := getattr(node, name, None)) is not None:
            yield from nodes(inner)
    for inner in getattr(node, "args", None) or ():
        yield from nodes(inner)


def series(node: Any) -> list[Any]:
    """Return the selectors of a query."""
    return [each for each in nodes(node) if isinstance(each, promql_parser.VectorSelector)]


def group_labels(group: promql_parser.AggregateExpr) -> set[str]:
    """Return the labels that an aggregation keeps."""
    return {*group.modifier.labels} if group.modifier is not None else set()


async def test_every_query_uses_exported_metrics_and_labels(service: StandIn) -> None:
    """In selectors, groupings and legends."""
    labels = await exported(service)
    for title, target in TARGETS:
        query = parsed(target["expr"])
        assert series(query), title
        for selector in series(query):
            assert selector.name in labels, f"{title}: {selector.name}"
            assert {matcher.name for matcher in selector.matchers.matchers} <= labels[selector.name], title
        groups = [each for each in nodes(query) if isinstance(each, promql_parser.AggregateExpr)]
        for group in groups:
            for selector in series(group):
                assert group_labels(group) <= labels[selector.name], f"{title}: {group.modifier}"
        assert {*re.findall(r"{{(\w+)}}", target["legendFormat"])} <= group_labels(groups[0]), title


async def test_the_dashboard_shows_every_metric(service: StandIn) -> None:
    shown = {selector.name for _, target in TARGETS for selector in series(parsed(target["expr"]))}
    own = {name for name in await exported(service) if not name.endswith(("_created", "_sum"))}
    histograms = {name.removesuffix("_bucket") for name in own if name.endswith("_bucket")}
    assert {re.sub("_(bucket|count)$", "", name) for name in shown} == {
        re.sub("_(bucket|count)$", "", name) for name in own
    }
    assert histograms == {"tim_attempt_duration_seconds", "tim_attempt_wait_seconds"}


async def test_every_query_selects_by_the_variables(service: StandIn) -> None:
    """Each variable is a label."""
    labels = await exported(service)
    source, *variables = DASHBOARD["templating"]["list"]
    assert (source["type"], source["query"]) == ("datasource", "prometheus")
    for variable in variables:
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
        assert asked is not None
        assert variable["query"]["query"] == variable["definition"]
        assert asked[2] == variable["name"]
        assert asked[2] in labels[parsed(asked[1]).name]
    for _, target in TARGETS:
        assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for selector in series(promql_parser.parse(target["expr"].replace("$__rate_interval", "5m"))):
            assert {each.value for each in selector.matchers.matchers} == {f"${each['name']}" for each in variables}


def test_panels_have_distinct_ids_and_positions() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
