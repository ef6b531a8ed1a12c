"""What must hold before a study on a GPU downloads anything: a card, a driver for the wheels, a build for the card.

    python -m workflow.tradeoff.run.preflight --graph --output results/t4/preflight.json

Each check takes plain values, so that it can be tried with a machine that is not there; ``look`` reads them here.
"""

import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from workflow.tradeoff import errors, files
from workflow.tradeoff.errors import UserError

LEAST_DRIVER = {
    11: 450,
    12: 525,
    13: 580,
}  # by CUDA's major version, from its release notes (minor-version compatibility)
MODULE = Path("/proc/driver/nvidia/version")
IMAGES = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")


@dataclass(frozen=True)
class Machine:
    """What a check looks at. None where there is nothing to read."""

    image: str | None  # the container's image; None on the host
    driver: str | None  # version of the kernel's driver module
    library: bool  # whether the driver's library can be loaded
    build: str | None  # CUDA that torch was built for
    architectures: tuple[str, ...]  # sm_75, compute_90, ... that torch was built for
    capability: tuple[int, int] | None  # of the card
    compiler: bool  # whether a C compiler is there, which torch's and Triton's kernels are launched by


def problems(machine: Machine) -> list[str]:
    """One line for each thing that keeps CUDA from working here; the first is the cause of the others."""
    found = [check(machine) for check in (build, card, driver, architecture)]
    return [line for line in found if line]


def build(machine: Machine) -> str | None:
    if machine.build is None:
        return (
            "device: cuda, but torch here is a build for the CPU: install envs/cuda.lock, use the cuda image, "
            "or set device: cpu"
        )
    return None


def card(machine: Machine) -> str | None:
    if machine.driver and machine.image and not machine.library:
        return (
            f"the host has an NVIDIA driver ({machine.driver}), but {Path(machine.image).name} does not see it: "
            "run with --nv (profiles/default gives it: --apptainer-args '--nv')"
        )
    if not machine.driver:
        return "device: cuda, but no NVIDIA driver is loaded here: use a machine with a GPU, or set device: cpu"
    if not machine.library:
        return (
            f"the NVIDIA driver's module {machine.driver} is loaded, but its library libcuda.so.1 is not found: "
            "install the driver's libraries"
        )
    return None


def driver(machine: Machine) -> str | None:
    """The driver against the CUDA of torch's wheels."""
    if not (machine.build and machine.driver):
        return None
    needed = LEAST_DRIVER.get(int(machine.build.split(".")[0]))
    if needed and int(machine.driver.split(".")[0]) < needed:
        return (
            f"the NVIDIA driver {machine.driver} is too old for CUDA {machine.build}, which needs {needed} or newer: "
            "update the driver, or use wheels for an older CUDA"
        )
    return None


def architecture(machine: Machine) -> str | None:
    """The card against the architectures in torch's build; machine code runs on its major version from its minor on."""
    if machine.capability is None or not machine.architectures:
        return None
    major, minor = machine.capability
    for name in machine.architectures:
        kind, digits = re.match(r"(sm|compute)_(\d+)", name).groups()
        built = int(digits[:-1]), int(digits[-1])
        if kind == "sm" and built[0] == major and built[1] <= minor:
            return None
        if kind == "compute" and built <= (major, minor):  # compiled by the driver when it is loaded
            return None
    names = " ".join(machine.architectures)
    return (
        f"torch's CUDA build has no code for this card (compute capability {major}.{minor}; the build has {names}): "
        "install a build that has it"
    )


def compiler(machine: Machine) -> str | None:
    """Said for graph variants alone: the others need none."""
    if machine.compiler:
        return None
    return "graph variants need a C compiler, which starts the kernels that are made here: install gcc, or set CC"


def look() -> Machine:
    """This process's machine."""
    import torch

    image = next((os.environ[name] for name in IMAGES if os.environ.get(name)), None)
    version = re.search(r"Module.*?(\d+\.\d+(\.\d+)?)", MODULE.read_text()) if MODULE.is_file() else None
    library = _loads("libcuda.so.1")
    capability = None
    if torch.version.cuda and library and torch.cuda.is_available():
        capability = torch.cuda.get_device_capability(0)
    return Machine(
        image=image,
        driver=version.group(1) if version else None,
        library=library,
        build=torch.version.cuda,
        architectures=tuple(torch.cuda.get_arch_list()) if capability else (),
        capability=capability,
        compiler=bool(os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")),
    )


def _loads(name: str) -> bool:
    import ctypes

    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--graph", action="store_true", help="graph variants are among the cells")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(argv)
    machine = look()
    found = [*problems(machine), *([compiler(machine)] if args.graph else [])]
    for line in filter(None, found):
        raise UserError(line)
    files.write_json(args.output, asdict(machine))


if __name__ == "__main__":
    errors.run(main)
