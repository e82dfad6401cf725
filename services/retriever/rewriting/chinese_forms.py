"""The forms of Chinese questions, as patterns: what begins one, what is no whole one, what needs nothing added."""

from __future__ import annotations

import re

CONNECTIVE = re.compile(
    r"(?:(?:那么|那(?![个些天样里边种次儿份项])|还有(?=[,，、\s]|.{1,12}呢)|另外|然后(?!呢)|而且|对了|好的?(?=[,，、。\s])|嗯+|哦|"
    r"顺便问一下|再问一下|再问|请问|所以|但是|可是|不过|假如说|同样)[,，、。\s]*)+"
)
ABOUT = re.compile(r"(?:对于|关于|至于|换成|换作|如果是|要是|假如是|如果|换|遇到|碰到|碰上|遇上|赶上)(?=.)")
"""What leads to the thing that the question before is asked of now."""
STRONG = re.compile(r"[,，]?(?:的话)?(?:呢|也.{0,3}[吗么]|(?:也|是)?(?:一样|如此|这样)的?[吗么])[?？。!！~…\s]*$")
"""The end of a fragment: 那病假呢, 病假也一样吗."""
WEAK = re.compile(r"(?:(?:可以|行|有|能|适用|算|需要|包括)[吗么]|(?<!会)(?:又)?(?:怎么样|如何))?[?？。!！~…\s]*$")
"""What a fragment may end in where it is only a condition: 深圳可以吗."""
END = re.compile(r"(?:吗|呢|么|吧|啊|呀)?[?？。!！~…\s]*$")
ASKS = re.compile(
    r"什么|怎|如何|哪|谁|几|多少|多久|多长|多大|多高|多远|何时|为何|是否|能否|可否|[吗么]\s*[?？]?$|(.)不\1|有没有"
)
COURTESY = re.compile(
    r"(?:谢谢(?:你|您|啦|了)?|多谢|感谢|好的?|好吧|知道了|明白了?|了解了?|收到|你好|您好|再见|嗯+|哦+|没问题|没事了|可以了)[,，。!！~\s]*"
)
ALONE = re.compile(
    r"(?:今天|现在|此刻|今日|当前).{0,4}(?:几|星期|周|礼拜|日期|时间|什么日子|哪|多少号)|几点(?:钟)?了|\d\s*[-+*/×÷^%]\s*[\d(]|你是谁|你叫什么|你能做什么"
)
"""Questions for a clock, a calculator or about the assistant: about nothing that a list of topics would show."""
MORE = re.compile(
    r"(?:请|能|可以|麻烦)?(?:再)?(?:继续|接着说|详细(?:一?点|一些|说说|介绍|说明)?|具体(?:一?点|一些|说说|呢|讲讲)?|展开(?:说说)?|说(?:得)?详细(?:一?点|些)|"
    r"然后|接下来|接着|后来|还有(?:别的|其他的?|什么|更多)?|更多|多说一?点|举个例子|比如)(?:说说|说|讲讲|一下|吗|呢|信息|内容|细节)*[?？。!！\s]*"
)
"""The question before, once more."""
COMPARES = re.compile(r"(?:跟|和|与|比|同)(?!谁|哪|什么)")
MINE = re.compile(r"我|本人|自己")
LEFT = re.compile(r"剩|还有|还能|用了|休了|请了|余")
QUANTITY = re.compile(r"几|多少|多久|多长|什么时候|何时|最多|最少|至少|上限")
AMOUNT = re.compile(
    r"(?:\d[\d,.]*|[一二两三四五六七八九十百半]+)\s*个?(?:工作日|小时|分钟|月|天|元|块|年|周|次|公里|岁|人|名|位)(?:以上|以下|以内|之内|之后|以后|之前)?"
)
LATIN = re.compile(r"[A-Za-z0-9][\w.'-]*")
MODIFIER = re.compile(r"[\u4e00-\u9fff]{1,6}的$")
"""What is said of the noun behind it."""
WHEN = re.compile(r"(?:[到在]?(?:明年|今年|去年|次年|下一年|下个月|上个月|当月|当年))")
SPACE = re.compile(r"[\s,，。、.?？!！;；:：()（）“”\"'《》·~…-]+")
DROPPED_LEAD = re.compile(r"^(?:请问|我们?|公司|咱们)?(?:公司)?(?:的)?(?=.)")
"""What need not stand behind words that are put in front."""
