"""A checkpoint's weights, looked at without loading the model."""

from pathlib import Path

NAMED = 3  # tensors that a reason names


def not_numbers(folder: Path) -> str | None:
    """In words, which tensors of a safetensors folder hold NaN or infinity; None when all are finite."""
    from safetensors import safe_open

    found = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - a safetensors file is no mapping
                tensor = tensors.get_tensor(name)
                if tensor.is_floating_point() and (wrong := int((~tensor.float().isfinite()).sum())):
                    found.append(f"{name} ({wrong:,} of {tensor.numel():,})")
    if not found:
        return None
    more = f" and {len(found) - NAMED} more tensors" if len(found) > NAMED else ""
    return f"the checkpoint itself holds NaN or infinity, in {', '.join(found[:NAMED])}{more}"
