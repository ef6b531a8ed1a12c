"""What rules ask of a machine that is not the one that submits: a card where there is work for one, cores, memory."""

import json
import re

import pytest

from tests import studies


@pytest.fixture(scope="module")
def unread(tmp_path_factory) -> studies.Study:
    folder = tmp_path_factory.mktemp("cluster") / "checkout"
    studies.checkout(folder)
    return studies.Study(folder)


def asked(text: str) -> dict[str, dict[str, str]]:
    """Of each rule in a dry run's text, the threads and resources of its first job."""
    found: dict[str, dict[str, str]] = {}
    for block in re.split(r"\n(?:local)?rule ", text)[1:]:
        rule, _, rest = block.partition(":\n")
        lines = dict(
            line.strip().split(": ", 1) for line in rest.partition("Shell command")[0].splitlines() if ": " in line
        )
        resources = dict(part.split("=", 1) for part in lines.get("resources", "").split(", ") if "=" in part)
        found.setdefault(rule, {"threads": lines.get("threads", "1"), **resources})
    return found


def test_a_study_on_the_cpu_asks_for_no_card_and_times_alone(unread):
    rules = asked(unread.snakemake("--dry-run", "--nocolor", cores=7, configfile=None).stdout)
    assert not [rule for rule, wants in rules.items() if "gpu" in wants]
    assert rules["measure"]["threads"] == "7"
    # the config's threads, so that no two jobs share a core
    assert rules["evaluate"]["threads"] == rules["export"]["threads"] == "2" and rules["quantize"]["threads"] == "1"


def test_a_study_on_cuda_asks_for_a_card_where_a_stage_uses_it(unread):
    text = unread.snakemake("--dry-run", "--nocolor", configfile="config/architectures.yaml").stdout
    wanted = {rule for rule, wants in asked(text).items() if wants.get("gpu") == "1"}
    assert wanted == {"preflight", "environment", "measure", "evaluate", "unscored", "diagnose"}


def test_memory_and_minutes_are_asked_for_once_the_model_is_there(unread):
    before = asked(unread.snakemake("--dry-run", "--nocolor", configfile=None).stdout)
    assert before["measure"]["mem_mb"] == before["quantize"]["runtime"] == "<TBD>"
    manifest = unread.folder / "results" / "demo" / "models" / "smollm2-135m" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    facts = {"parameters": 134_515_008, "vocab_size": 49_152, "files": {"model.safetensors": {"bytes": 538_090_408}}}
    manifest.write_text(json.dumps(facts))
    after = asked(unread.snakemake("--dry-run", "--nocolor", "--rerun-triggers", "mtime", configfile=None).stdout)
    for rule in ("export", "quantize", "measure", "evaluate", "diagnose"):
        assert 1500 < int(after[rule]["mem_mb"]) < 8000 and 10 < int(after[rule]["runtime"]) < 120
