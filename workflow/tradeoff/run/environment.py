"""What a figure was measured on: machine, libraries, image and code, with a digest that says what may be compared.

python -m workflow.tradeoff.run.environment --device cpu --threads 2 --output results/demo/environment.json
"""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import psutil

from workflow.tradeoff import errors, files

LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "bitsandbytes",
    "auto-round",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnx",
    "xllamacpp",
    "gguf",
    "vllm",
    "numpy",
    "snakemake",
)
# these decide whether two figures may stand in one ratio
COMPARED = ("machine", "gpu", "device", "threads", "libraries", "image")


def collect(device: str, threads: int) -> dict:
    """The environment of this process. ``digest`` is the SHA-256 over the fields in COMPARED."""
    environment = {
        "device": device,
        "threads": threads,
        "machine": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            "os": platform.platform(),
        },
        "gpu": _gpu() if device == "cuda" else None,
        "libraries": libraries(),
        "image": image(),
        "git": _git(),
    }
    compared = json.dumps({key: environment[key] for key in COMPARED}, sort_keys=True)
    environment["digest"] = hashlib.sha256(compared.encode()).hexdigest()
    return environment


def image() -> str:
    """File name of the container image that this process runs in, which carries its digest, or ``host``."""
    path = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    return Path(path).name if path else "host"


def _cpu_model() -> str:
    lines = (_read("/proc/cpuinfo") or "").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _read(path: str) -> str | None:
    file = Path(path)
    return file.read_text().strip() if file.is_file() else None


def libraries() -> dict[str, str]:
    """Versions of the packages that a figure depends on, and of Python; those that are not installed are left out."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _gpu() -> dict | None:
    """Name, driver, memory, power limit, compute capability of GPU 0, and the CUDA that torch was built for."""
    import pynvml
    import torch

    pynvml.nvmlInit()
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        return {
            "name": pynvml.nvmlDeviceGetName(handle),
            "driver": pynvml.nvmlSystemGetDriverVersion(),
            "memory_gb": round(pynvml.nvmlDeviceGetMemoryInfo(handle).total / 1e9, 1),
            "power_limit_w": pynvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000,
            "capability": ".".join(map(str, torch.cuda.get_device_capability(0))),
            "cuda": torch.version.cuda,
        }
    finally:
        pynvml.nvmlShutdown()


def _git() -> dict | None:
    """Commit of the code and whether it was edited since; None outside a checkout or where git is missing."""
    folder = Path(__file__).parent

    def ask(*words):
        return subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None


def flatten(data: Mapping, prefix: str = "") -> dict[str, object]:
    """Nested mappings as one, with names ``outer.inner``."""
    flat: dict[str, object] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--config", type=json.loads, required=True, help="the whole config, as JSON, for the record")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(argv)
    files.write_json(args.output, {**collect(args.device, args.threads), "config": args.config})


if __name__ == "__main__":
    errors.run(main)
