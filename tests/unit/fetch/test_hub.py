"""Models of the hub: what is asked for, in which order, and every refusal. The hub is a folder here."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import requests
from huggingface_hub import errors
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.unit.fetch.fetching import refused
from workflow.tradeoff.fetch import models as fetch

REVISION = "2290a62682d06624634c1f46a6ad5be0f47f38aa"
SOURCE = {"source": "hub", "repo": "some/model", "revision": REVISION}
TOKEN = "hf_secret"


class Hub:
    """A hub with one repository, served from a folder. ``asked`` holds what was downloaded, in order."""

    def __init__(self, folder: Path, monkeypatch):
        self.folder, self.asked, self.error, self.cached = folder, [], None, False
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda _, repo, **flags: self.info(repo, **flags))
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.file)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot)
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)

    def info(self, repo, *, revision, files_metadata):
        assert (repo, revision, files_metadata) == ("some/model", REVISION, True)
        if self.error:
            raise self.error
        siblings = [
            SimpleNamespace(rfilename=str(path.relative_to(self.folder)), size=path.stat().st_size)
            for path in self.folder.rglob("*")
            if path.is_file()
        ]
        return SimpleNamespace(siblings=siblings, card_data={"license": "apache-2.0"})

    def file(self, repo, name, *, revision):
        self.asked.append(name)
        return str(self.folder / name)

    def snapshot(self, repo, *, revision, allow_patterns=None, local_files_only=False):
        assert revision == REVISION
        if local_files_only and not self.cached:
            raise errors.LocalEntryNotFoundError("not in the cache")
        self.asked += allow_patterns or []
        return str(self.folder)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    return Hub(tiny.build(tmp_path / "hub", "gpt2"), monkeypatch)


def test_a_model_of_the_hub(hub, tmp_path):
    for name in ("pytorch_model.bin", "modeling_own.py", "flax_model.msgpack", "onnx/model.safetensors", "README.md"):
        (hub.folder / name).parent.mkdir(exist_ok=True)
        (hub.folder / name).write_text("not asked for")
    manifest = fetch.fetch_model("tiny", SOURCE, tmp_path / "out")
    assert hub.asked[0] == "config.json"
    weights_and_words = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert set(hub.asked) == weights_and_words | {"tokenizer_config.json"}
    assert set(manifest["files"]) == set(hub.asked)
    assert (manifest["license"], manifest["source"]) == ("apache-2.0", SOURCE)


def test_a_model_of_the_hub_in_shards(hub, tmp_path):
    """The index is asked for first; a shard that it does not name is not downloaded."""
    state = load_file(hub.folder / "model.safetensors")
    (hub.folder / "model.safetensors").unlink()
    for name in ("part1.safetensors", "model-00002-of-00002.safetensors"):
        save_file(state, hub.folder / name, {"format": "pt"})
    index = {"weight_map": dict.fromkeys(state, "part1.safetensors")}
    (hub.folder / "model.safetensors.index.json").write_text(json.dumps(index))
    manifest = fetch.fetch_model("tiny", SOURCE, tmp_path / "out")
    assert hub.asked[:2] == ["config.json", "model.safetensors.index.json"]
    assert [name for name in hub.asked if name.endswith(".safetensors")] == ["part1.safetensors"]
    assert "part1.safetensors" in manifest["files"]
    (hub.folder / "part1.safetensors").unlink()
    refused("model", SOURCE, tmp_path, "part1.safetensors", "model.safetensors.index.json", "not whole")


def test_a_cached_model_needs_no_connection(hub, tmp_path):
    hub.error, hub.cached = errors.OfflineModeIsEnabled("offline"), True
    manifest = fetch.fetch_model("tiny", SOURCE, tmp_path / "out")
    assert manifest["architecture"] == "gpt2"


def answer(kind, status: int):
    response = requests.Response()
    response.status_code = status
    response.request = requests.Request("GET", "https://hub/", headers={"authorization": f"Bearer {TOKEN}"}).prepare()
    return kind(f"{status} for url https://hub/{TOKEN}", response=response)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (answer(errors.GatedRepoError, 403), ("gated", "HF_TOKEN", "hf auth login")),
        (answer(errors.RepositoryNotFoundError, 401), ("does not exist, or is private",)),
        (answer(errors.RevisionNotFoundError, 404), ("no such commit", "`revision`")),
        (answer(errors.HfHubHTTPError, 429), ("HTTP 429",)),
        (errors.HFValidationError("Repo id must use alphanumeric chars"), ("correct `repo`",)),
        (answer(errors.HfHubHTTPError, 503), ("cannot be reached",)),
        (errors.OfflineModeIsEnabled("offline"), ("cannot be reached", "local source")),
        (requests.ConnectionError("no route"), ("cannot be reached",)),
        (requests.Timeout("slow"), ("cannot be reached",)),
        (errors.LocalEntryNotFoundError("no connection, nothing cached"), ("cannot be reached",)),
    ],
)
def test_refusals(error, words, hub, tmp_path, capfd):
    hub.error = error
    message = refused("model", SOURCE, tmp_path, "some/model", *words)
    assert TOKEN not in message + "".join(capfd.readouterr())


def test_an_unpinned_revision(hub, tmp_path):
    refused("model", SOURCE | {"revision": "main"}, tmp_path, "'main'", "40 hex digits")


def test_another_kind_of_model_is_refused_before_its_weights(hub, tmp_path):
    (hub.folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    refused("model", SOURCE, tmp_path, "BertModel, not a causal")
    assert hub.asked == ["config.json"]


def test_too_little_disk_is_seen_before_the_weights(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    refused("model", SOURCE, tmp_path, "GB are free")
    assert hub.asked == ["config.json"]
