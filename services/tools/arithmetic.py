"""Exact arithmetic that cannot be made to run long: every value fits in `MAX_BITS`, or is rounded, or is refused.

Numbers are fractions, so that 0.1 + 0.2 is 0.3. Roots and broken exponents are computed to 40 digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow, Underflow
from fractions import Fraction

MAX_BITS = 4096
"""Largest numerator or denominator that is kept exactly: about 1,200 digits."""
MAX_EXPONENT = 1_200
"""Powers of ten beyond which a number is refused."""
SHOWN_DIGITS = 16


class Refused(Exception):
    """Why there is no result, in both languages."""

    def __init__(self, *, zh: str, en: str) -> None:
        super().__init__(en)
        self.zh = zh
        self.en = en


class Arithmetic:
    """The operations of one expression. `exact` turns false when any of them had to round.

    Every method raises `Refused` where there is no result or it is out of bounds.
    """

    def __init__(self) -> None:
        traps = [InvalidOperation, DivisionByZero, Overflow, Underflow]
        self._rounded = Context(prec=40, Emax=MAX_EXPONENT, Emin=-MAX_EXPONENT, traps=traps)

    @property
    def exact(self) -> bool:
        return not self._rounded.flags[Inexact]

    def literal(self, text: str) -> Fraction:
        """A decimal literal as Python writes it, without a sign."""
        mantissa, _, exponent = text.lower().partition("e")
        power = int(exponent) if exponent else 0
        if abs(power) > MAX_EXPONENT:
            raise _out_of_bounds()
        return self.bounded(Fraction(mantissa) * Fraction(10) ** power)

    def bounded(self, value: Fraction) -> Fraction:
        """`value`, rounded to 40 digits where its exact form is too long; an integer of that size is refused."""
        if max(value.numerator.bit_length(), value.denominator.bit_length()) <= MAX_BITS:
            return value
        if value.denominator == 1:
            raise _out_of_bounds()
        return self._round(lambda: self._decimal(value))

    def add(self, left: Fraction, right: Fraction) -> Fraction:
        return self.bounded(left + right)

    def subtract(self, left: Fraction, right: Fraction) -> Fraction:
        return self.bounded(left - right)

    def multiply(self, left: Fraction, right: Fraction) -> Fraction:
        return self.bounded(left * right)

    def divide(self, left: Fraction, right: Fraction) -> Fraction:
        return self.bounded(left / _nonzero(right))

    def floor_divide(self, left: Fraction, right: Fraction) -> Fraction:
        return self.bounded(Fraction(left // _nonzero(right)))

    def modulo(self, left: Fraction, right: Fraction) -> Fraction:
        return self.bounded(left % _nonzero(right))

    def power(self, base: Fraction, exponent: Fraction) -> Fraction:
        if base == 0 and exponent < 0:
            raise _division_by_zero()
        if base == 1 or exponent == 0:
            return Fraction(1)
        if base == 0:
            return base
        if exponent.denominator == 1:
            if base == -1:
                return base ** (exponent.numerator % 2)
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if bits * abs(exponent.numerator) <= MAX_BITS:
                return base**exponent.numerator
            if base.denominator == 1 and exponent > 0 and (abs(base) - 1) * exponent > MAX_BITS:
                raise _out_of_bounds()
        elif base < 0:
            raise Refused(
                zh="负数没有实数的分数次幂。", en="A negative number has no real power with a broken exponent."
            )
        return self._round(lambda: self._rounded.power(self._decimal(base), self._decimal(exponent)))

    def square_root(self, value: Fraction) -> Fraction:
        if value < 0:
            raise Refused(zh="负数没有实数平方根。", en="A negative number has no real square root.")
        exact = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
        return exact if exact * exact == value else self._round(lambda: self._rounded.sqrt(self._decimal(value)))

    def absolute(self, value: Fraction) -> Fraction:
        return abs(value)

    def round(self, value: Fraction, digits: Fraction = Fraction(0)) -> Fraction:
        """Commercial rounding: halves go away from zero."""
        if digits.denominator != 1 or abs(digits) > 50:
            raise Refused(
                zh="round 的第二个参数必须是 -50 到 50 之间的整数。",
                en="The second argument of round must be a whole number from -50 to 50.",
            )
        scale = Fraction(10) ** digits.numerator
        rounded = math.floor(abs(value) * scale + Fraction(1, 2)) / scale
        return self.bounded(rounded if value >= 0 else -rounded)

    def floor(self, value: Fraction) -> Fraction:
        return Fraction(math.floor(value))

    def ceil(self, value: Fraction) -> Fraction:
        return self.bounded(Fraction(math.ceil(value)))

    def least(self, *values: Fraction) -> Fraction:
        return min(values)

    def greatest(self, *values: Fraction) -> Fraction:
        return max(values)

    def sum(self, *values: Fraction) -> Fraction:
        total = Fraction(0)
        for value in values:
            total = self.add(total, value)
        return total

    def average(self, *values: Fraction) -> Fraction:
        return self.divide(self.sum(*values), Fraction(len(values)))

    def show(self, value: Fraction) -> tuple[str, bool]:
        """`value` in decimals, and whether that is exact. Exact whole numbers are shown with all their digits."""
        if value.denominator == 1 and (self.exact or abs(value) < 10**SHOWN_DIGITS):
            return str(value.numerator), self.exact
        shown = _SHOWN.divide(Decimal(value.numerator), Decimal(value.denominator)).normalize(_SHOWN)
        text = f"{shown:f}" if -8 <= shown.adjusted() < SHOWN_DIGITS else str(shown)
        return text, self.exact and Fraction(shown) == value

    def _decimal(self, value: Fraction) -> Decimal:
        return self._rounded.divide(Decimal(value.numerator), Decimal(value.denominator))

    def _round(self, compute: Callable[[], Decimal]) -> Fraction:
        try:
            return Fraction(compute())
        except (Overflow, Underflow, InvalidOperation):
            raise _out_of_bounds() from None


_SHOWN = Context(prec=SHOWN_DIGITS, Emax=4 * MAX_EXPONENT, Emin=-4 * MAX_EXPONENT)

OPERATIONS: Mapping[str, Callable[[Arithmetic, Fraction, Fraction], Fraction]] = {
    "+": Arithmetic.add,
    "-": Arithmetic.subtract,
    "*": Arithmetic.multiply,
    "/": Arithmetic.divide,
    "//": Arithmetic.floor_divide,
    "%": Arithmetic.modulo,
    "**": Arithmetic.power,
}

FUNCTIONS: Mapping[str, tuple[Callable[..., Fraction], int, int]] = {
    "sqrt": (Arithmetic.square_root, 1, 1),
    "abs": (Arithmetic.absolute, 1, 1),
    "round": (Arithmetic.round, 1, 2),
    "floor": (Arithmetic.floor, 1, 1),
    "ceil": (Arithmetic.ceil, 1, 1),
    "min": (Arithmetic.least, 1, 100),
    "max": (Arithmetic.greatest, 1, 100),
    "sum": (Arithmetic.sum, 1, 100),
    "avg": (Arithmetic.average, 1, 100),
}
"""By name: the method, and its least and most arguments."""


def _nonzero(divisor: Fraction) -> Fraction:
    if divisor == 0:
        raise _division_by_zero()
    return divisor


def _division_by_zero() -> Refused:
    return Refused(zh="除数不能为零。", en="Division by zero.")


def _out_of_bounds() -> Refused:
    return Refused(
        zh=f"数字太大或太小：计算器只处理约 {MAX_EXPONENT} 位以内的数。",
        en=f"That number is too large or too small: the calculator handles about {MAX_EXPONENT} digits.",
    )
