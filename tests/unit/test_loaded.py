"""The digests of folders: each file is read once, and no plant hides behind what was read before."""

import json
import os
import time

import pytest

from workflow.tradeoff import corpus, files, loaded
from workflow.tradeoff.errors import UserError


@pytest.fixture
def read(monkeypatch):
    """Names of the files that were read, in a run in which every file is old enough to be trusted."""
    names = []
    real = files.sha256
    monkeypatch.setattr(files, "sha256", lambda path: names.append(path.name) or real(path))
    monkeypatch.setattr(loaded, "SETTLED_NS", -1)
    return names


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "models" / "m"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.safetensors", "b.json", "deep/c.txt"):
        (folder / name).write_text(f"content of {name}")
    files.write_manifest(folder, source={})
    return folder


def digest(folder):
    with loaded.digests(model=folder) as found:
        return found["model"]


def test_the_digest_is_the_manifests_and_that_of_sha256sum(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert digest(folder) == manifest["digest"]
    lines = "".join(f"{entry['sha256']}  {name}\n" for name, entry in manifest["files"].items())
    (folder.parent / "lines").write_text(lines)
    assert files.sha256(folder.parent / "lines") == manifest["digest"]


def test_a_file_is_read_once_in_a_run_and_anew_in_the_next(folder, read):
    with loaded.digests(model=folder, artifact=folder, baseline=folder):
        pass
    assert sorted(read) == ["a.safetensors", "b.json", "c.txt"]
    digest(folder)
    assert len(read) == 3
    loaded.forget(folder.parent.parent)
    digest(folder)
    assert len(read) == 6
    assert sorted(path.name for path in folder.iterdir()) == ["a.safetensors", "b.json", "deep", "manifest.json"]


def test_a_plant_of_the_same_size_and_time_is_seen(folder, read):
    digest(folder)
    path = folder / "a.safetensors"
    before = path.stat()
    time.sleep(0.02)  # beyond the clock's grain
    path.write_text("CONTENT of a.safetensors")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with pytest.raises(UserError, match=r"a\.safetensors was changed after it was made"):
        digest(folder)


def test_a_plant_moved_into_place_is_seen(folder, read, tmp_path):
    digest(folder)
    before = (folder / "a.safetensors").stat()
    (tmp_path / "planted").write_text("CONTENT of a.safetensors")
    os.utime(tmp_path / "planted", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(tmp_path / "planted", folder / "a.safetensors")
    with pytest.raises(UserError, match=r"a\.safetensors was changed after it was made"):
        digest(folder)


def test_sums_of_another_folder_are_not_taken(folder, read, tmp_path):
    """A whole folder that was copied, with its kept sums, in the place of another one."""
    digest(folder)
    other = tmp_path / "models" / "n"
    folder.rename(other)
    loaded._kept(folder).rename(loaded._kept(other))
    (tmp_path / "x").write_text("CONTENT of a.safetensors")
    os.replace(tmp_path / "x", other / "a.safetensors")
    with pytest.raises(UserError, match=r"n/a\.safetensors was changed"):
        digest(other)


def test_a_file_as_young_as_its_clocks_grain_is_read_again(folder, read, monkeypatch):
    monkeypatch.setattr(loaded, "SETTLED_NS", 2 * 10**9)
    digest(folder)
    digest(folder)
    assert len(read) == 6


def test_touched_while_in_use_is_no_change_and_changed_is(folder):
    with loaded.digests(model=folder):
        os.utime(folder / "b.json")
    with pytest.raises(UserError, match=r"b\.json was changed while it was in use"), loaded.digests(model=folder):
        (folder / "b.json").write_text("CONTENT of b.json")
    (folder / "b.json").write_text("content of b.json")
    with pytest.raises(UserError, match=r"new\.json was changed while"), loaded.digests(model=folder):
        (folder / "new.json").write_text("{}")


def test_a_hidden_file_that_nothing_loads_is_let_be(folder):
    (folder / ".nfs0001").write_text("left by a file system")
    assert digest(folder)


def test_sums_that_cannot_be_read_or_kept_cost_a_reading(folder, read, monkeypatch):
    loaded._kept(folder).write_text("{")
    digest(folder)
    assert len(read) == 3
    loaded._kept(folder).unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)
    digest(folder)
    assert len(read) == 6 and not loaded._kept(folder).exists()


def test_a_failure_inside_is_passed_on(folder):
    with pytest.raises(KeyError), loaded.digests(model=folder):
        (folder / "b.json").write_text("changed too")
        raise KeyError


def test_an_artifact_that_was_fetched_has_no_model_to_be_made_of(folder, tmp_path):
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    (fetched / "model.gguf").write_bytes(b"published")
    files.write_manifest(fetched, source={"repo": "someone/quantized"})
    with loaded.digests(artifact=fetched, model=folder) as found:
        assert found["artifact"] != found["model"]


def test_a_corpus_is_known_by_what_is_scored(tmp_path):
    path = tmp_path / "c.json"
    content = {"name": "c", "rows": ["One.\n", "Two.\n"], "documents": [0]}
    content["digest"] = loaded.corpus_digest(content)
    corpus.write(path, {key: value for key, value in content.items() if key != "rows"}, content["rows"])
    assert loaded.check_corpus(path, corpus.read(path)) == content["digest"]
    assert loaded.check_corpus(path, content | {"name": "d"}) == content["digest"]
    for change in ({"rows": ["One.\n", "Three.\n"]}, {"documents": [0, 1]}, {"digest": None}):
        with pytest.raises(UserError, match="was changed after it was fetched"):
            loaded.check_corpus(path, content | change)


def test_a_corpus_is_read_once_in_a_run_and_a_plant_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(loaded, "SETTLED_NS", -1)
    path = tmp_path / "c.json"
    facts, rows = {"documents": [0]}, ["One.\n", "Two.\n"]
    facts["digest"] = loaded.corpus_digest(facts | {"rows": rows})
    corpus.write(path, facts, rows)
    loaded.check_corpus(path, corpus.read(path))
    with monkeypatch.context() as patched:
        patched.setattr(loaded, "corpus_digest", lambda _: pytest.fail("read again"))
        loaded.check_corpus(path, corpus.read(path))
    corpus.write(path, facts, ["One.\n", "Ten.\n"])
    with pytest.raises(UserError, match=r"c\.json was changed after it was fetched"):
        loaded.check_corpus(path, corpus.read(path))
