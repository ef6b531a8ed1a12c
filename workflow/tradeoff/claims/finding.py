"""What a judge of claims finds, and its numbers in words."""

from dataclasses import dataclass

from workflow.tradeoff.claims.claimfile import Interval

CONSISTENT, INCONSISTENT, NOT_CHECKABLE = "consistent", "inconsistent", "not_checkable"


@dataclass(frozen=True)
class Finding:
    """status, and in words and numbers why. ``own``: found here, not inherited from a part."""

    status: str
    arithmetic: str
    own: bool = True


def number(value: float) -> str:
    """At least four significant digits."""
    return f"{value:,.2f}" if abs(value) >= 1000 else f"{value:.4g}"


def span(interval: Interval) -> str:
    return f"{number(interval.low)} to {number(interval.high)}"
