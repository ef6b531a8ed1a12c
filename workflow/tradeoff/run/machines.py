"""Kinds of machine in one study: which there are, on which accuracy is taken, and whether this machine is of a kind.

machines.kinds(config)                    {kind: its entry} of those that are run; {} in a study of one machine
machines.misfit("t4", kinds["t4"], machines.here())     "" or what is expected beside what is here
"""

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from workflow.tradeoff.errors import CellFailure

CPUINFO = Path("/proc/cpuinfo")
FLAGS = ("flags", "Features")  # on x86 and on Arm


def kinds(config: Mapping) -> dict[str, dict]:
    """The kinds that are run, in the config's order, each with its threads filled in."""
    named = config.get("run_machines") or list(config.get("machines") or {})
    return {
        name: {**entry, "threads": entry.get("threads", config.get("threads", 0)), "scored_by": scored_by(config, name)}
        for name, entry in (config.get("machines") or {}).items()
        if name in named
    }


def scored_by(config: Mapping, name: str) -> str:
    """The kind on which accuracy is taken for ``name``: itself, or the first in the config with the same device."""
    every = config["machines"]
    if every[name].get("evaluate"):
        return name
    return next(other for other, entry in every.items() if entry["device"] == every[name]["device"])


def here() -> dict:
    """What ``misfit`` compares of this machine: card, its compute capability, processor, instruction sets."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.is_file() else []
    said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    flags = next((said[name].split() for name in FLAGS if name in said), [])
    return {**_card(), "cpu": said.get("model name", platform.machine()), "cpu_flags": flags}


def _card() -> dict:
    """Name and compute capability of GPU 0, asked of the driver; None each where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        capability = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        return {"gpu": pynvml.nvmlDeviceGetName(handle), "capability": ".".join(map(str, capability))}
    except Exception:  # no library, no driver, no card: each in an exception of its own
        return {"gpu": None, "capability": None}


def misfit(name: str, kind: Mapping, found: Mapping) -> str:
    """Why a machine with ``found`` is not of a kind: what is expected beside what is here; "" where it is."""
    wanted = kind.get("expect") or {}
    missing = [flag for flag in wanted.get("cpu_flags", []) if flag not in found["cpu_flags"]]
    unlike = []
    if kind["device"] == "cuda" and not found["gpu"]:
        unlike.append(f"a card is expected{_named(wanted)}, and none is here")
    else:
        unlike += [
            f"{words} with {wanted[key]!r} is expected, and {found[key] or 'none'} is here"
            for key, words in (("gpu", "a card"), ("cpu", "a processor"))
            if key in wanted and wanted[key].lower() not in (found[key] or "").lower()
        ]
        if "capability" in wanted and wanted["capability"] != found["capability"]:
            unlike.append(f"compute capability {wanted['capability']} is expected, and {found['capability']} is here")
    if missing:
        unlike.append(f"a processor with {', '.join(missing)} is expected, and {found['cpu']} has not")
    return f"this is no {name}: {'; '.join(unlike)}" if unlike else ""


def _named(wanted: Mapping) -> str:
    return f" with {wanted['gpu']!r}" if "gpu" in wanted else ""


def check(said: Sequence[str] | None, output: Path) -> None:
    """Raise CellFailure where a cell runs on a machine that is not of its kind. said: the values of ``--machine``."""
    if not said:
        return
    name, kind = said[0], json.loads(said[1])
    if reason := misfit(name, kind, here()):
        remedy = f"send the jobs of {name} to its own machines, delete {output} and run again"
        raise CellFailure("mismatched", f"{reason}: {remedy}")


def device_here(device: str) -> str:
    """The device that an environment can be told of: a cell of a card may have landed where there is none."""
    return device if here()["gpu"] else "cpu"


def flags(name: str, kind: Mapping) -> list[str]:
    """The flag by which a stage knows the kind that its cell is of."""
    return ["--machine", name, json.dumps({key: kind[key] for key in ("device", "expect") if key in kind})]


def add_flag(parser) -> None:
    """``--machine KIND JSON``, of a study of several kinds."""
    parser.add_argument(
        "--machine", nargs=2, metavar=("KIND", "JSON"), help="kind of the config's machines, and what it must be"
    )
