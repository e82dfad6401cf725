"""Words that people at work use for the same thing: what a question calls one way, a document calls another.

General words of offices and their rules, in both languages; English ones are stemmed when they are read. They are said
alike in both directions, so it does not matter which of them the document has.
"""

from __future__ import annotations

from .words import stem

_ENGLISH = """
    leave vacation holiday
    boss manager supervisor superior
    ill sick unwell
    illness sickness disease
    father paternity dad
    mother maternity mum mom
    birth born childbirth
    child kid toddler baby infant
    spouse wife husband
    marriage married marry wedding
    death die died deceased bereavement funeral
    resign resignation quit
    pay salary wage earnings remuneration
    cost price fee
    expenses expense spend
    repay reimburse refund repaid
    colleague coworker workmate
    newcomer joiner starter
    applicant candidate
    client customer
    supplier vendor
    gift present
    certificate attestation
    doctor physician hospital
    video footage recording
    assessment review appraisal evaluation
    course training
    laptop computer pc
    receipt invoice
    trip travel journey
    hotel accommodation lodging
    flight fly plane
    car vehicle
    parcel package delivery
    pet dog cat animal
    dinner meal lunch
    canteen cafeteria
    phone telephone mobile
    mail email
    kilometre kilometer km
    internet broadband
    monitor screen display
    probation trial
    allow permit permission
    forbidden prohibited banned
    begin start commence
    end finish complete
    buy purchase
    extend prolong
    breach leak
    appeal objection object
    anonymous anonymously nameless
    approve approval consent agree
    counselling counsellor therapy
    gym fitness

    yearly annual
"""
_CHINESE = """
    年假 休假 假期
    主管 领导 上级 老板 经理
    工资 薪水 薪资 薪酬
    离职 辞职 辞工 走人
    生病 患病 病假
    结婚 婚假 完婚
    分娩 生育 产假
    母亲 妈妈
    父亲 爸爸
    配偶 老婆 妻子 老公 丈夫
    哺乳 喂奶 母乳
    孩子 子女 小孩 儿童
    收养 领养
    去世 逝世 过世 丧假
    试用期 考察期
    延长 拉长
    酒店 住宿 宾馆 旅馆
    发票 票据 收据
    补贴 津贴 补助
    培训 课程 学习 上课
    经费 预算
    电脑 笔记本 手提电脑 笔记本电脑
    密码 口令
    丢失 遗失 弄丢 丢
    泄露 泄漏 外泄
    礼品 礼物
    供应商 供货商
    宠物 狗 猫
    快递 包裹
    班车 大巴
    汽车 开车 驾车 自驾
    车位 停车位 停车
    通勤 交通
    餐厅 食堂
    监控 摄像头 录像
    考核 绩效 评估
    晋升 升职 提拔
    申诉 投诉 异议
    求职者 应聘者 候选人
    推荐 内推
    客人 访客 来访者 客户
    假日 节日 节假日
    星期三 周三 礼拜三
    证明 条子 病假条
    周岁 岁
"""


def _groups(text: str) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for line in text.split("\n"):
        words = frozenset(stem(word) if word.isascii() else word for word in line.split())
        for word in words:
            found[word] = found.get(word, frozenset()) | (words - {word})
    return found


SYNONYMS = {**_groups(_ENGLISH), **_groups(_CHINESE)}
"""The other words for a word, as `content_words` gives them."""
