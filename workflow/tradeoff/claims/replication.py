"""Do our own cells bear a statement out?

reproduced, not reproduced, or not comparable, which names what differs: model, variant, engine, device, protocol.

Absolute figures (tokens/s, GB, seconds) are compared only on the study's own device and by its own protocol. Ratios are
taken more liberally, since they divide two cells that ran in the same way: what machine, clock and harness do to both
cancels. Memory and accuracy ratios follow from the weights and hold on any device. A speedup does depend on the device,
so on another one only its direction is compared, and never held against the study.
"""

import json
import re
from collections.abc import Mapping, Sequence

from workflow.tradeoff.claims import measured
from workflow.tradeoff.claims.claimfile import Claim, Interval, members
from workflow.tradeoff.claims.consistency import by_definition
from workflow.tradeoff.claims.finding import Finding, span
from workflow.tradeoff.claims.measured import Cells, Unmeasured

REPRODUCED, NOT_REPRODUCED, NOT_COMPARABLE = "reproduced", "not reproduced", "not comparable"
DEVICE_KEYS = re.compile("gpu|cuda|device|accelerator", re.IGNORECASE)
OURS = ("torch", "onnxruntime", "llama.cpp")
RATIOS = ("speedup", "speed_penalty_pct", "memory_reduction_pct", "memory_ratio", "degradation_pct", "accuracy_pct")
SPEED_RATIOS = ("speedup", "speed_penalty_pct")
COMPARED = ("tokens_per_s", "speedup", "memory_reduction_pct", "degradation_pct")
NOT_OURS = {
    "quality_score": "protocol: the study's heuristic is not ours; see plausibility",
    "tokens": "a count, not a measurement; see plausibility",
    "samples": "a count, not a measurement; see plausibility",
    "perplexity_increase": "the ratio says the same; see the degradation",
}


def judge(
    claims: Mapping[str, Claim], reference: dict, cells: Cells | None, environment: dict | None
) -> dict[str, Finding]:
    """A Finding for each claim. cells: our measurements, or None when there are none."""
    if cells is None:
        return {name: Finding(NOT_COMPARABLE, "no measurements were given") for name in claims}
    card = card_of(environment or {}, reference)
    found: dict[str, Finding] = {}
    for name, claim in claims.items():
        try:
            found[name] = _judge(claim, claims, reference, cells, card)
        except Unmeasured as reason:
            found[name] = Finding(NOT_COMPARABLE, str(reason))
    return found


def card_of(environment: dict, reference: dict) -> str | None:
    """The card of the reference that the environment names under a key about its GPU, or None."""

    def named(value, about: bool) -> str:
        if isinstance(value, dict):
            return " ".join(named(item, about or bool(DEVICE_KEYS.search(key))) for key, item in value.items())
        if isinstance(value, list):
            return " ".join(named(item, about) for item in value)
        return json.dumps(value) if about else ""

    words = named(environment, False)
    for card, entry in reference["cards"].items():
        if any(re.search(rf"\b{re.escape(alias)}\b", words) for alias in (card, *entry["aliases"])):
            return card
    return None


def _judge(claim: Claim, claims: Mapping[str, Claim], reference: dict, cells: Cells, card: str | None) -> Finding:
    if claim.restates:
        return _judge(claims[claim.restates], claims, reference, cells, card)
    if claim.kind == "absent":
        raise Unmeasured("the document gives no figure")
    if claim.metric in NOT_OURS:
        raise Unmeasured(NOT_OURS[claim.metric])
    if by_definition(claim):
        raise Unmeasured("a baseline against itself, true by definition")
    if claim.kind == "range":
        return _all([_judge(claims[part], claims, reference, cells, card) for part in claim.parts])
    if not claim.values:
        return _words(claim, claims, reference, cells, card)
    engine = reference["protocols"].get(_clocked(claim, claims).protocol, {}).get("engine")
    if engine is not None and engine not in OURS:
        raise Unmeasured(f"engine: the study's figure comes from {'an unknown one' if engine == 'unknown' else engine}")
    findings = []
    for model in members(claim.model, reference):
        try:
            findings.append(_value(claim, model, claims, reference, cells, card))
        except Unmeasured as reason:
            findings.append(Finding(NOT_COMPARABLE, str(reason)))
    return _any(findings)


def _all(findings: Sequence[Finding]) -> Finding:
    """A statement about all: refuted by one, and borne out only by every one."""
    return _choose(findings, (NOT_REPRODUCED, NOT_COMPARABLE, REPRODUCED))


def _any(findings: Sequence[Finding]) -> Finding:
    """A figure of a model that is not named: borne out by one candidate, and refuted only by every one."""
    return _choose(findings, (REPRODUCED, NOT_COMPARABLE, NOT_REPRODUCED))


def _choose(findings: Sequence[Finding], order: Sequence[str]) -> Finding:
    if not findings:
        raise Unmeasured("model: the study ran none of this class")
    status = min((finding.status for finding in findings), key=order.index)
    words = dict.fromkeys(finding.arithmetic for finding in findings if finding.status == status)
    return Finding(status, "; ".join(words))


def _clocked(claim: Claim, claims: Mapping[str, Claim]) -> Claim:
    """The figure that a claim is worked out from first: itself when it is one."""
    while claim.protocol is None and claim.parts:
        claim = claims[claim.parts[0]]
    return claim


def _baseline(claim: Claim, claims: Mapping[str, Claim]) -> str:
    """The variant that a ratio divides by; Unmeasured when it is another model's."""
    for operation in ("ratio", "reduction_pct", "increase_pct"):
        if operation in claim.follows:
            first, second = (claims[part] for part in claim.follows[operation])
            if first.model != second.model:
                raise Unmeasured(f"model: the study divides {first.model} by {second.model}")
            # a memory ratio prints old over new
            return first.variant if claim.metric == "memory_ratio" else second.variant
    if "remainder_pct" in claim.follows:
        return _baseline(claims[claim.follows["remainder_pct"][0]], claims)
    raise Unmeasured("protocol: the document does not say what the ratio divides by")


def _value(claim: Claim, model: str, claims, reference: dict, cells: Cells, card: str | None) -> Finding:
    """One printed number against one measured one."""
    protocol = reference["protocols"].get(_clocked(claim, claims).protocol, {})
    ratio = claim.metric in RATIOS
    if ratio:
        ours = measured.ratio(claim, model, _baseline(claim, claims), cells)
    else:
        ours = measured.absolute(claim, model, protocol, cells, reference)
        if claim.metric not in ("perplexity", "nll"):
            _same_device(protocol, card)
    allowed = measured.widened(claim, reference["tolerance"], ratio)
    words = f"{model} {claim.variant}: {span(ours)} here, printed {claim.printed[0]} (allowed {span(allowed)})"
    if claim.metric in SPEED_RATIOS and not _on_device(protocol, cells, card):
        return _direction(claim, ours, f"{words}; another device, so only the direction is compared")
    return Finding(REPRODUCED if ours.meets(allowed) else NOT_REPRODUCED, words)


def _same_device(protocol: dict, card: str | None) -> None:
    if protocol.get("device") != card or card is None:
        there = (
            "a processor that the study does not name"
            if protocol.get("device") == "CPU"
            else protocol.get("device", "an unnamed one")
        )
        raise Unmeasured(f"device: an absolute figure of {there}, and this ran on {card or 'another'}")


def _on_device(protocol: dict, cells: Cells, card: str | None) -> bool:
    """Same card; for a CPU, whose name the study does not give, any CPU."""
    return protocol.get("device") == card if card or protocol.get("device") != "CPU" else cells.device == "cpu"


def _direction(claim: Claim, ours: Interval, words: str) -> Finding:
    neutral = 1.0 if claim.metric == "speedup" else 0.0
    up = claim.value > neutral
    agrees = ours.low > neutral if up else ours.high < neutral
    return Finding(REPRODUCED if agrees else NOT_COMPARABLE, f"device: {words}" if not agrees else words)


# --- statements in words


def _words(claim: Claim, claims: Mapping[str, Claim], reference: dict, cells: Cells, card: str | None) -> Finding:
    limits = reference["words"]
    for operation, parts in claim.follows.items():
        figures = [claims[part] for part in parts if isinstance(part, str)]
        if operation in ("greater", "less", "no_less"):
            return _all([_pair(operation, figures[0], other, claims, reference, cells, card) for other in figures[1:]])
        if operation in ("minimal", "unchanged"):
            limit = limits[f"{operation}_pct"]
            return _all([_bounded(figure, claims, cells, reference, Interval(-limit, limit)) for figure in figures])
        if operation == "significant":
            at_least = limits["significant"]
            return _all(
                [
                    _bounded(part, claims, cells, reference, Interval(at_least[part.metric], float("inf")), card)
                    for part in figures
                ]
            )
    raise Unmeasured("nothing in our tables measures this")


def _bounded(
    figure: Claim, claims, cells: Cells, reference: dict, allowed: Interval, card: str | None = None
) -> Finding:
    """A ratio that a word puts inside ``allowed``: refuted when its whole measured interval lies outside."""
    protocol = reference["protocols"].get(_clocked(figure, claims).protocol, {})
    if protocol.get("engine", OURS[0]) not in OURS:
        raise Unmeasured(f"engine: the study's figure comes from {protocol['engine']}")
    findings = []
    for model in members(figure.model, reference):
        ours = measured.ratio(figure, model, _baseline(figure, claims), cells)
        words = f"{model} {figure.variant}: {span(ours)} {figure.unit} here, against {span(allowed)}"
        outside = not ours.meets(allowed)
        if outside and figure.metric in SPEED_RATIOS and not _on_device(protocol, cells, card):
            findings.append(Finding(NOT_COMPARABLE, f"device: {words}"))
            continue
        findings.append(Finding(NOT_REPRODUCED if outside else REPRODUCED, words))
    return _any(findings)


def _pair(sign: str, first: Claim, other: Claim, claims, reference: dict, cells: Cells, card: str | None) -> Finding:
    """One figure against another of the same model, by our own intervals."""
    if first.metric not in COMPARED or first.metric != other.metric:
        raise Unmeasured("nothing in our tables measures this")
    shared = [model for model in members(first.model, reference) if model in members(other.model, reference)]
    if not shared:
        raise Unmeasured(f"model: compares {first.model} with {other.model}")
    if first.metric == "tokens_per_s" and first.protocol != other.protocol:
        raise Unmeasured("protocol: the study's two figures clock different work")
    findings = []
    for model in shared:
        one, two = (
            measured.comparable(figure, model, lambda item: _baseline(item, claims), cells) for figure in (first, other)
        )
        words = f"{model}: {first.variant} {span(one)}, {other.variant} {span(two)} here"
        above, below = one.low > two.high, one.high < two.low
        holds, fails = (below, above) if sign == "less" else (above, below)
        status = REPRODUCED if holds else NOT_REPRODUCED if fails else NOT_COMPARABLE
        protocol = reference["protocols"].get(_clocked(first, claims).protocol, {})
        if (
            status == NOT_REPRODUCED
            and first.metric in ("tokens_per_s", "speedup")
            and not _on_device(protocol, cells, card)
        ):
            status, words = NOT_COMPARABLE, f"device: {words}"
        elif status == NOT_COMPARABLE:
            words = f"the intervals overlap: {words}"
        findings.append(Finding(status, words))
    return _any(findings) if len(findings) > 1 else findings[0]
