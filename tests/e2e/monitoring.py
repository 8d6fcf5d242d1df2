"""What docs/monitoring asks Prometheus: the dashboard, the rules, and which series they need."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import yaml

DOCS = Path(__file__).parents[2] / "docs"
DASHBOARD: dict[str, Any] = json.loads((DOCS / "monitoring/dashboard.json").read_text())
RULES: dict[str, Any] = yaml.safe_load((DOCS / "monitoring/alerts.yml").read_text())
ALERTS: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"]]
TARGETS: list[dict[str, str]] = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
#: What Grafana puts in its place.
_INTERVALS = {"$__rate_interval": "5m"}


@dataclass(frozen=True)
class Needed:
    """The metrics of an expression, and the labels that it names."""

    metrics: frozenset[str]
    labels: frozenset[str]


def needed(expression: str) -> Needed:
    """Read an expression; ValueError: it is none."""
    for name, interval in _INTERVALS.items():
        expression = expression.replace(name, interval)
    metrics, labels = set[str](), set[str]()

    def look(part: promql_parser.Expr) -> None:
        if isinstance(part, promql_parser.VectorSelector):
            metrics.add(part.name or "")
            labels.update(matcher.name for matcher in part.matchers.matchers)
        elif isinstance(part, promql_parser.AggregateExpr) and part.modifier is not None:
            labels.update(part.modifier.labels)

    promql_parser.walk(promql_parser.parse(expression), look)
    return Needed(frozenset(metrics), frozenset(labels))


def series(text: str) -> dict[str, set[str]]:
    """Give the names of what a scrape has, each with its labels."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, labels = line.rpartition(" ")[0].partition("{")
            found.setdefault(name, set()).update(one.partition("=")[0] for one in labels.rstrip("}").split(",") if one)
    return found
