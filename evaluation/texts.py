"""How like a reference an answer is: exact match, token F1 and ROUGE-L; no I/O.

English as SQuAD's script counts (evaluate-v1.1.py, https://rajpurkar.github.io/SQuAD-explorer/): lower case, without
punctuation and the articles a, an, the; F1 over the bag of words. Chinese as CMRC 2018's script counts
(cmrc2018_evaluate.py, https://github.com/ymcui/cmrc2018): a token is a Chinese character or a word of other letters,
without punctuation; F1 is over the longest common run of tokens. (Words of other letters are cut at white space and
punctuation, where a decimal number is one, and 50 % are not 50; CMRC's script uses NLTK for them, and its exact match
minds blanks.) Of several references the best counts. Two empty texts are the same, as in SQuAD 2.0's script.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARK = re.compile(r"\s*\[\d{1,3}\]")
_TOKEN = re.compile(r"[\u3400-\u9fff]|\d+(?:\.\d+)+|[%$¥€£]|[^\W\u3400-\u9fff]+")
_PUNCTUATION = frozenset(string.punctuation)
MAX_TOKENS = 2_000
"""Of a text: ROUGE-L takes the product of both lengths."""


def without_marks(answer: str) -> str:
    """The answer without its citations."""
    return _MARK.sub("", answer).strip()


def tokens(text: str, language: str) -> list[str]:
    """What the measures count."""
    if language == "zh":
        return _TOKEN.findall(unicodedata.normalize("NFKC", text).lower())[:MAX_TOKENS]
    plain = "".join(char for char in text.lower() if char not in _PUNCTUATION)
    return _ARTICLES.sub(" ", plain).split()[:MAX_TOKENS]


def exact_match(answer: str, references: Sequence[str], language: str) -> float:
    """1 where the answer says a reference and nothing else."""
    said = tokens(answer, language)
    return float(any(said == tokens(reference, language) for reference in references))


def token_f1(answer: str, references: Sequence[str], language: str) -> float:
    common = _longest_run if language == "zh" else _bag
    return _best(answer, references, language, lambda said, right: _f1(common(said, right), len(said), len(right)))


def token_recall(answer: str, references: Sequence[str], language: str) -> float:
    """How much of a reference's tokens the answer holds: the share that F1 mixes with brevity. For answers that are
    sentences, beside references that are a few words."""
    return _best(answer, references, language, lambda said, right: _bag(said, right) / len(right) if right else 0.0)


def rouge_l(answer: str, references: Sequence[str], language: str) -> float:
    """ROUGE-L's F1 (Lin 2004, https://aclanthology.org/W04-1013/, with beta 1): over the longest common subsequence."""
    return _best(
        answer, references, language, lambda said, right: _f1(_subsequence(said, right), len(said), len(right))
    )


def _best(
    answer: str, references: Sequence[str], language: str, score: Callable[[list[str], list[str]], float]
) -> float:
    said = tokens(answer, language)
    return max((score(said, tokens(reference, language)) for reference in references), default=0.0)


def _f1(common: int, said: int, right: int) -> float:
    if said == 0 or right == 0:
        return float(said == right)
    return 2 * common / (said + right)


def _bag(said: Sequence[str], right: Sequence[str]) -> int:
    return sum((Counter(said) & Counter(right)).values())


def _longest_run(said: Sequence[str], right: Sequence[str]) -> int:
    """The length of the longest run of tokens that both have."""
    best, row = 0, [0] * (len(right) + 1)
    for one in said:
        last = 0
        for at, other in enumerate(right, start=1):
            last, row[at] = row[at], last + 1 if one == other else 0
            best = max(best, row[at])
    return best


def _subsequence(said: Sequence[str], right: Sequence[str]) -> int:
    row = [0] * (len(right) + 1)
    for one in said:
        last = 0
        for at, other in enumerate(right, start=1):
            last, row[at] = row[at], last + 1 if one == other else max(row[at], row[at - 1])
    return row[-1]
