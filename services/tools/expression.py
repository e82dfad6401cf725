"""A small recursive-descent parser that computes as it reads. It knows numbers, operators and a few functions, and
nothing else: no names, no attributes, no Python.

    sum      = product { ("+" | "-") product }
    product  = unary { ("*" | "/" | "//" | "%") unary | "%" }        a "%" that no number follows is per cent
    unary    = { "+" | "-" } power
    power    = atom [ "**" unary ]                                   binds to the right
    atom     = NUMBER | "(" sum ")" | NAME "(" sum { "," sum } ")"
"""

from __future__ import annotations

import re
from fractions import Fraction

from .arithmetic import FUNCTIONS, OPERATIONS, Arithmetic, Refused

MAX_CHARS = 500
MAX_DEPTH = 50

_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_GROUPED = r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]*)?"
_OTHERS = r"(?P<name>[A-Za-z]+)|(?P<symbol>\*\*|//|[-+*/%(),])"
# Inside a function's parentheses a comma separates arguments, elsewhere it may group digits: 6,000.
_OUTSIDE = re.compile(rf"\s*(?:(?P<number>{_GROUPED}|{_NUMBER})|{_OTHERS})")
_INSIDE = re.compile(rf"\s*(?:(?P<number>{_NUMBER})|{_OTHERS})")

_FULL_WIDTH = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_SYMBOLS = str.maketrans(_FULL_WIDTH | {"×": "*", "÷": "/", "−": "-", "\u3000": " ", "²": "**2", "³": "**3"})

_SUMS = ("+", "-")
_PRODUCTS = ("*", "/", "//", "%")


def compute(text: str) -> tuple[str, bool]:
    """The value of an expression in decimals, and whether it is exact. Full-width characters, ×, ÷ and ^ (power) are
    understood.

    Raises:
        Refused: it is no expression, or too long, too deep or too large.
    """
    if len(text) > MAX_CHARS:
        raise Refused(
            zh=f"算式太长：最多 {MAX_CHARS} 个字符。",
            en=f"The expression is too long: at most {MAX_CHARS} characters.",
        )
    plain = text.translate(_SYMBOLS).replace("^", "**").rstrip("=? \t\r\n")
    if not plain.strip():
        raise Refused(zh="算式是空的。", en="The expression is empty.")
    arithmetic = Arithmetic()
    return arithmetic.show(_Parser(plain, arithmetic).whole())


class _Parser:
    def __init__(self, text: str, arithmetic: Arithmetic) -> None:
        self._text = text
        self._arithmetic = arithmetic
        self._at = 0
        self._depth = 0
        self._in_call = False

    def whole(self) -> Fraction:
        value = self._sum()
        if self._peek()[0] != "end":
            raise self._unexpected()
        return value

    def _sum(self) -> Fraction:
        value = self._product()
        while self._peek()[1] in _SUMS:
            symbol = self._next()
            value = OPERATIONS[symbol](self._arithmetic, value, self._product())
        return value

    def _product(self) -> Fraction:
        value = self._unary()
        while self._peek()[1] in _PRODUCTS:
            symbol = self._next()
            if symbol == "%" and self._is_percent():
                value = self._arithmetic.divide(value, Fraction(100))
            else:
                value = OPERATIONS[symbol](self._arithmetic, value, self._unary())
        return value

    def _is_percent(self) -> bool:
        kind, following = self._peek()
        if following in _SUMS:
            raise Refused(
                zh="“%” 后面的正负号有歧义：请把百分数写成 /100，或给后面的数加括号。",
                en='A sign after "%" is ambiguous: write per cent as /100, or put the number behind it in parentheses.',
            )
        return kind == "end" or following in (")", ",") or following in _PRODUCTS

    def _unary(self) -> Fraction:
        negative = False
        while self._peek()[1] in _SUMS:
            negative ^= self._next() == "-"
        value = self._power()
        return -value if negative else value

    def _power(self) -> Fraction:
        base = self._atom()
        if self._peek()[1] != "**":
            return base
        self._next()
        self._deeper()
        exponent = self._unary()
        self._depth -= 1
        return self._arithmetic.power(base, exponent)

    def _atom(self) -> Fraction:
        kind, text = self._peek()
        if kind == "number":
            return self._arithmetic.literal(self._next().replace(",", ""))
        if kind == "name" and text.lower() in FUNCTIONS:
            self._next()
            return self._call(text.lower())
        if text == "(":
            return self._parenthesis(in_call=False)[0]
        raise self._unexpected()

    def _call(self, name: str) -> Fraction:
        if self._peek()[1] != "(":
            raise self._unexpected()
        arguments = self._parenthesis(in_call=True)
        function, least, most = FUNCTIONS[name]
        if not least <= len(arguments) <= most:
            raise Refused(
                zh=f"{name} 需要 {least} 到 {most} 个参数，而不是 {len(arguments)} 个。",
                en=f"{name} takes {least} to {most} arguments, not {len(arguments)}.",
            )
        return function(self._arithmetic, *arguments)

    def _parenthesis(self, *, in_call: bool) -> list[Fraction]:
        """What stands between "(" and ")": one value, in a call also several."""
        self._next()
        outside, self._in_call = self._in_call, in_call
        self._deeper()
        values = [self._sum()]
        while in_call and self._peek()[1] == ",":
            self._next()
            values.append(self._sum())
        if self._peek()[1] != ")":
            raise self._unexpected()
        self._next()
        self._depth -= 1
        self._in_call = outside
        return values

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Refused(
                zh=f"算式嵌套太深：最多 {MAX_DEPTH} 层。",
                en=f"The expression is nested too deeply: at most {MAX_DEPTH} levels.",
            )

    def _match(self) -> re.Match[str] | None:
        return (_INSIDE if self._in_call else _OUTSIDE).match(self._text, self._at)

    def _peek(self) -> tuple[str, str]:
        """Kind and text of the next token, without taking it."""
        match = self._match()
        if match is not None:
            kind = match.lastgroup or ""
            return kind, match[kind]
        return ("unknown" if self._text[self._at :].strip() else "end"), ""

    def _next(self) -> str:
        match = self._match()
        if match is None:
            raise self._unexpected()
        self._at = match.end()
        return match[match.lastgroup or 0]

    def _unexpected(self) -> Refused:
        rest = self._text[self._at :].lstrip()
        if not rest:
            return Refused(
                zh="算式不完整，结尾处缺少数字或括号。",
                en="The expression is incomplete: a number or a parenthesis is missing at the end.",
            )
        name = re.match(r"[A-Za-z]+", rest)
        found = name[0][:20] if name else rest[0]
        position = len(self._text) - len(rest) + 1
        known = ", ".join(FUNCTIONS)
        return Refused(
            zh=f"看不懂第 {position} 个字符处的“{found}”。可以用数字、+ - * / // % **、括号和函数 {known}。",
            en=f'Cannot read "{found}" at character {position}. Numbers, + - * / // % **, parentheses and the '
            f"functions {known} are allowed.",
        )
