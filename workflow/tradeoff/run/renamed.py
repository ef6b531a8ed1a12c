"""Keys that a config of an earlier version has: taken under today's name, or left out, and said either way."""

from workflow.tradeoff.errors import UserError

RENAMED = {"replicates": "pairs", "samples": "turns"}
RETIRED = {
    "rounds": "pairs are added up to measure.budget_s until measure.precision is reached",
    "noisy_share": "a cell is told by the interval of its speedup, against measure.precision",
}


def renew(config: dict) -> list[str]:
    """Put a config of an earlier version into today's keys, in place; a line for each key that this concerns.

    Raises UserError for what has no such translation: an old and a new name together, and the section ``quantize``.
    """
    if "quantize" in config:
        raise UserError(
            "config key quantize is gone: what it held belongs to a variant of your own now, as "
            "define: {my-int8: {engine: onnx, recipe: {quantizer: dynamic, per_channel: true}}} (config/README.md)"
        )
    said = []
    measure = config.get("measure")
    if not isinstance(measure, dict):
        return said
    for old, new in RENAMED.items():
        if old not in measure:
            continue
        if new in measure:
            raise UserError(f"config key measure.{old} is the earlier name of measure.{new}: remove it")
        measure[new] = measure.pop(old)
        said.append(f"config key measure.{old} is called measure.{new} now: read as that")
    for old, instead in RETIRED.items():
        if old in measure:
            del measure[old]
            said.append(f"config key measure.{old} has no use any more and is left out: {instead}")
    return said
