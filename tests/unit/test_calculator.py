"""The calculator against Python's own arithmetic, and against everything that is no arithmetic."""

from __future__ import annotations

import contextlib
import time
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.tools.arithmetic import Arithmetic, Refused
from services.tools.calculator import evaluate
from services.tools.expression import _Parser
from services.tools.port import ToolError

# A tree of operations as (text for the calculator, text for Python).
Pair = tuple[str, str]


def _number(value: int) -> Pair:
    return str(value), f"Fraction({value})"


def _combined(parts: tuple[Pair, str, Pair]) -> Pair:
    (left, python_left), symbol, (right, python_right) = parts
    return f"({left}) {symbol} ({right})", f"({python_left}) {symbol} ({python_right})"


def _negated(pair: Pair) -> Pair:
    return f"-({pair[0]})", f"-({pair[1]})"


def _raised(parts: tuple[Pair, int]) -> Pair:
    (base, python_base), exponent = parts
    return f"({base}) ** {exponent}", f"Fraction({python_base}) ** {exponent}"


def _called(parts: tuple[str, list[Pair]]) -> Pair:
    name, pairs = parts
    return f"{name}({', '.join(text for text, _ in pairs)})", f"{name}([{', '.join(text for _, text in pairs)}])"


EXPRESSIONS = st.recursive(
    st.integers(0, 10**6).map(_number),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(_combined),
        inner.map(_negated),
        st.tuples(inner, st.integers(-3, 3)).map(_raised),
        st.tuples(st.sampled_from(["min", "max", "sum"]), st.lists(inner, min_size=1, max_size=3)).map(_called),
    ),
    max_leaves=12,
)


def value_of(text: str) -> Fraction:
    return _Parser(text, Arithmetic()).whole()


@settings(max_examples=300)
@given(EXPRESSIONS)
def test_it_computes_what_python_computes(pair: Pair) -> None:
    text, python = pair
    try:
        expected = eval(python, {"Fraction": Fraction, "min": min, "max": max, "sum": sum})
    except ZeroDivisionError:
        with pytest.raises(Refused):
            value_of(text)
        return
    try:
        assert value_of(text) == expected
    except Refused:
        # Refused for its size or its depth, not for its form.
        assert len(str(expected)) > 100 or text.count("(") > 50


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from("+-*"), st.integers(0, 999)), min_size=1, max_size=30))
def test_precedence_is_python_s(terms: list[tuple[str, int]]) -> None:
    text = "1" + "".join(f"{symbol}{number}" for symbol, number in terms)
    assert evaluate(text) == f"= {eval(text)}"


@settings(max_examples=500)
@given(st.text(max_size=600))
@example("(" * 500)
@example("-" * 500 + "1")
@example("2**" * 166 + "2")
@example("9**9**9")
@example("9" * 500 + "**" + "9" * 90)
@example("0.1**99999")
@example("1.0000001**999999999999")
@example("1e1200*1e1200")
@example("1e-1200/1e1200")
@example("sqrt(" * 60)
@example("round(1, 99999999)")
@example("__import__('os').system('true')")
@example("١+١")
@example("\x00")
@example("1,0,0")
@example("\ud800")
def test_any_text_gives_a_result_or_a_tool_error(text: str) -> None:
    for language in ("zh", "en"):
        try:
            answer = evaluate(text, language)
        except ToolError as error:
            answer = str(error)
        assert 0 < len(answer) < 1_500


@settings(max_examples=500)
@given(st.lists(st.sampled_from([*"0123456789.+-*/%(),^ ", "**", "//", "e9", "sqrt(", "max("]), max_size=120))
def test_anything_that_looks_like_arithmetic_ends_quickly(parts: list[str]) -> None:
    started = time.process_time()
    with contextlib.suppress(ToolError):
        evaluate("".join(parts))
    assert time.process_time() - started < 2


def test_ten_megabytes_are_refused_unread() -> None:
    text = "1+" * 5_000_000
    started = time.process_time()
    with pytest.raises(ToolError, match="too long"):
        evaluate(text)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("0.1 + 0.2", "= 0.3"),
        ("1/3", "≈ 0.3333333333333333"),
        ("6,000 * 0.15", "= 900"),
        ("1,234,567.5 * 2", "= 2469135"),
        ("max(1,000)", "= 1"),
        ("max((1,000), 5)", "= 1000"),
        ("（128 + 72）×3＝？", "= 600"),
        ("１２÷５", "= 2.4"),
        ("15% * 6000", "= 900"),
        ("50%", "= 0.5"),
        ("17 % 5", "= 2"),
        ("-7 // 2", "= -4"),
        ("2^10", "= 1024"),
        ("-2**2", "= -4"),
        ("2**-1", "= 0.5"),
        ("2**3**2", "= 512"),
        ("sqrt(144)", "= 12"),
        ("sqrt(2)**2", "≈ 2"),
        ("2**0.5", "≈ 1.414213562373095"),
        ("round(2.5)", "= 3"),
        ("round(-1234.5678, 2)", "= -1234.57"),
        ("avg(1, 2, 4.5)", "= 2.5"),
        ("(1 + 0.049/12)**360", "≈ 4.336236886455043"),
        ("(-1)**99999999999999", "= -1"),
        ("2**200", f"= {2**200}"),
        ("3²", "= 9"),
    ],
)
def test_results_are_exact_where_they_can_be(text: str, result: str) -> None:
    assert evaluate(text) == result


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("1 +", "incomplete"),
        ("1 2", 'Cannot read "2" at character 3'),
        ("price * 2", 'Cannot read "price" at character 1'),
        ("1 / (2 - 2)", "Division by zero"),
        ("5 % 0", "Division by zero"),
        ("0 ** -1", "Division by zero"),
        ("9**9**9", "too large"),
        ("10 % -3", "ambiguous"),
        ("sqrt(-1)", "negative"),
        ("(-8) ** (1/3)", "negative"),
        ("min()", "Cannot read"),
        ("round(1, 2, 3)", "takes 1 to 2 arguments"),
        ("(" * 60 + "1" + ")" * 60, "nested too deeply"),
        ("1" * 501, "too long"),
    ],
)
def test_a_refusal_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ToolError, match=message.replace("(", r"\(")):
        evaluate(text)


def test_refusals_are_in_chinese_too() -> None:
    with pytest.raises(ToolError, match="除数不能为零"):
        evaluate("1÷0", "zh")
