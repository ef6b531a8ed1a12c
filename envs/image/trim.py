"""trim.py FLAVOUR SITE_PACKAGES: remove what no stage opens, while the image is built.

Packages' own tests, headers and link libraries, libraries for other CUDA releases, manual pages. Python sources,
licences and metadata stay, so that `pip check`, `pip list` and tracebacks are whole.
"""

import re
import shutil
import sys
from pathlib import Path

# Folders by their place under site-packages; a * stands for one part.
FOLDERS = [
    "torch/test",
    "torch/include",
    "torch/share",
    "pyarrow/include",
    "pyarrow/tests",
    "pandas/tests",
    "matplotlib/tests",
    "nvidia/*/include",
    "onnx/backend/test/data",
    *("/".join(["*"] * depth) + "/tests" for depth in range(1, 5)),
]
# numpy.testing imports from numpy._core.tests; models in transformers and parts of torch may be named so too
KEPT = ["transformers", "torch", "datasets", "numpy"]
FILES = [
    "torch/lib/*.a",
    "torch/bin/*test*",
    "torch/bin/protoc*",
    "nvidia/*/lib/*.a",
    # Arrow's network services: pyarrow imports them only when asked
    "pyarrow/libarrow_flight.so*",
    "pyarrow/_flight*.so",
]
SYSTEM = ["/usr/share/man", "/usr/share/info", "/usr/share/locale"]


def main(flavour: str, packages: Path) -> None:
    found = [path for pattern in FOLDERS for path in packages.glob(pattern) if path.is_dir()]
    for folder in found:
        named = "/".join(folder.relative_to(packages).parts) in FOLDERS
        if named or folder.relative_to(packages).parts[0] not in KEPT:
            shutil.rmtree(folder, ignore_errors=True)  # an inner folder of one already removed
    for pattern in FILES:
        for file in packages.glob(pattern):
            file.unlink()

    version = (packages / "torch/version.py").read_text()
    cuda = re.search(r"^cuda.*= *'(\d+)\.(\d+)'", version, re.MULTILINE)
    own = f"libbitsandbytes_cuda{''.join(cuda.groups())}.so" if cuda else None
    for library in packages.glob("bitsandbytes/libbitsandbytes_*"):
        if library.name not in (own, "libbitsandbytes_cpu.so"):
            library.unlink()
    if (flavour == "cuda") != (packages / "bitsandbytes" / str(own)).is_file():
        sys.exit(
            f"error: no library of bitsandbytes for the CUDA of torch ({own}): see envs/README.md on raising a pin"
        )

    for folder in SYSTEM:
        for entry in Path(folder).iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for file in Path("/usr/share/doc").rglob("*"):
        if file.is_file() and not file.is_symlink() and file.name != "copyright":
            file.unlink()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
