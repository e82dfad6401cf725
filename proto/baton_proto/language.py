"""Which of the two languages a text is in, where nobody says."""

from __future__ import annotations

import re

from .messages import Language

_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_LATIN = re.compile(r"[A-Za-z]+")


def guess_language(text: str, otherwise: str) -> Language:
    """`zh` or `en` by which there is more of: Han characters, or half of the Latin words; `otherwise` without either.

    A Chinese question often carries an English product name, seldom the other way round, so words weigh less.
    """
    han, latin = len(_HAN.findall(text)), len(_LATIN.findall(text))
    if han == latin == 0:
        return "zh" if otherwise == "zh" else "en"
    return "zh" if han >= latin / 2 and han > 0 else "en"
