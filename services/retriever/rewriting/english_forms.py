"""The forms of English questions, as patterns: what begins one, what is no whole one, what needs nothing added."""

from __future__ import annotations

import re


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_PREPOSITIONS = "for|to|in|with|on|at|during|if|when|after|before"
_AUXILIARIES = "is|are|was|were|do|does|did|can|could|may|might|must|shall|should|will|would|have|has|had|am"

CONNECTIVE = _any(
    r"(?:(?:and|but|so|also|then|ok|okay|well|right|thanks|thank you|great|hmm|fine|alright|by the way)\b[,.!\s]*)+"
)
ABOUT = _any(
    r"(?:what about|how about|what of)\b\s*",
    r"(?:is|are) (?:it|that|this|they|there) (?:also |any )?(?:the )?(?:same|different|true|valid)\s+"
    rf"(?=(?:{_PREPOSITIONS})\b)",
    rf"(?:the )?same(?: question)?\s+(?=(?:{_PREPOSITIONS})\b)",
    r"(?:does|do|would) (?:it|that|this|they|these|the same) (?:rules? |limit )?(?:also )?"
    rf"(?:apply|count|work|go|hold)\s+(?=(?:{_PREPOSITIONS})\b)",
)
"""What leads to the thing that the question before is asked of now."""
TAIL = _any(r"[,\s]*(?:\b(?:too|as well|also|then|though|instead)\b)?[?.!…\s]*$")
WHOLE = _any(
    rf"(?:{_AUXILIARIES}|what|whats|what's|who|whom|whose|when|where|which|why|how)\b",
    r"(?:tell|explain|describe|show|list|give|summari[sz]e|let|compare|find|i|my|we)\b",
)
"""A question, a request or a statement that begins like a whole sentence."""
WHAT_IF = _any(r"(?:and |but )?(?:what happens |what )?(?:if|when|in case)\b")
PREPOSITION = _any(
    r"(?:for|in|on|at|with|without|during|after|before|from|to|by|while|within|as)\b\s*(?:the |a |an |my )?"
)
ARTICLE = _any(r"(?:the|a|an|my|our|your|any|some)\s+")
TO_WHOM = _any(r"^(?:to|with)\s+(?=\w)")
COURTESY = _any(
    r"(?:thanks?(?: you)?(?: very much| a lot| so much)?|ok(?:ay)?|great|perfect|got it|i see|hi|hello|hey|bye|goodbye|"
    r"cool|yes|no|good (?:morning|afternoon|evening)|understood|that's all|nothing else|never mind)"
    r"(?: (?:then|there|again))?[.!,\s]*"
)
ALONE = _any(
    r"\bwhat(?:'s| is)? (?:the )?(?:current |today's )?(?:date|day|time|weekday)\b.{0,20}(?:\bis it\b|today|now|$)",
    r"\d\s*[-+*/^%×]\s*[\d(]",
    r"\bwho are you\b|\bwhat can you do\b|\b(?:date|day) (?:is it )?today\b",
)
"""Questions for a clock, a calculator or about the assistant: about nothing that a list of topics would show."""
MORE = _any(
    r"(?:please )?(?:(?:can|could) you )?(?:(?:tell|give|show) me )?"
    r"(?:more|go on|continue|(?:in )?more details?|details|elaborate|then|then what|what then|what next|and next|"
    r"explain(?: (?:it|that|this))?|anything else|what else|(?:for )?example|an example|say more)"
    r"(?: (?:please|about (?:it|that|this)|in more detail|details?))*[?.!\s]*"
)
"""The question before, once more."""
THAT_ALONE = _any(
    r"\bthat\b(?=\s*(?:[?.!,]|$)|\s+(?:" + _AUXILIARIES + r"|also|apply|applies|mean|include|work|count|happen|"
    r"in|for|at|with|by|on|to|too|allowed|possible|paid|take|cost)\b)"
)
"""`that` as a word of its own, not as in "the laptop that was stolen"."""
EMPTY_IT = _any(
    r"\b(?:is|was) it (?:possible|allowed|ok(?:ay)?|true|necessary|permitted|forbidden|legal|fine)\b",
    r"\bhow long does it take\b|\b(?:what time|what day) is it\b|\bdoes it (?:take|matter)\b",
)
"""`it` that stands for nothing."""
WHY = _any(r"(?:but )?(?:why(?: is (?:that|it|this)(?: so)?| so| not)?|how so|how come)[?.! ]*")
HOW_MANY = _any(r"how (many|much)(?: (?:days?|hours?|weeks?))?(?= (?:do|does|can|could|have|has|are|is|may|am)\b)")
MINE = _any(r"\b(?:i|me|my)\b")
LEFT = _any(r"\b(?:left|remaining|balance|used|taken|still have)\b")
INTERROGATIVE = re.compile(
    r"^(?:please )?(?:(?:can|could) you )?(?:tell me |explain )?"
    r"(?:how (?:many|much|long|often|soon|early|far|do|does|can|is|are|to)?"
    r"(?: (?:days?|hours?|weeks?|months?|times?|yuan))?(?: of)?|what(?:'s| is| are| does| do| happens| should)?|"
    r"when(?: is| are| do| does| must| can)?|where(?: is| are| do| does| can)?|who(?: is| are)?|which|why|"
    rf"{_AUXILIARIES})\b\s*"
    r"(?:(?:i|we|you|the|a|an|my|there|it|be|do|does|is|are|can)\b\s*)*",
    re.IGNORECASE,
)
"""The beginning that makes a question of what follows."""
DAYS_OF_DAYS = _any(r"\bdays of ((?:[\w-]+ )*days\b)")
WHEN = _any(r" (?:(?:in|into|to|until|for|during) )?(?:the )?(?:next|this|last) (?:year|month|week|quarter)\b")
