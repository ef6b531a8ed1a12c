"""A tiny study in a copy of the checkout: the models are built and trained here, the corpus is written here.

study = studies.make(tmp_path)            # copies what git tracks, writes config/tiny.yaml
study.run()                               # the whole workflow on it
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests import tiny

REPOSITORY = Path(__file__).parent.parent
# a variant of the config's own, in place of onnx-int4-kv
INT4_B16 = {"engine": "onnx", "recipe": {"quantizer": "matmul-nbits", "bits": 4, "block": 16, "symmetric": False}}
ROWS = [" \n", " = The bridge = \n", " \n"]


@dataclass
class Study:
    """A checkout in ``folder`` with one tiny study of the name ``tiny``."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results" / "tiny"

    def snakemake(
        self,
        *flags: str,
        cores: int = 2,
        check: bool = True,
        prefix: Sequence[str] = (),
        configfile: str | None = "config/tiny.yaml",
        **environment,
    ) -> subprocess.CompletedProcess:
        """Run snakemake on ``configfile``, or the default, in the checkout, behind a ``prefix``; text in ``stdout``."""
        command = [*prefix, sys.executable, "-m", "snakemake", "--cores", str(cores)]
        command += [*(["--configfile", configfile] if configfile else []), *flags]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}")
        return done

    def planned(self, *flags: str, **environment) -> dict[str, set[str]]:
        """Rules that a dry run would execute, each with its outputs."""
        text = self.snakemake("--dry-run", "--nocolor", *flags, **environment).stdout
        planned: dict[str, set[str]] = {}
        rule = None
        for line in text.splitlines():
            words = line.split()
            if words[:1] in (["rule"], ["localrule"], ["checkpoint"]) and line.endswith(":"):
                rule = words[1].rstrip(":")
            elif words[:1] == ["output:"] and rule:
                planned.setdefault(rule, set()).update(word.rstrip(",") for word in words[1:])
        return planned

    def edit(self, path: str, change) -> None:
        """Replace a text file of the checkout by ``change(text)``."""
        file = self.folder / path
        file.write_text(change(file.read_text()))

    def configure(self, change) -> None:
        """Apply ``change(config)`` to config/tiny.yaml, in place."""
        file = self.folder / "config" / "tiny.yaml"
        config = yaml.safe_load(file.read_text())
        change(config)
        file.write_text(yaml.safe_dump(config, sort_keys=False))

    def copy(self, folder: Path) -> "Study":
        """The same checkout elsewhere, results and Snakemake's records among it, times kept."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Study(folder)


def checkout(folder: Path) -> None:
    """Copy what git tracks, and what it would, into ``folder``."""
    listed = subprocess.run(
        ["git", "-C", REPOSITORY, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        source = REPOSITORY / name
        if source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)


def only_error(done: subprocess.CompletedProcess) -> str:
    """The one line that a run refused before its first job ends with; an AssertionError when there is more, or none."""
    assert done.returncode == 1
    assert "Traceback" not in done.stdout and "rule " not in done.stdout
    lines = [line for line in done.stdout.splitlines() if not line.startswith("Using workflow specific profile")]
    assert len(lines) == 1, done.stdout
    assert lines[0].startswith("error: ")
    return lines[0]


def corpus(path: Path) -> str:
    """Write a small corpus in WikiText's form, and return its SHA-256."""
    lines = [*ROWS]
    for line in tiny.TEXT.splitlines() * 12:
        lines.append(f" {line} \n")
    path.write_text("".join(lines))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make(folder: Path, trained: bool = True) -> Study:
    """A checkout in ``folder`` with two tiny models (a Llama and a GPT-2), a corpus and config/tiny.yaml."""
    checkout(folder)
    inputs = folder / "inputs"
    inputs.mkdir()
    for kind in ("llama", "gpt2"):
        tiny.build(inputs / kind, kind, trained=trained)
    config = {
        "study": "tiny",
        "device": "cpu",
        "threads": 1,
        "models": {
            "llama": {
                "source": "local",
                "path": "inputs/llama",
                "variants": ["torch-fp32", "bnb-int8", "onnx-fp32", "onnx-int8-kv"],
            },
            "gpt2": {
                "source": "local",
                "path": "inputs/gpt2",
                "variants": ["torch-fp32", "onnx-int8", "int4-b16"],
            },
        },
        "define": {"int4-b16": INT4_B16},
        "corpus": {
            "name": "bridge",
            "source": "local",
            "path": "inputs/corpus.raw",
            "sha256": corpus(inputs / "corpus.raw"),
            "format": "wikitext",
            "license": "written for the tests",
        },
        "measure": {
            **{"pairs": 2, "prompt_tokens": 8, "new_tokens": 6, "study_runs": 1, "budget_s": 1, "lost_share": 9},
            "loads": [{"sequences": 2, "name": "pair"}],
        },
        "evaluate": {
            "conventions": ["windows-64", "study"],
            "max_tokens": 1024,
            "divergence_tokens": 256,
            "generate_tokens": 8,
        },
    }
    (folder / "config" / "tiny.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return Study(folder)
