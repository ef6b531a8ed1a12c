"""The gates: what must hold before a cell's figures are shown. Pure functions over what the stages wrote.

Each gate returns a reason in plain words, or None when the cell passes.
"""

import math
from collections.abc import Iterable, Mapping

from workflow.tradeoff import growth
from workflow.tradeoff.run.environment import COMPARED, flatten
from workflow.tradeoff.variants import Variant

QUANTIZED_LEAST = 0.5  # share of the weights in matrices that must be stored in the variant's own bits
NAMED = 3  # matrices that a reason names
KL_MOST = 2.0  # nats a token; a rounding of weights that still works stays far below one
DELTA_NLL_MOST = 2.0  # nats a token: perplexity 7.4 times the baseline's


def not_quantized(variant: Variant, proof: Mapping) -> str | None:
    """A variant named after 8 or 4 bits whose linear weights are mostly stored otherwise.

    What an engine counts as quantized it may say in ``proof``: ``counted``, words that follow "the linear weights are".
    """
    if not variant.quantized:
        return None
    fraction, counted = proof.get("quantized_fraction"), proof.get("counted")
    counted = counted or (f"{variant.bits}-bit" if variant.bits else "of fewer than 16 bits")
    if fraction is None:
        return f"nothing shows that the linear weights are {counted}: the proof has no quantized_fraction"
    if fraction >= QUANTIZED_LEAST:
        return None
    return f"only {fraction:.0%} of the linear weights are {counted}{_left(proof)}"


def _left(proof: Mapping) -> str:
    """The largest matrices that a quantizer left alone, where the proof names them."""
    named = proof.get("left_unquantized") or {}
    if not named:
        return ""
    shares = [f"{name} ({size / proof['linear_weights']:.0%})" for name, size in list(named.items())[:NAMED]]
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return f": {', '.join(shares)}{more} are left as they were"


def other_cache(variant: Variant, proof: Mapping) -> str | None:
    """A variant that asks for a type of keys and values, and an engine that kept another."""
    asked, kept = variant.cache_type, proof.get("cache_type") or "a type that nothing shows"
    return f"keys and values are kept in {kept}, not in {asked}" if asked and asked != kept else None


def not_cached(variant: Variant, proof: Mapping) -> str | None:
    """A variant that keeps past key values whose engine has none, or whose decode step costs what a whole pass does.

    The second is judged by ``growth.costs_a_pass``.
    """
    if not variant.cache:
        return None
    if proof.get("cache") is False:
        return "the engine keeps no past key values: each token runs the whole text again"
    times = proof.get("cache_growth") or {}
    if not times.get("pass_s"):
        return None
    (short_step, long_step), (short_pass, long_pass) = times["step_s"], times["pass_s"]
    if growth.costs_a_pass(times["step_s"], times["pass_s"]):
        return (
            f"a decode step after {times['lengths'][1]} tokens takes {1e3 * long_step:.3g} ms and the whole pass over "
            f"them {1e3 * long_pass:.3g} ms; after {times['lengths'][0]} tokens {1e3 * short_step:.3g} and "
            f"{1e3 * short_pass:.3g} ms: past key values are not used"
        )
    return None


def fell_back(proof: Mapping, device: str) -> str | None:
    """Matrix products that run on another execution provider, or parameters on another device, than asked for."""
    heavy = proof.get("heavy_elsewhere") or []
    if heavy:
        names = heavy if isinstance(heavy, Mapping) else sorted(set(map(str, heavy)))
        return f"matrix products run on another execution provider than asked for on {device}: {', '.join(names)}"
    elsewhere: dict[str, int] = {}
    for place, count in (proof.get("parameters") or {}).items():
        where = place.rpartition("@")[2].split(":")[0]
        if "@" in place and where != device:
            elsewhere[where] = elsewhere.get(where, 0) + count
    if elsewhere:
        return f"{sum(elsewhere.values()):,} parameters are on {', '.join(sorted(elsewhere))}, not on {device}"
    return None


def diverged(
    nll: Iterable[float | None],
    kl_mean: float | None,
    delta_nll: float | None,
    kl_most: float = KL_MOST,
    delta_most: float = DELTA_NLL_MOST,
) -> str | None:
    """NLL that is not a number, or a distance to the baseline beyond reason.

    nll: mean NLL of each convention, None where it is not a number. kl_mean: mean KL divergence from the
    baseline, delta_nll: mean NLL less the baseline's, both nats a token; None where unknown.
    """
    if any(value is None or not math.isfinite(value) for value in nll):
        return "the log-probabilities are not numbers (NaN or infinite)"
    if kl_mean is not None and not kl_mean <= kl_most:
        return f"KL divergence from the baseline is {kl_mean:.2f} nats a token, beyond {kl_most:g}"
    if delta_nll is not None and not abs(delta_nll) <= delta_most:
        return f"NLL differs from the baseline's by {delta_nll:+.2f} nats a token, beyond {delta_most:g}"
    return None


def environment_differences(one: Mapping | None, other: Mapping | None) -> list[str]:
    """Fields in which two environments differ, as ``field: a | b``; only those that decide what may be compared."""
    first, second = (flatten({key: (data or {}).get(key) for key in COMPARED}) for data in (one, other))
    return [
        f"{name}: {first.get(name, 'absent')} | {second.get(name, 'absent')}"
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name)
    ]
