"""Which metrics and labels a PromQL expression speaks of, as far as text can tell; and which there are."""

from __future__ import annotations

import re

from prometheus_client.metrics import MetricWrapperBase

from services.common import metrics

EXPORTER = dict.fromkeys(
    ("jetstream_server_max_storage", "jetstream_server_total_message_bytes"), frozenset({"cluster", "meta_leader"})
)
"""What alerts use of prometheus-nats-exporter (collector/jsz.go)."""
TARGET_LABELS = frozenset({"namespace", "instance", "pod", "job", "le"})
"""What Prometheus or a histogram adds."""

_SELECTOR = re.compile(r"\b((?:baton|jetstream)_[a-z0-9_]+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPING = re.compile(r"\b(?:by|without|on|group_left|group_right)\s*\(([^)]*)\)")


def known() -> dict[str, frozenset[str]]:
    """Every series' name with its labels."""
    found: dict[str, frozenset[str]] = dict(EXPORTER)
    for one in vars(metrics).values():
        if isinstance(one, MetricWrapperBase):
            (about,) = one.describe()
            endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(about.type, ("",))
            for ending in endings:
                found[about.name + ending] = frozenset(one._labelnames)
    return found


def unknown_in(expression: str) -> set[str]:
    """What the expression names that no service tells: metrics, and labels that none of its metrics has."""
    there = known()
    wrong: set[str] = set()
    labels = set(TARGET_LABELS)
    for name, matchers in _SELECTOR.findall(expression):
        if name not in there:
            wrong.add(name)
            continue
        labels |= there[name]
        wrong |= {
            f"{name}{{{label}}}" for label in _MATCHER.findall(matchers) if label not in there[name] | TARGET_LABELS
        }
    for group in _GROUPING.findall(expression):
        wrong |= {label for label in re.findall(r"\w+", group) if label not in labels}
    return wrong
