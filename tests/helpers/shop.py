"""A task of four tools, as somebody writes it: the bill of a shop. One procedure solves all 450 problems."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from modelnative import ToolTask, tool

PRICES = {"pen": 120, "book": 1250, "lamp": 2400, "mug": 650, "bag": 3300}
OFF = {"none": 0, "member": 10, "staff": 25}
RATES = {"EUR": 1.0, "USD": 1.09, "GBP": 0.86}
PROCEDURE = "price item times R1 n discount R2 code convert R3 currency ANS R4"


@tool
def price(item: Annotated[Literal["pen", "book", "lamp", "mug", "bag"], "what is sold"]) -> int:
    """The price of an item in cents."""
    return PRICES[item]


@tool
def times(a: int, b: int) -> int:
    """The product."""
    return a * b


@tool
def discount(cents: int, code: Literal["none", "member", "staff"]) -> int:
    """The price after a discount, rounded."""
    return round(cents * (100 - OFF[code]) / 100)


@tool
def convert(cents: int, currency: Literal["EUR", "USD", "GBP"]) -> int:
    """The price in another currency, rounded."""
    return round(cents * RATES[currency])


def bill(problem: dict[str, Any]) -> int:
    """The right answer."""
    full = times(price(problem["item"]), problem["n"])
    return convert(discount(full, problem["code"]), problem["currency"])


def make(solve: bool = False) -> ToolTask:
    """The task, with the procedure given or to be searched for."""
    inputs = {"item": list(PRICES), "n": range(1, 11), "code": list(OFF), "currency": list(RATES)}
    tools = [price, times, discount, convert]
    return ToolTask(tools, inputs, bill, solve=PROCEDURE if solve else None, calls=4)
