"""The dashboard's queries ask for what `Prometheus` exports, by names and labels that there are."""

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
    """The series of a client that has been through everything: the labels of each."""
    exporting = Exporting()
    service.script.append(error(60007))
    async with client_of(service, on_attempt=exporting.hooks, rates={"get_c2c_unread_msg_num": 2}) as tim:
        await tim.get_all_c2c_unread_msg_num("alice")
        with pytest.raises(QuotaExhausted):
            await tim.with_options(max_wait=0).get_all_c2c_unread_msg_num("alice")
        families = [*text_string_to_metric_families(exporting.text)]
    return {sample.name: {*sample.labels} for family in families for sample in family.samples}


def parsed(query: str) -> Any:
    """A query, with a value for each of Grafana's variables."""
    return promql_parser.parse(re.sub(r"\$\w+", "5m", query))


def nodes(node: Any) -> Iterator[Any]:
    """A query's parts, itself included."""
    yield node
    for name in ("expr", "lhs", "rhs", "vector_selector"):
        if (inner := getattr(node, name, None)) is not None:
            yield from nodes(inner)
    for inner in getattr(node, "args", None) or ():
        yield from nodes(inner)


def series(node: Any) -> list[Any]:
    """The selectors within a query."""
    return [each for each in nodes(node) if isinstance(each, promql_parser.VectorSelector)]


def by(group: promql_parser.AggregateExpr) -> set[str]:
    """The labels that an aggregation keeps."""
    return {*group.modifier.labels} if group.modifier is not None else set()


async def test_every_query_names_what_is_exported(service: StandIn) -> None:
    """Metrics, the labels that select, those that group, and those of the legend."""
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
                assert by(group) <= labels[selector.name], f"{title}: {group.modifier}"
        assert {*re.findall(r"{{(\w+)}}", target["legendFormat"])} <= by(groups[0]), title


async def test_every_metric_is_shown(service: StandIn) -> None:
    """No metric is exported that the dashboard does not show."""
    shown = {selector.name for _, target in TARGETS for selector in series(parsed(target["expr"]))}
    own = {name for name in await exported(service) if not name.endswith(("_created", "_sum"))}
    histograms = {name.removesuffix("_bucket") for name in own if name.endswith("_bucket")}
    assert {re.sub("_(bucket|count)$", "", name) for name in shown} == {
        re.sub("_(bucket|count)$", "", name) for name in own
    }
    assert histograms == {"tim_attempt_duration_seconds", "tim_attempt_wait_seconds"}


async def test_the_variables_are_labels(service: StandIn) -> None:
    """By which all queries select."""
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


def test_panels_have_numbers_and_places_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
