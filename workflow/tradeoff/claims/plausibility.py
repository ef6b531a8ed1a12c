"""Can a statement be true, given the exact sizes of the models and cards that it speaks of?

One check per metric, each on the interval of the printed number. Sizes, bandwidths and limits come from
config/reference.yaml; none stands here.
"""

import math
from collections.abc import Mapping

from workflow.tradeoff.claims.claimfile import Claim, Interval, members
from workflow.tradeoff.claims.consistency import inherit
from workflow.tradeoff.claims.finding import Finding
from workflow.tradeoff.variants import VARIANTS

PLAUSIBLE, IMPLAUSIBLE, NOT_CHECKABLE = "plausible", "implausible", "not_checkable"
GB = 1e9
WIDTHS = (16, 32)
NOTHING = Finding(NOT_CHECKABLE, "no physical limit bears on this")


def judge(claims: Mapping[str, Claim], reference: dict) -> dict[str, Finding]:
    """A Finding for each claim: the check of its metric, then what its parts were found to be."""
    found: dict[str, Finding] = {}

    def visit(name: str) -> Finding:
        if name not in found:
            claim = claims[name]
            for part in claim.parts:
                visit(part)
            found[name] = inherit(claim, own(claim, claims, reference), found, IMPLAUSIBLE)
        return found[name]

    for name in claims:
        visit(name)
    return {name: found[name] for name in claims}


def own(claim: Claim, claims: Mapping[str, Claim], reference: dict) -> Finding:
    """The claim's own Finding: how the figure was made, then the check of its operation, then that of its metric."""
    protocol = reference["protocols"].get(claim.protocol, {})
    if protocol.get("variant", claim.variant) != claim.variant:
        return Finding(
            IMPLAUSIBLE,
            f"filed under {claim.variant}, but it is the figure of {protocol['variant']}: {protocol['work']}",
        )
    unlike = _unlike_work(claim, claims, reference)
    if unlike:
        return unlike
    if "busier" in claim.follows:
        return busier(*(claims[part] for part in claim.follows["busier"]), reference)
    if "steady" in claim.follows:
        return steady([[claims[part] for part in pair] for pair in claim.follows["steady"]], reference)
    check = CHECKS.get(claim.metric)
    return check(claim, reference) if check and claim.values else NOTHING


def _unlike_work(claim: Claim, claims: Mapping[str, Claim], reference: dict) -> Finding | None:
    """A ratio, or a speedup in words, whose two figures clocked different work."""
    pairs = claim.follows.get("ratio") or (
        claim.metric == "speedup" and (claim.follows.get("greater") or claim.follows.get("less"))
    )
    figures = [claims[part] for part in pairs or []]
    clocked = {figure.protocol: figure for figure in figures if figure.metric == "tokens_per_s"}
    if len(clocked) < 2 or claim.kind == "recommendation":
        return None
    words = "; ".join(
        f"{figure.printed[0]} is {reference['protocols'][name]['work']}" for name, figure in clocked.items()
    )
    return Finding(IMPLAUSIBLE, f"a ratio of unlike work: {words}")


# --- memory


def weights(model: dict, bits: int, wide: int, *, head_copy: bool = False) -> float:
    """Bytes of the weights: linear layers at ``bits``, everything else at ``wide`` bits where that is more.

    head_copy: an exported graph may hold a tied head a second time, as a linear layer.
    """
    rest = model["parameters"] - model["linear"]
    copied = model["embedding"] if head_copy and model["tied"] else 0
    return (model["linear"] + copied) * bits / 8 + rest * max(bits, wide) / 8


def memory(claim: Claim, reference: dict) -> Finding:
    """Memory below the weights, equal to the weights at a wider precision, or far above weights and cache."""
    findings = [_memory(claim, name, reference) for name in members(claim.model, reference)]
    if len(findings) > 1:
        # the document names no model: it stands accused only if no candidate fits
        fitting = [finding for finding in findings if finding.status == PLAUSIBLE]
        return fitting[0] if fitting else Finding(IMPLAUSIBLE, "; ".join(finding.arithmetic for finding in findings))
    return findings[0]


def _memory(claim: Claim, name: str, reference: dict) -> Finding:
    model, limits, variant = reference["models"][name], reference["limits"], VARIANTS[claim.variant]
    low, high = claim.interval.low * GB, claim.interval.high * GB
    floor = model["parameters"] * variant.bits / 8
    onnx = variant.engine == "onnx"
    expected = weights(model, variant.bits, 32 if onnx else 16, head_copy=onnx)
    cache = model["kv_bytes_per_token"] * limits["cache_tokens"]
    printed = f"printed {claim.printed[0]} GB (at most {high / GB:.3f})"
    if high < floor:
        words = f"{name} has {model['parameters']:,} parameters, {floor / GB:.3f} GB at {variant.bits} bits; {printed}"
        return Finding(IMPLAUSIBLE, f"below the weights: {words}{_whose(claim, name, variant.bits, reference)}")
    if low <= (expected + cache) * (1 + limits["same_as_weights"]):
        words = (
            f"weights {expected / GB:.3f} GB and at most {cache / GB:.3f} GB of cache for {name} at {variant.bits} bits"
        )
        return Finding(PLAUSIBLE, f"{words}, printed {claim.printed[0]} GB")
    for bits in (width for width in WIDTHS if width > variant.bits):
        wider = model["parameters"] * bits / 8
        if low <= wider * (1 + limits["same_as_weights"]) and high >= wider * (1 - limits["same_as_weights_below"]):
            words = f"{name} takes {wider / GB:.3f} GB at {bits} bits and {expected / GB:.3f} GB as {variant.precision}"
            return Finding(IMPLAUSIBLE, f"the memory of {bits}-bit weights: {words}; printed {claim.printed[0]} GB")
    words = f"weights {expected / GB:.3f} GB and at most {cache / GB:.3f} GB of cache for {name} as {variant.precision}"
    if low > (expected + cache) * (1 + limits["excess"]):
        extra = f"{claim.printed[0]} GB is {low / (expected + cache):.1f} times that or more"
        return Finding(IMPLAUSIBLE, f"holds more than the model: {words}; {extra}")
    return Finding(PLAUSIBLE, f"{words}, printed {claim.printed[0]} GB")


def _whose(claim: Claim, name: str, bits: int, reference: dict) -> str:
    """The other model, if any, whose weights at these bits print like the claim."""
    for other, model in reference["models"].items():
        size = model["parameters"] * bits / 8 / GB
        if other != name and claim.interval.low <= size <= claim.interval.high:
            return f", which is the size of {other} ({size:.3f} GB)"
    return ""


# --- speed


def token_bytes(model: dict, bits: int) -> float:
    """Fewest bytes that a decoded token must read: each weight once at ``bits`` bits, looked-up tables left out."""
    looked_up = model["positions"] + (0 if model["tied"] else model["embedding"])
    return (model["parameters"] - looked_up) * bits / 8


def bandwidth_use(claim: Claim, reference: dict) -> tuple[float, float, str] | None:
    """(bytes/s that the claimed speed needs at least, the card's nominal bytes/s, the card), or None if unknown."""
    card = reference["cards"].get(reference["protocols"].get(claim.protocol, {}).get("device"))
    if card is None or claim.model not in reference["models"]:
        return None
    needed = claim.interval.low * token_bytes(reference["models"][claim.model], VARIANTS[claim.variant].bits)
    return needed, card["bandwidth_nominal"], reference["protocols"][claim.protocol]["device"]


def speed(claim: Claim, reference: dict) -> Finding:
    """Tokens/s above the bandwidth roofline."""
    use = bandwidth_use(claim, reference)
    if use is None:
        return Finding(NOT_CHECKABLE, "the document names no model, or the bandwidth of the processor is not known")
    needed, nominal, card = use
    words = f"{claim.printed[0]} tokens/s read {needed / GB:.1f} GB/s at least, of the {nominal / GB:.0f} GB/s "
    words += f"that a {card} has on paper ({100 * needed / nominal:.0f} %)"
    return Finding(IMPLAUSIBLE if needed > nominal else PLAUSIBLE, words)


def busier(first: Claim, other: Claim, reference: dict) -> Finding:
    """The first speed uses more of the card's bandwidth than the other."""
    one, two = bandwidth_use(first, reference), bandwidth_use(other, reference)
    if one is None or two is None:
        return Finding(NOT_CHECKABLE, "the bandwidth of the processor is not known")
    shares = [100 * needed / nominal for needed, nominal, _ in (one, two)]
    words = f"{first.model} at {first.printed[0]} tokens/s uses {shares[0]:.0f} % of the bandwidth, "
    words += f"{other.model} at {other.printed[0]} uses {shares[1]:.0f} %"
    return Finding(PLAUSIBLE if shares[0] > shares[1] else IMPLAUSIBLE, words)


def steady(pairs: list[list[Claim]], reference: dict) -> Finding:
    """Standard deviations against the time of one generation: new tokens / (tokens/s)."""
    limit, words, unsteady = reference["words"]["steady_share"], [], False
    for deviation, rate in pairs:
        seconds = reference["protocols"][rate.protocol]["new_tokens"] / rate.value
        share = deviation.interval.low / seconds
        unsteady |= share > limit
        words.append(f"±{deviation.printed[0]} s of {seconds:.3f} s is {100 * deviation.value / seconds:.0f} %")
    text = f"{'; '.join(words)}, against at most {100 * limit:.0f} % for consistent"
    return Finding(IMPLAUSIBLE if unsteady else PLAUSIBLE, text)


# --- accuracy


def loss(claim: Claim, reference: dict) -> Finding:
    """A loss close to that of a uniform guess, ln(vocabulary)."""
    if claim.metric == "perplexity":
        nll = Interval(math.log(claim.interval.low), math.log(claim.interval.high))
        words = f"ln {claim.printed[0]} = {math.log(claim.value):.3f}"
    else:
        nll, words = claim.interval, f"{claim.printed[0]}"
    if claim.model not in reference["models"]:
        return NOTHING
    model = reference["models"][claim.model]
    uniform = math.log(model["vocabulary"])
    text = f"{words} nats is {100 * nll.low / uniform:.0f} % of a uniform guess, "
    text += f"ln {model['vocabulary']:,} = {uniform:.3f}"
    published = model.get("published")
    if published:
        text += f"; published {published['perplexity']} ({published['how']})"
    return Finding(IMPLAUSIBLE if nll.low > reference["limits"]["uniform_share"] * uniform else PLAUSIBLE, text)


def score(claim: Claim, reference: dict) -> Finding:
    """A score at the ceiling of its heuristic is not that many out of five."""
    protocol = reference["protocols"].get(claim.protocol, {})
    ceiling = protocol.get("maximum")
    if ceiling is None or claim.value < ceiling:
        return NOTHING
    return Finding(
        IMPLAUSIBLE, f"{claim.printed[0]} is the most that it can give, not {claim.printed[0]} of 5: {protocol['work']}"
    )


def count(claim: Claim, reference: dict) -> Finding:
    """Tokens and rows against an exact count of the same text."""
    exact = reference["protocols"].get(claim.protocol, {}).get(claim.metric)
    if exact is None:
        return NOTHING
    same = claim.interval.low <= exact <= claim.interval.high
    return Finding(PLAUSIBLE if same else IMPLAUSIBLE, f"counted: {exact:,}, printed {claim.printed[0]}")


CHECKS = {
    "memory_gb": memory,
    "tokens_per_s": speed,
    "perplexity": loss,
    "nll": loss,
    "quality_score": score,
    "tokens": count,
    "samples": count,
}
