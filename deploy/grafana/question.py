"""A question's way: what users see of it, and where its time goes."""

from __future__ import annotations

from board import Query, Row, board, choice, heat, lines, number, per_second, quantile_by, quantiles, rate, total
from grafana_foundation_sdk.models.dashboard import Dashboard

WITHIN_300_MS, WITHIN_500_MS = 'le="0.3"', 'le="0.5"'
HIT, LOOKED_UP = 'outcome="hit"', 'outcome=~"hit|miss"'
FAILED = 'outcome!~"stop|length|cancelled|content_filter|bad_message"'
REFUSED = 'code=~"overloaded|no_worker|internal"'
OF_MODEL = '* on (instance) group_left () baton_generator_info{model=~"$model"}'


def question() -> Dashboard:
    return board(
        "baton-question",
        "Baton: a question's way",
        "What users see of their questions, and where the time goes. Points on the curves lead to traces.",
        [_in_short(), _first_signs(), _ends(), _retrieval(), _answers(), _tools()],
        choice("model", "Model", "label_values(baton_generator_info, model)"),
    )


def _in_short() -> Row:
    refused = total("baton_refused_messages_total", REFUSED)
    failed = f"({total('baton_requests_total', FAILED)} + {refused}) / ({total('baton_requests_total')} + {refused})"
    in_turn = f"{total('baton_waiting_seconds_count')} - {total('baton_waiting_seconds_bucket', WITHIN_300_MS)}"
    early = f"{total('baton_ttfb_seconds_bucket', WITHIN_300_MS)} + {in_turn}"
    late = f"1 - ({early}) / {total('baton_ttfb_seconds_count')}"
    slow = f"1 - {total('baton_retrieval_seconds_bucket', WITHIN_500_MS)} / {total('baton_retrieval_seconds_count')}"
    return Row(
        "In short",
        [
            number("Questions", "Questions that ended, per second.", Query(total("baton_requests_total")), "reqps"),
            number(
                "Failed",
                "Or refused for lack of room or workers. Objective: 0.5 %.",
                Query(failed),
                "percentunit",
                bad_above=0.005,
            ),
            number(
                "First frame late",
                "Over 300 ms once it was their turn. Objective: 1 %.",
                Query(late),
                "percentunit",
                bad_above=0.01,
            ),
            number("Retrieval slow", "Over 500 ms. Objective: 5 %.", Query(slow), "percentunit", bad_above=0.05),
        ],
    )


def _first_signs() -> Row:
    return Row(
        "Until something is seen",
        [
            lines(
                "First frame",
                "TTFB: to the first frame that a worker wrote.",
                quantiles("baton_ttfb_seconds"),
                objective=0.3,
            ),
            lines(
                "First token", "TTFT: to the first piece of the answer.", quantiles("baton_ttft_seconds"), objective=1.0
            ),
            lines("Whole answer", "To the last frame.", quantiles("baton_answer_seconds")),
            heat("First frame, spread", "How many questions took so long.", "baton_ttfb_seconds", width=6),
            heat("First token, spread", "How many questions took so long.", "baton_ttft_seconds", width=6),
            lines("In queues", "Time in work queues, all stages together.", quantiles("baton_queue_seconds"), width=6),
            lines(
                "Until their turn",
                "Time before that, of users who ask much.",
                quantiles("baton_waiting_seconds"),
                width=6,
            ),
        ],
    )


def _ends() -> Row:
    return Row(
        "How they end",
        [
            lines(
                "How questions end",
                "By finish reason or error code.",
                per_second("baton_requests_total", "outcome"),
                "reqps",
                stacked=True,
            ),
            lines(
                "Refused",
                "Messages that became no request, by error code.",
                per_second("baton_refused_messages_total", "code"),
                "reqps",
                stacked=True,
            ),
            lines(
                "Cancelled",
                "By users, and because nobody followed them any more.",
                [
                    Query(total("baton_cancels_total"), "by users"),
                    Query(total("baton_abandoned_total"), "abandoned"),
                ],
                "reqps",
            ),
            lines(
                "Time to stop",
                "From an order to cancel to the stored end.",
                quantiles("baton_cancel_seconds", of=(0.5, 0.95)),
            ),
            lines(
                "At work, by stage",
                "Time that a worker held an item, 95th percentile.",
                quantile_by("stage", "baton_work_seconds"),
            ),
            lines(
                "Cache",
                "Share of the look-ups that found something, by kind.",
                [
                    Query(
                        f"{total('baton_cache_total', HIT, 'kind')} / {total('baton_cache_total', LOOKED_UP, 'kind')}",
                        "{{kind}}",
                    )
                ],
                "percentunit",
            ),
        ],
    )


def _retrieval() -> Row:
    return Row(
        "Retrieval",
        [
            lines(
                "Retrieval",
                "As its worker measured it, what came from the cache included.",
                quantiles("baton_retrieval_seconds"),
                objective=0.5,
            ),
            lines(
                "Steps of a retrieval",
                "95th percentile of each step.",
                quantile_by("step", "baton_retrieval_step_seconds"),
            ),
            heat("Search, spread", "The store alone.", "baton_retrieval_step_seconds", labels='step="search"'),
            lines(
                "Searches",
                "By whether they found anything; nothing at all any more is a lost collection.",
                per_second("baton_searches_total", "outcome"),
                "reqps",
                stacked=True,
                width=12,
            ),
            lines(
                "Reranked",
                "Questions whose passages a reranker was given, by outcome.",
                per_second("baton_reranks_total", "outcome"),
                "reqps",
                stacked=True,
                width=12,
            ),
        ],
    )


def _answers() -> Row:
    at_work = rate("baton_work_seconds_count", 'stage="generate"')
    gaps = f"sum by (le) ({rate('baton_token_gap_seconds_bucket')} {OF_MODEL})"
    return Row(
        "Answers",
        [
            lines(
                "Tokens per second, one answer",
                "While it was generated; half and nine tenths are faster.",
                quantiles("baton_tokens_per_second", of=(0.5, 0.1)),
                "none",
            ),
            lines(
                "Gaps between tokens",
                "Between two pieces from the chosen models.",
                [Query(f"histogram_quantile({q:g}, {gaps})", f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)],
            ),
            heat("Gaps between tokens, spread", "Between two pieces, all models.", "baton_token_gap_seconds"),
            lines(
                "Tokens per second, all",
                "As generators counted them.",
                per_second("baton_tokens_total", "kind"),
                "none",
            ),
            lines(
                "Answers at work, chosen models",
                "Items of generators with the chosen models, per second.",
                [
                    Query(
                        f"sum by (model) ({at_work} {OF_MODEL.replace('()', '(model)')})",
                        "{{model}}",
                    )
                ],
                "ops",
            ),
            lines(
                "Dropped citations",
                "Of passages that the model had not been given.",
                per_second("baton_citations_dropped_total"),
                "ops",
            ),
        ],
    )


def _tools() -> Row:
    failed = total("baton_tool_seconds_count", 'ok="false"', "tool")
    failing = f"{failed} / {total('baton_tool_seconds_count', by='tool')}"
    return Row(
        "Tools",
        [
            lines("Calls of tools", "By tool.", per_second("baton_tool_seconds_count", "tool"), "ops", stacked=True),
            lines("Duration of a call", "95th percentile, by tool.", quantile_by("tool", "baton_tool_seconds")),
            lines("Failed calls", "Share of a tool's calls.", [Query(failing, "{{tool}}")], "percentunit"),
        ],
    )
