"""A config that cannot be meant ends Snakemake itself in one line; unit/run/test_config.py has every such line."""

import pytest
import yaml

from tests import studies


@pytest.fixture(scope="module")
def unread(tmp_path_factory) -> studies.Study:
    """A checkout with the default config as config/tiny.yaml: a dry run of it needs no model."""
    folder = tmp_path_factory.mktemp("config") / "checkout"
    studies.checkout(folder)
    (folder / "config" / "tiny.yaml").write_text((folder / "config" / "config.yaml").read_text())
    return studies.Study(folder)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("mesure", {}, ["config key mesure", "did you mean measure?"]),  # the schema's part
        ("variants", ["torch-fp32", "bnb-int9"], ["config key variants", "did you mean bnb-int8?"]),  # the code's
    ],
)
def test_a_bad_config_is_one_line(unread, key, value, words):
    good = (unread.folder / "config" / "config.yaml").read_text()
    unread.edit("config/tiny.yaml", lambda _: yaml.safe_dump(yaml.safe_load(good) | {key: value}))
    line = studies.only_error(unread.snakemake("--dry-run", check=False))
    for word in words:
        assert word in line
    assert not unread.results.exists() and not (unread.folder / "results" / "demo").exists()


def test_a_key_that_stands_twice_is_one_line(unread):
    unread.edit("config/tiny.yaml", lambda text: f"{text}\nthreads: 1\n")
    assert "config/tiny.yaml" in (line := studies.only_error(unread.snakemake("--dry-run", check=False)))
    assert "threads stands there twice" in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("study: a\n  models: [\n", ["config/config.yaml line 2 is no YAML", "correct it"]),
        ("- a\n", ["config/config.yaml has no keys", "config/README.md"]),
        (None, ["config/config.yaml cannot be read", "put it back"]),
    ],
)
def test_an_unreadable_default_config_is_one_line(unread, text, words):
    default = unread.folder / "config" / "config.yaml"
    before = default.read_text()
    try:
        default.unlink() if text is None else default.write_text(text)
        line = studies.only_error(unread.snakemake("--dry-run", check=False, configfile=None))
    finally:
        default.write_text(before)
    for word in words:
        assert word in line
