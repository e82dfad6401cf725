"""The vocabulary of the dashboards: panels that measure one thing each, in rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models.common import (
    AxisPlacement,
    GraphThresholdsStyleMode,
    HeatmapCellLayout,
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
WHERE = 'namespace=~"$namespace"'
WIDTH = 24

Panel = timeseries.Panel | heatmap.Panel | stat.Panel


class Query(NamedTuple):
    """An expression and what its series are called. `exemplars`: points that lead to a trace."""

    expr: str
    legend: str = ""
    exemplars: bool = False


def rate(series: str, labels: str = "") -> str:
    """How much a counter, or a part of a histogram, grows in a second, in the chosen namespaces."""
    return f"rate({series}{{{', '.join(part for part in (WHERE, labels) if part)}}}[$__rate_interval])"


def total(series: str, labels: str = "", by: str = "") -> str:
    """The growth of all such series together, or of those with each value of a label."""
    return f"sum by ({by}) ({rate(series, labels)})" if by else f"sum({rate(series, labels)})"


def quantiles(histogram: str, labels: str = "", of: Sequence[float] = (0.5, 0.95, 0.99)) -> list[Query]:
    """Percentiles of a histogram over all replicas, with exemplars."""
    buckets = f"sum by (le) ({rate(f'{histogram}_bucket', labels)})"
    return [Query(f"histogram_quantile({q:g}, {buckets})", f"p{q * 100:g}", exemplars=True) for q in of]


def quantile_by(label: str, histogram: str, q: float = 0.95, labels: str = "") -> list[Query]:
    """One percentile of a histogram for each value of a label."""
    buckets = f"sum by (le, {label}) ({rate(f'{histogram}_bucket', labels)})"
    return [Query(f"histogram_quantile({q:g}, {buckets})", f"{{{{{label}}}}}")]


def per_second(counter: str, by: str = "", labels: str = "") -> list[Query]:
    """How often something happens in a second, in all or for each value of a label."""
    grown = rate(counter, labels)
    return [Query(f"sum by ({by}) ({grown})", f"{{{{{by}}}}}") if by else Query(f"sum({grown})", "all")]


def gauge(name: str, by: str, how: str = "sum", labels: str = "") -> list[Query]:
    selector = ", ".join(part for part in (WHERE, labels) if part)
    return [Query(f"{how} by ({by}) ({name}{{{selector}}})", f"{{{{{by}}}}}")]


def lines(
    title: str,
    meaning: str,
    queries: Sequence[Query],
    unit: str = "s",
    *,
    objective: float | None = None,
    stacked: bool = False,
    width: int = 8,
    height: int = 8,
) -> timeseries.Panel:
    """A panel of lines. `objective` is drawn as a line of its own."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(meaning)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(width)
        .height(height)
        .line_width(1)
        .fill_opacity(30 if stacked else 5)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if objective is not None:
        steps = [model.Threshold(value=None, color="green"), model.Threshold(value=objective, color="red")]
        panel = panel.thresholds(
            dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
        ).thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    for number, query in enumerate(queries):
        panel = panel.with_target(_target(query, number))
    return panel


def heat(title: str, meaning: str, histogram: str, unit: str = "s", labels: str = "", width: int = 8) -> heatmap.Panel:
    """How the values of a histogram spread, over time."""
    query = Query(f"sum by (le) ({rate(f'{histogram}_bucket', labels)})", "{{le}}", exemplars=True)
    return (
        heatmap.Panel()
        .title(title)
        .description(meaning)
        .datasource(SOURCE)
        .span(width)
        .height(8)
        .calculate(False)
        .rows_frame(heatmap.RowsHeatmapOptions().layout(HeatmapCellLayout.AUTO))
        .y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(AxisPlacement.LEFT))
        .scale_distribution(common.ScaleDistributionConfig().type(ScaleDistribution.LINEAR))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_model.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .exponent(0.5)
            .steps(64)
        )
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .cell_gap(1)
        .exemplars_color("rgba(255,0,255,0.7)")
        .hide_legend()
        .show_y_histogram()
        .with_target(_target(query, 0).format(PromQueryFormat.HEATMAP))
    )


def number(title: str, meaning: str, query: Query, unit: str, *, bad_above: float | None = None) -> stat.Panel:
    """One figure, as it is now."""
    steps = [model.Threshold(value=None, color="green")]
    if bad_above is not None:
        steps.append(model.Threshold(value=bad_above, color="red"))
    return (
        stat.Panel()
        .title(title)
        .description(meaning)
        .datasource(SOURCE)
        .unit(unit)
        .span(6)
        .height(4)
        .thresholds(dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
        .with_target(_target(query, 0))
    )


def _target(query: Query, number: int) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .expr(query.expr)
        .legend_format(query.legend or "__auto")
        .ref_id(chr(ord("A") + number))
        .range()
        .exemplar(query.exemplars)
        .datasource(SOURCE)
    )


class Row(NamedTuple):
    title: str
    panels: Sequence[Panel]


def board(
    uid: str, title: str, meaning: str, rows: Sequence[Row], *variables: dashboard.QueryVariable
) -> model.Dashboard:
    """A whole dashboard with the variables that all have, and its own."""
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(meaning)
        .tags(["baton"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Baton")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["baton"])
            .keep_time(True)
            .include_vars(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(choice("namespace", "Namespace", "label_values(baton_build_info, namespace)"))
    )
    for variable in variables:
        made = made.with_variable(variable)
    for row in rows:
        made = made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made = made.with_panel(panel)
    return made.build()


def choice(name: str, label: str, query: str, *, all_of_them: bool = True) -> dashboard.QueryVariable:
    """A variable whose values Prometheus knows. Where it knows none (no namespaces without Kubernetes), all is all."""
    variable = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )
    if not all_of_them:
        return variable
    everything = model.VariableOption(selected=True, text="All", value="$__all")
    return variable.multi(True).include_all(True).all_value(".*").current(everything)
