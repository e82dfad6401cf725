"""How much smaller a prompt becomes after a server has refused it as too long: pure."""

from __future__ import annotations

MAX_SHRINKS = 2
_MARGIN = 0.95
_ANSWER_TOKENS = 512
"""Room for the answer where the request does not say how long it may be."""
_LEAST = 200


def smaller(
    budget: int, sent: int, answer: int | None, limit: int | None, counted: int | None
) -> tuple[int, int | None]:
    """The next budget, and how long the answer may be.

    Two thirds of the last one; or less, where the server says what it reads: prompt and answer share that, and its own
    count of the prompt, where told, shows how far ours is off.

    Args:
        budget: what the prompt was made for; `sent` is what it counted for.
        answer: `max_tokens` of the request.
        limit: all that the server reads; `counted` are the tokens that it found in the prompt.
    """
    guess = budget * 2 // 3
    if limit is None:
        return max(_LEAST, guess), answer
    allowed = answer if answer is None else min(answer, limit // 2)
    room = limit - (allowed if allowed is not None else min(_ANSWER_TOKENS, limit // 4))
    ratio = counted / sent if counted and sent else 1.0
    if counted and counted <= room and allowed != answer:
        return budget, allowed  # only the answer asked for was too long
    return max(_LEAST, min(budget - 1, int(room / ratio * _MARGIN))), allowed
