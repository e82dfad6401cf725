"""Words that say nothing about what a question is about; they are neither indexed nor looked for."""

from __future__ import annotations

_ENGLISH = """
    a about am an and any are as at be been being but by can could did do does doing done for from get had has have
    having he her here hers him his how i if in into is it its itself me my no nor not of on or our ours out over please
    she should so some such tell than that the their theirs them then there these they this those to too until up us was
    we were what when where which while who whom why will with would you your yours dont doesnt didnt isnt arent wasnt
    werent cant couldnt shouldnt wont wouldnt im ive id ill youre thats whats
"""
_CHINESE = """
    的 了 是 在 吗 呢 吧 啊 呀 嘛 么 和 与 及 或 我 我们 你 你们 您 他 她 它 他们 这 那 这个 那个 请 请问 怎么 怎样
    怎么样 如何 什么 哪些 哪个 哪里 为什么 多少 几 一下 告诉 想 就 都 也 还 把 被 对 于 由 从 到 给 等 之 其 并 而 但
    但是 如果
"""

ENGLISH_STOP_WORDS = frozenset(_ENGLISH.split())
"""Dropped before text reaches Milvus. An acronym (`IT`) is kept where it stands in capitals."""

CHINESE_STOP_WORDS = tuple(_CHINESE.split())
"""For the stop filter of Milvus' analyzer, because only the analyzer knows where Chinese words end."""
