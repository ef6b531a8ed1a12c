"""A study whose answer is a GGUF file: the command that its deploy folder ends in serves the text that was measured."""

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
        "decide": {"scenarios": {"small": {"objective": "memory"}}},
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


def test_the_command_of_the_readme_serves_the_text_that_was_measured(study):
    entry = files.read_json(study.results / "deploy" / "deploy.json")[0]
    assert (entry["variant"], entry["scenarios"]) == ("gguf-q8_0", ["small"])
    measured = files.read_json(study.results / "quality/llama/gguf-q8_0.json")
    server = subprocess.Popen(
        [*command(study.results / entry["readme"]), "--port", "0"], cwd=study.folder, stdout=subprocess.PIPE, text=True
    )
    try:
        address = server.stdout.readline().strip().removesuffix(asking.TEXT)
        told = {}
        for example in measured["generated"]:
            asked = asking.body(measured["prompting"], example["prompt"], len(example["token_ids"]))
            url = address + asking.path(measured["prompting"])
            with request.urlopen(url, json.dumps({**asked, "cache_prompt": False}).encode(), timeout=30) as reply:
                told[example["prompt"]] = asking.text(json.load(reply))
    finally:
        server.terminate()
        server.wait()
    assert told == {example["prompt"]: example["text"] for example in measured["generated"]}
