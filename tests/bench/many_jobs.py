"""What Snakemake itself costs for a study of many cells: time and memory of a dry run, from nothing.

    python -m tests.bench.many_jobs --models 4 --variants 25 --machines 2

Nothing is fetched or run. docs/cluster.md has the figures.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from tests import studies
from workflow.tradeoff.variants import PRESETS, VARIANTS


def config(models: int, variants: int, machines: int) -> dict:
    """A study on the CPU of so many models and variants: presets, then 4-bit ONNX files of the config's own.

    machines: kinds of machine, all of them the CPU's; 0 for a study without.
    """
    default = yaml.safe_load((studies.REPOSITORY / "config" / "config.yaml").read_text())
    # these models are no GGUF files
    names = [name for name in PRESETS if "cpu" in VARIANTS[name].devices and name != "gguf-source"][:variants]
    recipe = {"quantizer": "matmul-nbits", "bits": 4}
    own = {
        f"own-{number}": {"engine": "onnx", "recipe": recipe | {"block": 16 << number % 5, "symmetric": number > 4}}
        for number in range(variants - len(names))
    }
    entry = {"source": "hub", "repo": "nobody/model-1b", "revision": "0" * 40}
    kinds = {f"machine-{number}": {"device": "cpu", "threads": 1 + number} for number in range(machines)}
    return default | {
        **({"machines": kinds} if kinds else {}),
        "study": "many",
        "models": {f"model-{number}": entry for number in range(models)},
        "define": own,
        "variants": names + list(own),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--variants", type=int, default=25)
    parser.add_argument("--machines", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        studies.checkout(Path(folder))
        file = Path(folder) / "config" / "many.yaml"
        file.write_text(yaml.safe_dump(config(args.models, args.variants, args.machines)))
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "--quiet", "--configfile", file]
        begun = time.monotonic()
        done = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True)
        clock = time.monotonic() - begun
    if done.returncode:
        sys.exit(f"error: the dry run failed: {(done.stdout + done.stderr)[-1000:]}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    count = args.models * args.variants * (args.machines or 1)
    print(
        f"{count} cells: {used.ru_utime + used.ru_stime:.1f} s of CPU time, {clock:.1f} s by the "
        f"clock, {used.ru_maxrss / 1e3:.0f} MB at the peak"
    )


if __name__ == "__main__":
    main()
