"""The words by which an English question is cut into pieces, lower-cased; an `_` stands for a blank.

Aspects are compared by their stem, but for those whose stem is also another word's (rate, rating). A word that is in no
list belongs to a topic.
"""

from __future__ import annotations

from services.retriever.search_text import stem

from .pieces import Kind, lexicon

_FUNCTION = """
    a an the and or but so also then well okay ok right please thanks i we you me us my our your mine ours yours im
    ive id is are was were be been being am do does did doing done have has had having can could may might must
    shall should will would need to of in on at for from by with without about as into than per within until up out
    off if when while where who whom whose which what whats why how many much long often soon early late far high
    big large old there not no never any some all each every either both only just still already even too very more
    most less least else day days hour hours week weeks month months year years minute minutes time times yuan
    working get gets got getting give gives go goes going let want wants like know tell_me explain describe show say
    says mean means company employee employees staff people person somebody someone anybody anyone everybody policy
    policies rule rules one ones another same exactly actually really possible allowed able ever left remaining
    balance kind kinds type types again now anything something everything nothing he she i'm i've don't can't isn't
    doesn't won't let's that's what's work works job thing things per_year a_year a_month a_week a_day at_once
    at_least at_most how_many how_much how_long whether because during through over under since between against
    after before around via onto
"""
_ASPECT = """
    apply application request ask require approve approval permission consent agree refuse reject decline deny
    submit send cancel change extend extension shorten postpone carry transfer expire lapse pay cash reimburse claim
    deduct cost price fee free limit maximum minimum amount percentage deadline certificate proof document paperwork
    receipt invoice signature sign process procedure step condition eligible qualify criteria exception reason
    consequence penalty punish happen effect affect count include cover contain use take split divide combine
    contact email phone responsible manager supervisor boss begin start end last finish return repay refund replace
    repeat check see find look inform notify report reply respond decide decision appeal choose detail difference
    miss forget exceed bring spend buy keep upload receive tell ban
"""
_ASPECT_EXACT = """
    carried over hr finance department head help_desk extension number rate cap charge charges form forms part parts
    half halves call due date period notice advance ahead answer example examples different later earlier online
    paper early store stored stay add up anonymous anonymously written writing review proportion pro-rated prorated
    salary money full unused enough accumulate longer shorter sooner second first twice once unpaid prove place size
    booked reserve reserved in_advance in_writing in_a_row at_the_same_time collect collected involved protected
    taxed used taken spent expensive cheap safe valid allowed done called told paid forgot kept bought requirement
    requirements renew record hand object payment payout park parked
"""
_TOPIC = "work_from_home working_from_home work_at_home working_at_home home_office"
_POINTER = "it its they them their theirs these those this"
_PERSON = """
    contractor contractors intern interns trainee trainees newcomer newcomers new_employees new_employee new_hires
    new_hire part-timers part-time_employees freelancers freelancer executives students engineers designers engineer
    designer vice_presidents fathers mothers managers
"""
_KIN = """
    grandparent grandparents grandmother grandfather brother brothers sister sisters sibling siblings spouse partner
    child children kids parent parents father mother wife husband family family_members parent-in-law twins twin
    triplets
"""
_PLACE = """
    beijing shanghai guangzhou shenzhen hangzhou chengdu nanjing abroad overseas china germany japan usa europe
    other_cities other_provincial_capitals provincial_capitals home hong_kong singapore elsewhere
"""
_TIME = """
    weekend weekends weekday weekdays holiday holidays public_holidays public_holiday monday tuesday wednesday
    thursday friday saturday sunday mondays fridays saturdays sundays tomorrow next_year this_year last_year night
    evening mid-year year-end summer winter january february march april june july august september october november
    december spring_festival
"""
_PERIOD = "probation pregnancy"
_EVENT = """
    ill resign resigns quit lose lost stolen steal broken break damage damaged die dies married marry pregnant
    sick_on hospital fired leave_the_company leave_clearboat fall_ill get_ill
    passed_away late_for am_late come_late be_late
"""

WORDS = lexicon(
    (Kind.TOPIC, "", _TOPIC),
    (Kind.CONDITION, "person", _PERSON),
    (Kind.CONDITION, "kin", _KIN),
    (Kind.CONDITION, "place", _PLACE),
    (Kind.CONDITION, "time", _TIME),
    (Kind.CONDITION, "period", _PERIOD),
    (Kind.EVENT, "", _EVENT),
    (Kind.POINTER, "", _POINTER),
    (Kind.ASPECT, "", _ASPECT + _ASPECT_EXACT),
    (Kind.FUNCTION, "", _FUNCTION),
)
ASPECT_STEMS = frozenset(stem(word) for word in _ASPECT.split())
LONGEST = max(len(word.split()) for word in WORDS)

NEEDS_OBJECT = frozenset(["use", "take", "taken", "apply", "claim", "request", "get", "have", "submit"])
"""Actions of which a question must say, or have said before, what they are done to."""
