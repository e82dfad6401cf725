"""A and B: the same measures of two variants of workers, side by side (`BATON_VARIANT`)."""

from __future__ import annotations

from board import Query, Row, board, choice, gauge, lines, per_second, quantile_by, rate, total
from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard
from question import FAILED


def variants() -> Dashboard:
    return board(
        "baton-variants",
        "Baton: A and B",
        "Workers whose BATON_VARIANT is A beside those whose it is B.",
        [
            _seen_by_users(),
            Row(
                "Work",
                [
                    *_pair(
                        "Answers and searches",
                        "Items that left a worker, by stage.",
                        _of("baton_work_seconds_count", "stage"),
                        "ops",
                    )
                ],
            ),
            Row(
                "Time",
                [
                    *_pair(
                        "At work",
                        "Time that a worker held an item, 95th percentile.",
                        _quantile(0.95, "baton_work_seconds", "stage"),
                    ),
                    *_pair(
                        "Steps of a retrieval",
                        "95th percentile of each step.",
                        _quantile(0.95, "baton_retrieval_step_seconds", "step"),
                    ),
                    *_pair("Gaps between tokens", "99th percentile.", _quantile(0.99, "baton_token_gap_seconds")),
                ],
            ),
            Row(
                "What came of it",
                [
                    *_pair("Outcomes", "Of work items.", _of("baton_work_items_total", "outcome"), "ops"),
                    *_pair(
                        "Dropped citations",
                        "Of passages that the model had not been given.",
                        _of("baton_citations_dropped_total"),
                        "ops",
                    ),
                ],
            ),
        ],
        choice("a", "A", "label_values(baton_build_info, variant)", all_of_them=False),
        choice("b", "B", "label_values(baton_build_info, variant)", all_of_them=False),
    )


def _seen_by_users() -> Row:
    """What gateways measure, of each variant that has a share, and of none."""
    failed = total("baton_variant_requests_total", FAILED, "variant")
    return Row(
        "What users see, where variants have a share",
        [
            lines(
                "Questions",
                "That ended, by the variant that they tried.",
                per_second("baton_variant_requests_total", "variant"),
                "reqps",
                stacked=True,
            ),
            lines(
                "Failed",
                "Share of a variant's questions.",
                [Query(f"{failed} / {total('baton_variant_requests_total', by='variant')}", "{{variant}}")],
                "percentunit",
            ),
            lines(
                "Shares",
                "By the settings.",
                gauge("baton_variant_share_ratio", "variant", "max"),
                "percentunit",
            ),
            *(
                lines(
                    title, "95th percentile.", quantile_by("variant", "baton_variant_seconds", labels=f'measure="{of}"')
                )
                for title, of in (("Retrieval", "retrieval"), ("First token", "ttft"), ("Whole answer", "answer"))
            ),
            lines(
                "Moved",
                "Items of a variant whose workers were gone, given to the others.",
                per_second("baton_moved_items_total", "variant"),
                "ops",
                width=24,
            ),
        ],
    )


def _of(series: str, by: str = "", le: bool = False) -> Query:
    """The growth of a series of one variant; `$side` becomes `$a` or `$b`."""
    labels = ", ".join(label for label in ("le" if le else "", by) if label)
    grown = f'{rate(series)} * on (instance) group_left () baton_build_info{{variant="$side"}}'
    return Query(f"sum by ({labels}) ({grown})" if labels else f"sum({grown})", f"{{{{{by}}}}}" if by else "all")


def _quantile(q: float, histogram: str, by: str = "") -> Query:
    buckets = _of(f"{histogram}_bucket", by, le=True)
    return Query(f"histogram_quantile({q:g}, {buckets.expr})", f"{{{{{by}}}}}" if by else f"p{q * 100:g}")


def _pair(title: str, meaning: str, query: Query, unit: str = "s") -> list[timeseries.Panel]:
    return [
        lines(
            f"{title}: ${side}", meaning, [Query(query.expr.replace("$side", f"${side}"), query.legend)], unit, width=12
        )
        for side in ("a", "b")
    ]
