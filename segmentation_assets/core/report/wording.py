"""Numbers, moments and names as people read them.

What belongs here: how a single value is written in the report and its pictures. What does not: what the report says
(page).
"""

import math
from datetime import UTC, datetime

from markupsafe import Markup, escape

from segmentation_assets.core.users import personas


def count(value: float) -> str:
    """A whole number with its thousands apart."""
    return f"{value:,.0f}"


def percent(share: float) -> str:
    """A share, 0..1, never rounded to nothing or to all."""
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.995 <= share < 1:
        return ">99%"
    return f"{share:.1%}" if 0 < share < 0.0995 else f"{share:.0%}"


def number(value: object) -> str:
    """A number to three significant digits or whole, thousands apart, no exponent; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return "not defined"
    return personas.number(value, 3)


def moment(value: datetime) -> str:
    """A moment to the minute, in UTC."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def day(value: datetime) -> str:
    """A day, in UTC."""
    return value.astimezone(UTC).strftime("%Y-%m-%d")


def words(name: str) -> str:
    """A name of the program as words: 'duplicate event'."""
    return name.replace("_", " ")


def sentence(text: str) -> str:
    """A definition as a sentence."""
    return capitalised(text) + ("" if text.endswith(".") else ".")


def capitalised(text: str) -> str:
    """A text that begins with a capital; the rest of it stays."""
    return text[:1].upper() + text[1:]


def breakable(text: str) -> Markup:
    """A text, escaped, that may go on in the next line after an underscore, as names of segments are long."""
    return Markup("_<wbr>").join(escape(part) for part in text.split("_"))
