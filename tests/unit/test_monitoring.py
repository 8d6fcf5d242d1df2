from __future__ import annotations

import re
import shutil
import subprocess

import promql_parser
import pytest
from monitoring import ALERTS, DASHBOARD, DOCS, TARGETS, needed

from flysync.ports import Backlog
from flysync.worker.metrics import WatchMetrics, WorkerMetrics

OPERATIONS = (DOCS / "operations.md").read_text()
#: What Prometheus itself knows of each target.
OF_PROMETHEUS = {"up": {"job", "instance"}}
EXPRESSIONS = [*(target["expr"] for target in TARGETS), *(alert["expr"] for alert in ALERTS)]


async def nothing() -> Backlog:
    """Give an empty backlog."""
    return Backlog(behind=0, oldest_s=0.0, given_up=0, failed={}, open_runs=0)


async def families() -> dict[str, str]:
    """Give the type of each metric of a worker and a watcher."""
    text = ""
    for metrics in (WorkerMetrics(nothing), WatchMetrics(nothing)):
        await metrics.refresh()
        text += metrics.text().decode()
    return {
        name: kind for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE) if "_created" not in name
    }


@pytest.mark.parametrize("expression", EXPRESSIONS)
async def test_each_expression_is_one_and_asks_for_what_there_is(expression: str) -> None:
    """The parser knows functions and their types; counters are read by their rate, buckets by `le`."""
    known, its = await families(), needed(expression)

    assert its.metrics
    for name in its.metrics - OF_PROMETHEUS.keys():
        kind = known.get(name) or known[name.removesuffix("_bucket")]
        assert (kind != "gauge") == ("rate(" in expression), name
        assert ("le" in its.labels) == (kind == "histogram"), name


@pytest.mark.parametrize("expression", ["sum(", "rate(up)", "nothing(up)", "up{", "up == "])
def test_what_is_no_expression_is_found(expression: str) -> None:
    """So the parser above does look."""
    with pytest.raises(ValueError, match=r"."):
        needed(expression)


def test_a_dashboard_is_whole() -> None:
    """Panels have ids and titles of their own, do not overlap, and ask the data source that is chosen."""
    panels = DASHBOARD["panels"]
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    sources = {one["datasource"]["uid"] for one in (*panels, *TARGETS)}

    assert len(panels) == len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) > 10
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert ["datasource"] == [one["name"] for one in DASHBOARD["templating"]["list"] if one["type"] == "datasource"]
    assert {"${datasource}"} == sources


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: str(target["expr"]))
def test_a_legend_names_what_is_told_apart(target: dict[str, str]) -> None:
    """Each label that an expression keeps, and no other."""
    assert needed(target["expr"]).labels - {"le"} == set(re.findall(r"{{(\w+)}}", target["legendFormat"]))


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_an_alert_says_how_long_how_bad_and_what_to_do(alert: dict[str, dict[str, str]]) -> None:
    """Its runbook is a section of docs/operations.md; a label in its words is one that it has."""
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.*)$", OPERATIONS, re.MULTILINE)
    told = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))

    assert {"alert", "expr", "for", "labels", "annotations"} == alert.keys()
    assert promql_parser.parse_duration(str(alert["for"]))
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert ("docs/operations.md", True) == (page, anchor in {heading.lower().replace(" ", "-") for heading in headings})
    assert told <= needed(str(alert["expr"])).labels | OF_PROMETHEUS["up"]
    assert f"`{alert['alert']}`" in OPERATIONS


async def test_every_metric_is_in_the_docs() -> None:
    """docs/operations.md has a line for each."""
    told = set(re.findall(r"^\| `(flysync_\w+)", OPERATIONS, re.MULTILINE))

    assert told == {*await families()}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool here")
def test_prometheus_own_tool_takes_the_rules() -> None:
    """Where it is installed."""
    tool = shutil.which("promtool") or ""
    done = subprocess.run(
        [tool, "check", "rules", DOCS / "monitoring/alerts.yml"], capture_output=True, text=True, check=False
    )

    assert (0, True) == (done.returncode, f"{len(ALERTS)} rules found" in done.stdout), done
