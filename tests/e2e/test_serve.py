"""A study whose answer is a GGUF file: the command that its deploy folder ends in serves the text that was measured."""

import contextlib
import json
import shlex
import subprocess
import sys
from pathlib import Path
from urllib import request

import pytest
import yaml

from tests import planned, studies, tiny
from workflow.tradeoff import asking, files

TEMPLATE = "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}</end>{% endfor %}<assistant>"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> studies.Study:
    folder = tmp_path_factory.mktemp("served") / "checkout"
    studies.checkout(folder)
    (folder / "inputs").mkdir()
    tiny.with_vocabulary(folder / "inputs" / "llama", TEMPLATE, trained=True)
    config = {
        "study": "tiny",
        "device": "cpu",
        "threads": 1,
        "models": {"llama": {"source": "local", "path": "inputs/llama", "variants": ["torch-fp32", "gguf-q8_0"]}},
        "corpus": {
            "name": "bridge",
            "source": "local",
            "path": "inputs/corpus.raw",
            "sha256": studies.corpus(folder / "inputs" / "corpus.raw"),
            "format": "wikitext",
        },
        "measure": {"pairs": 2, "prompt_tokens": 8, "new_tokens": 4, "study_runs": 1, "budget_s": 1, "lost_share": 9},
        "evaluate": {"conventions": ["windows-64"], "max_tokens": 256, "divergence_tokens": 64, "generate_tokens": 8},
        "decide": {"scenarios": {"small": {"objective": "memory", "max_ttft_ms": 60000}}},
        "serve": {"rates": [4], "requests": 4, "seconds": 60, "new_tokens": 8},
    }
    (folder / "config" / "tiny.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    made = studies.Study(folder)
    planned.run(
        folder, planned.jobs(made.snakemake("--dry-run", "--nocolor", "results/tiny/deploy/deploy.json").stdout)
    )
    return made


def command(readme: Path) -> list[str]:
    """The first command of a deploy folder's README, by this environment's Python."""
    words = shlex.split(readme.read_text().partition("```sh\n")[2].partition("\n```")[0])
    assert words[0] == "python"
    return [sys.executable, *words[1:]]


@contextlib.contextmanager
def served(study, entry):
    """The base address of a server, started by the command of a deploy folder's README."""
    words = [*command(study.results / entry["readme"]), "--port", "0"]
    server = subprocess.Popen(words, cwd=study.folder, stdout=subprocess.PIPE, text=True)
    try:
        yield server.stdout.readline().strip().removesuffix(asking.TEXT)
    finally:
        server.terminate()
        server.wait()


def test_the_command_of_the_readme_serves_the_text_that_was_measured(study):
    entry = files.read_json(study.results / "deploy" / "deploy.json")[0]
    assert (entry["variant"], entry["scenarios"]) == ("gguf-q8_0", ["small"])
    measured = files.read_json(study.results / "quality/llama/gguf-q8_0.json")
    told = {}
    with served(study, entry) as address:
        for example in measured["generated"]:
            asked = asking.body(measured["prompting"], example["prompt"], len(example["token_ids"]))
            url = address + asking.path(measured["prompting"])
            with request.urlopen(url, json.dumps({**asked, "cache_prompt": False}).encode(), timeout=300) as reply:
                told[example["prompt"]] = asking.text(json.load(reply))
    assert told == {example["prompt"]: example["text"] for example in measured["generated"]}


def test_the_answer_and_its_baseline_are_driven_side_by_side_and_a_running_server_is_watched(study):
    study.snakemake("--rerun-triggers", "mtime", "--", "results/tiny/serve/serving.json")
    raw = files.read_json(study.results / "serve" / "raw.json")
    assert [one["name"] for one in raw["servers"]] == ["gguf-q8_0", "torch-fp32"]
    for one in raw["servers"]:
        assert all(answer["same"] for answer in one["greedy"]), one["greedy"]
        (rate,) = one["rates"]
        assert len(rate["facts"]) == 4 and not any(fact["error"] for fact in rate["facts"])
        assert all(fact["ttft_s"] > 0 and 1 <= fact["tokens"] <= 8 for fact in rate["facts"])
    said = files.read_json(study.results / "serve" / "serving.json")
    assert {row["server"] for row in said["serving"]} == {"gguf-q8_0", "torch-fp32"}
    assert all(row["good_pct"] == 100 for row in said["serving"])
    entry = files.read_json(study.results / "deploy" / "deploy.json")[0]
    watch = [sys.executable, "-m", "workflow.tradeoff.serve.watch", "--results", "results/tiny", "--requests", "2"]
    watch += ["--rate", "4", "--tokens", "8", "--generator", ".venv-serve/bin/aiperf", "--factor"]
    with served(study, entry) as address:
        for factor, code, line in (("1000", 0, "as it was measured"), ("1e-6", 1, "degraded: median time")):
            words = [*watch, factor, "--url", address]
            done = subprocess.run(words, cwd=study.folder, capture_output=True, text=True)
            assert done.returncode == code and line in done.stdout + done.stderr, done.stdout + done.stderr
