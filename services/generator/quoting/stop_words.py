"""Words that carry little or no meaning in a question."""

from __future__ import annotations

_ENGLISH = """
    overview summary summarize summarise explain describe outline
    a about above after again all also am an and any are as at be because been before being between both but by can
    could did do does doing down during each either else ever few for from further get gets give had has have having
    he her here hers him his how i if in into is it its itself just let like long many may me might more most much my
    myself no nor not now of off often on once only or other our ours out over own per please same shall she should so
    some such tell than that the their theirs them then there these they this those through to too under until up upon
    us very was we were what when where whether which while who whom whose why will with would yes yet you your yours
    im ive id dont doesnt cant isnt whats there's large big old high far soon quickly whats
"""
_CHINESE = """
    等于 不能 不可 不会 几点 几次 几个 几岁 要钱 要不要 能不能 可不可以 会不会 人 放 带 看 发 找 点 哪种 多 少 该
    介绍 概述 概括 总结 简述 说明 流程 步骤 手续 情况
    的 了 是 在 吗 呢 吧 啊 呀 嘛 么 和 与 及 或 或者 我 我们 你 你们 您 他 她 它 他们 自己 这 那 这个 那个 这些 那些
    请 请问 怎么 怎样 怎么样 怎么办 如何 什么 哪些 哪个 哪里 哪儿 哪 为什么 为何 多少 几 几天 几个 多久 多长 多大 多高
    多远 何时 谁 一下 告诉 知道 想 要 会 能 能够 可以 可 应该 应 应当 需要 需 必须 须 就 都 也 还 还有 又 再 很 最 更
    太 把 被 对 对于 关于 于 由 从 到 给 等 之 其 并 而 且 但 但是 如果 若 则 所 以 因 因为 所以 有 有没有 没有 没 不
    不是 是不是 是否 能否 可否 上 下 中 里 内 前 后 时 个 天 元 年 月 日 次 种 一 一个 一天 每 每个 怎 做 去 来 叫
    名字 算 钱 好 哪一天 几号 什么时候 时候 具体 目前 现在 规定
"""
_WEAK = """
    period process procedur thing kind type number amount inform detail handl happen way time rate first
    处理 办理 安排 方式 方法 问题 时间 期限 期间 事情 内容 相关 数量 一次 标准 地方
    left remain still 剩 剩余 还剩
    compani employe employee worker staff need must work busi polici rule made make use take day year
    month week time 公司 员工 职工 单位 我司 政策 制度 要求 标准 办法 明年 今年 每年 每月 每天 每周 每晚
"""

ENGLISH_STOP = frozenset(_ENGLISH.split())
CHINESE_STOP = frozenset(_CHINESE.split())

PARTICLES = frozenset(
    "的了是在吗呢吧啊呀嘛么和与及或我你您他她它这那就都也还再很最更把被对于由从到给等之其并而但若则因有没不请"
    "能要会可得该想多却先才只让"
)
"""Characters that never begin or end a word of their neighbours."""

WEAK = frozenset(_WEAK.split())
"""Words, English ones stemmed, that nearly every sentence about work carries: they count, but little."""

_SAME = "vacat leav, pto leav, paid pay, took take, bought buy, lost lose, sent send, gave give, stolen steal, "
_SAME += "kept keep, held hold, told tell, spent spend, wrote write, written write, chose choos, chosen choos, "
_SAME += "notebook laptop, wfh remot, 辞职 离职, 年休假 年假, 笔记本电脑 电脑, 居家办公 远程办公"
SAME_WORD: dict[str, str] = dict(tuple(pair.split(" ")) for pair in _SAME.split(", "))  # type: ignore[misc]
"""English forms that a stemmer does not bring together, and a few words that mean the same in questions about work."""
