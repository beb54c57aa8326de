"""The Grafana dashboard, built from the catalogue's panels with grafana-foundation-sdk."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any

from ragprof.monitoring import names
from ragprof.monitoring.catalogue_panels import PANELS, TITLE, UID, Panel

WATCH = "http://127.0.0.1:9465"
"""Where `ragprof watch` listens on the reader's machine: it shows the command to paste."""
JAEGER_UID, PROMETHEUS_UID = "jaeger", "prometheus"
_HEIGHT, _WIDE, _NARROW = 8, 12, 6  # Grafana's grid has 24 columns
_RANGES = {"$__rate_interval": "5m", "$__interval": "1m", "$__range": "1h"}


def expressions(panels: Sequence[Panel] = PANELS) -> list[tuple[str, str]]:
    """Pairs of (panel, query) with Grafana's variables filled in, as Prometheus can answer them."""
    found = []
    for panel in panels:
        for query in panel.queries:
            text = query.expression
            for variable, value in _RANGES.items():
                text = text.replace(variable, value)
            found.append((f"panel {panel.title!r}", text))
    return found


def dashboard(panels: Sequence[Panel] = PANELS) -> dict[str, Any]:
    """The dashboard as Grafana's JSON. Raises UnknownName for names that the catalogue lacks."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    names.check(expressions(panels))
    with warnings.catch_warnings():  # the schema that files and ConfigMaps are provisioned with
        warnings.simplefilter("ignore", DeprecationWarning)
        return dict(json.loads(JSONEncoder(sort_keys=True, indent=1).encode(_board(panels))))


def _board(panels: Sequence[Panel]) -> Any:
    from grafana_foundation_sdk.builders import dashboard as boards
    from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DashboardLinkType

    board = (
        boards.Dashboard(TITLE)
        .uid(UID)
        .tags(["rag", "ragprof"])
        .description("Requests, retrieval, resources and objectives of a RAG service.")
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("utc")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(
            boards.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
        .link(
            boards.DashboardLink("Runbooks")
            .type(DashboardLinkType.LINK)
            .url("https://github.com/ragprof/ragprof/blob/main/docs/alerts.md")
            .target_blank(True)
        )
    )
    row = ""
    for panel in panels:
        if panel.row != row:
            row = panel.row
            board = board.with_row(boards.Row(row))
        board = board.with_panel(_panel(panel))
    return board.build()


def datasource(url: str = "http://prometheus:9090") -> dict[str, Any]:
    """Provisioning of the data source: an exemplar leads to its trace and to the command."""
    return {
        "apiVersion": 1,
        "datasources": [
            {
                "name": "Prometheus",
                "uid": PROMETHEUS_UID,
                "type": "prometheus",
                "access": "proxy",
                "url": url,
                "jsonData": {
                    "timeInterval": "15s",
                    "httpMethod": "POST",
                    "exemplarTraceIdDestinations": [
                        {"name": "trace_id", "datasourceUid": JAEGER_UID},
                        {
                            "name": "trace_id",
                            "url": f"{WATCH}/command?trace_id=$${{__value.raw}}",
                            "urlDisplayLabel": "ragprof investigate",
                        },
                    ],
                },
            },
            {
                "name": "Jaeger",
                "uid": JAEGER_UID,
                "type": "jaeger",
                "access": "proxy",
                "url": "http://jaeger:16686",
            },
        ],
    }


def _panel(panel: Panel) -> Any:
    from grafana_foundation_sdk.builders import common, stat, timeseries
    from grafana_foundation_sdk.builders import dashboard as boards
    from grafana_foundation_sdk.models import common as models
    from grafana_foundation_sdk.models.common import DataSourceRef

    source = DataSourceRef(type_val="prometheus", uid="${datasource}")
    built: Any = timeseries.Panel() if panel.kind == "timeseries" else stat.Panel()
    built = (
        built.title(panel.title)
        .description(panel.description)
        .datasource(source)
        .unit(panel.unit)
        .height(_HEIGHT)
        .span(_WIDE if panel.kind == "timeseries" else _NARROW)
        .links([_link(boards, panel)])
    )
    for number, query in enumerate(panel.queries):
        built = built.with_target(_target(query, chr(ord("A") + number), panel.kind == "stat"))
    if panel.threshold is not None:
        built = built.thresholds(_thresholds(panel))
    if panel.kind == "timeseries":
        built = (
            built.fill_opacity(8)
            .line_width(1)
            .show_points(models.VisibilityMode.NEVER)
            .legend(
                common.VizLegendOptions()
                .display_mode(models.LegendDisplayMode.TABLE)
                .placement(models.LegendPlacement.BOTTOM)
                .calcs(["lastNotNull", "max"])
            )
            .tooltip(common.VizTooltipOptions().mode(models.TooltipDisplayMode.MULTI))
        )
        if panel.threshold is not None:
            style = common.GraphThresholdsStyleConfig().mode(models.GraphThresholdsStyleMode.LINE)
            built = built.thresholds_style(style)
    return built


def _target(query: Any, ref: str, instant: bool) -> Any:
    from grafana_foundation_sdk.builders import prometheus

    target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(ref)
    return target.instant() if instant else target.range().exemplar(query.exemplars)


def _thresholds(panel: Panel) -> Any:
    """Red beyond the threshold: above it, or below it where low is bad."""
    from grafana_foundation_sdk.builders import dashboard as boards
    from grafana_foundation_sdk.models.dashboard import Threshold, ThresholdsMode

    low_is_bad = panel.kind == "stat" or panel.alert == "LowCacheHitRate"
    low_is_bad = low_is_bad or (bool(panel.objective) and panel.title.endswith("trend"))
    first, second = ("red", "green") if low_is_bad else ("green", "red")
    return (
        boards.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(None, first), Threshold(panel.threshold, second)])
    )


def _link(boards: Any, panel: Panel) -> Any:
    """The command for the time that the panel shows, from `ragprof watch`."""
    from grafana_foundation_sdk.models.dashboard import DashboardLinkType

    alert = panel.alert or panel.objective or "Dashboard"
    url = f"{WATCH}/command?alert={alert}&from=${{__from}}&to=${{__to}}"
    return (
        boards.DashboardLink("ragprof investigate")
        .type(DashboardLinkType.LINK)
        .url(url)
        .target_blank(True)
    )
