"""A task of four tools, as somebody writes it: the bill of a shop.

One procedure solves all 450 problems. Prices are small, so that shorter programs solve many of them by coincidence: the
shortest programs of all problems are 88.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from modelnative import ToolTask, tool

PRICES = {"pen": 2, "book": 12, "lamp": 24, "mug": 8, "bag": 36}
OFF = {"none": 0, "member": 10, "staff": 50}
RATES = {"EUR": 1.0, "USD": 1.1, "GBP": 0.9}
PROCEDURE = "price item times R1 n discount R2 code convert R3 currency ANS R4"


@tool
def price(item: Annotated[Literal["pen", "book", "lamp", "mug", "bag"], "what is sold"]) -> int:
    """The price of an item."""
    return PRICES[item]


@tool
def times(a: int, b: int) -> int:
    """The product."""
    return a * b


@tool
def discount(amount: int, code: Literal["none", "member", "staff"]) -> int:
    """The price after a discount, rounded."""
    return round(amount * (100 - OFF[code]) / 100)


@tool
def convert(amount: int, currency: Literal["EUR", "USD", "GBP"]) -> int:
    """The price in another currency, rounded."""
    return round(amount * RATES[currency])


def total(problem: dict[str, Any]) -> int:
    """The right answer."""
    full = times(price(problem["item"]), problem["n"])
    return convert(discount(full, problem["code"]), problem["currency"])


def make(solve: bool = False) -> ToolTask:
    """The task, with the procedure given or to be searched for."""
    inputs = {"item": list(PRICES), "n": range(1, 11), "code": list(OFF), "currency": list(RATES)}
    tools = [price, times, discount, convert]
    return ToolTask(tools, inputs, total, solve=PROCEDURE if solve else None, calls=4)


task = make()  # for the command line: --task tests.helpers.bill:task
