"""Import every package of the environment that runs this file, and name those that cannot be: `python imports.py`.

A GPU is not needed: libraries that want one are loaded, and find none.
"""

import importlib
import importlib.metadata
import sys


def modules(package: importlib.metadata.Distribution) -> list[str]:
    """Top-level modules of an installed package."""
    listed = (package.read_text("top_level.txt") or "").split()
    parts = [file.parts for file in package.files or [] if file.suffix in (".py", ".so")]
    found = {part[0].removesuffix(".py") for part in parts if len(part) == 1 or part[1:] == ("__init__.py",)}
    return sorted(name for name in {*listed, *found} if name.isidentifier() and not name.startswith("_"))


def main() -> None:
    packages = sorted(importlib.metadata.distributions(), key=lambda package: package.metadata["Name"].lower())
    # setuptools replaces distutils, so it must come before whatever imports distutils
    packages.sort(key=lambda package: package.metadata["Name"] != "setuptools")
    failed = []
    count = 0
    for package in packages:
        for name in modules(package):
            count += 1
            try:
                importlib.import_module(name)
            except Exception as error:  # whatever a package raises, it is named, and the next one tried
                failed.append(f"{package.metadata['Name']} ({name}): {type(error).__name__}: {error}")
    print("\n".join([*failed, f"{count} modules of {len(packages)} packages, {len(failed)} not imported"]))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
