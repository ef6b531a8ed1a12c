"""Write how to deploy the answers: a folder for each winner of a scenario, with the command or program that serves it.

    python -m workflow.tradeoff.decide.deploy --study demo --tables results/demo/tables --results results/demo \\
        --environment results/demo/environment.json --templates report/deploy --output results/demo/deploy

OUTPUT/deploy.json   the winners, the answer's first one ahead, each with its command
OUTPUT/command.txt   the answer's commands, for the end of a run
OUTPUT/README.md, OUTPUT/{model}/{variant}/README.md, serve.py, tokenizer.json
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from workflow.tradeoff import architecture, asking, errors, templates, variants
from workflow.tradeoff.decide import headline
from workflow.tradeoff.decide.decision import read
from workflow.tradeoff.files import atomic_folder, read_json, read_manifest, write_json
from workflow.tradeoff.variants import VARIANTS, Variant
from workflow.tradeoff.words import OBJECTIVES, number

# of each way: the packages that its program needs beside tokenizers
PACKAGES = {
    "transformers": ("torch", "transformers", "accelerate"),
    "onnxruntime": ("onnxruntime", "numpy"),
    "llama-server": ("xllamacpp",),
    "vllm": ("vllm",),
}
LAYERS_OF = ("bitsandbytes", "auto-round")  # packages, named as their quantizers, that transformers runs such layers by
PROGRAM = "serve.py"
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
PLAIN = {"head": [], "before": "", "after": "", "stop": []}  # of random weights, which no text was put to
CONTEXT = 4096  # tokens that llama.cpp's server makes room for, where the model takes as many
ALL_LAYERS = 999


def winners(decision: Mapping) -> list[dict]:
    """Each distinct winner with its scenarios: those that the answer opens with ahead, in its order."""
    order = headline.leading(decision["scenarios"])
    entries = sorted(
        (entry for entry in decision["scenarios"] if entry["winner"]),
        key=lambda entry: order.index(entry["scenario"]) if entry["scenario"] in order else len(order),
    )
    found: dict[tuple[str, str], dict] = {}
    for entry in entries:
        key = entry["model"], entry["winner"]
        one = found.setdefault(key, {"model": key[0], "variant": key[1], "asked": []})
        one["asked"].append(entry)
    return list(found.values())


def beside(names: Sequence[str], decision: Mapping, rows: Mapping) -> list[dict]:
    """Cells that are served beside the answers, which they are not: those that ran, and that somebody can serve."""
    won = {(entry["model"], entry["winner"]) for entry in decision["scenarios"]}
    cells = [tuple(name.split("/", 1)) for name in names]
    return [
        {"model": model, "variant": variant, "asked": []}
        for model, variant in cells
        if (model, variant) not in won and rows[model, variant]["status"] == "ok" and VARIANTS[variant].deploy
    ]


def first_of_models(deployed: Sequence[Mapping]) -> list[Mapping]:
    """The answer's winner of each model."""
    return list({entry["model"]: entry for entry in reversed(deployed)}.values())[::-1]


def artifact(results: Path, model: str, variant: Variant) -> Path:
    """Folder of what a variant of a model runs."""
    own = variant.artifact
    return results / "models" / model if own == "model" else results / "artifacts" / model / own


def command(program: Path) -> str:
    """The line that serves a winner, run from where the study was run, in its environment."""
    return shlex.join(["python", str(program)])


def llama_server(folder: Path, variant: Variant, row: Mapping, context: int) -> str:
    """The same by the program of llama.cpp's own name, for those who have it."""
    words = ["llama-server", "--model", str(folder / "model.gguf"), "--threads", str(_threads(row))]
    words += ["--ctx-size", str(min(CONTEXT, context)), "--host", "127.0.0.1", "--port", "8000"]
    if kept := variant.cache_type:
        words += ["--cache-type-k", kept, "--cache-type-v", kept]
    return shlex.join([*words, "--n-gpu-layers", str(ALL_LAYERS if row["device"] == "cuda" else 0)])


def vllm_serve(folder: Path, name: str, variant: Variant, context: int) -> str:
    """vLLM's own program on the same files, with the room that it was measured with."""
    words = ["vllm", "serve", folder.as_posix(), "--served-model-name", name]
    words += ["--dtype", variant.recipe.get("dtype", "float16")]
    words += ["--quantization", "fp8"] if variant.quantizer == "fp8" else []
    words += ["--max-model-len", str(min(variant.option("length"), context))]
    words += ["--max-num-seqs", str(variant.option("sequences"))]
    words += ["--kv-cache-dtype", variant.cache_type] if variant.cache_type else []
    words += ["--enforce-eager"] if variant.option("eager") else []
    told = "".join(f"{name}={shlex.quote(value)} " for name, value in variant.variables.items())
    return told + shlex.join([*words, "--host", "127.0.0.1", "--port", "8000"])


def _threads(row: Mapping) -> int:
    return int(row["threads"])


def packages(variant: Variant, libraries: Mapping[str, str]) -> list[str]:
    """``name==version`` of what a program needs, as it was measured."""
    wanted = ["tokenizers", *PACKAGES[variant.deploy]]
    if variant.deploy == "transformers" and variant.quantizer in LAYERS_OF:
        wanted.append(variant.quantizer)
    wanted = [
        "onnxruntime-gpu" if name == "onnxruntime" and "onnxruntime-gpu" in libraries else name for name in wanted
    ]
    return [f"{name}=={libraries[name]}" if name in libraries else name for name in wanted]


def figures(row: Mapping, room: int) -> list[tuple[str, str]]:
    """What a winner was measured at, in words; a figure that is not known is left out. room: tokens that it serves."""
    tokens = row["cache_tokens"]
    known = not pd.isna(tokens)
    more = f"{number(row['cache_mb'] * (room / tokens - 1))} MB" if known else ""
    length = f", {number(tokens)} tokens long" if known else ""

    def within(name: str, form: str, ends: str = "") -> str:
        low, high = (row[(ends or f"{name}_{{}}").format(end)] for end in ("low", "high"))
        if pd.isna(row[name]):
            return ""
        return form.format(number(row[name])) + ("" if pd.isna(low) else f" [{number(low)}, {number(high)}]")

    lines = [
        ("speed, one user", within("decode_tokens_per_s", "{} tokens/s")),
        (f"against {row['baseline']}", within("speedup", "{} times as fast")),
        ("time to the first token", within("ttft_ms", "{} ms")),
        ("weights and cache" + (f" of {number(tokens)} tokens" if known else ""), f"{number(row['memory_mb'])} MB"),
        (f"most memory of the process{length}", f"{number(max(row['peak_mb'], row['load_peak_mb']))} MB"),
        (f"to be added to both where all {number(room)} tokens are used, at most", more),
        ("change of perplexity", within("degradation_pct", "{}%", "degradation_{}_pct")),
    ]  # fmt: skip
    return [(name, text) for name, text in lines if text]


def describe(options, entry: Mapping, row: Mapping, environment: Mapping) -> dict:
    """What the templates of one winner may use."""
    from transformers import AutoConfig

    variant = VARIANTS[entry["variant"]]
    folder = artifact(options.results, entry["model"], variant)
    manifest = read_manifest(folder)
    path = (options.quality or options.results / "quality") / entry["model"] / f"{entry['variant']}.json"
    quality = read_json(path) if path.is_file() else {}
    model = options.results / "models" / entry["model"]
    context = architecture.longest(AutoConfig.from_pretrained(model, local_files_only=True, trust_remote_code=False))
    example = next(iter(quality.get("generated") or []), {"prompt": "Hello, how are you?", "text": "", "token_ids": []})
    device = "cpu" if variant.option("provider") == "cpu" else row["device"]
    half = "float16" if device == "cuda" else "float32"
    layers = variant.option("gpu_layers", ALL_LAYERS)
    layers = ALL_LAYERS if layers < 0 else layers
    prompting = quality.get("prompting") or PLAIN
    rooms = {"llama-server": min(CONTEXT, context), "vllm": min(variant.option("length", context), context)}
    program = options.output / entry["model"] / entry["variant"] / PROGRAM
    return {
        **entry,
        "way": variant.deploy,
        "words": variant.words,
        "recipe": variant.recipe,
        "dtype": DTYPES.get(variant.precision, half),
        "device": device,
        "threads": _threads(row),
        "context": rooms.get(variant.deploy, context),
        "room": rooms["llama-server"],
        "options": variant.options,
        "cache_type": variant.cache_type,
        "variables": variant.variables,
        "layers": layers if device == "cuda" else 0,
        "folder": folder.as_posix(),
        "artifact": folder.relative_to(options.results).as_posix(),
        "manifest": {**manifest, "mb": number(sum(file["bytes"] for file in manifest["files"].values()) / 1e6)},
        "license": manifest.get("license") or read_manifest(model).get("license"),
        "sizes": {name: file["bytes"] for name, file in manifest["files"].items()},
        "quoted_prompt": shlex.quote(example["prompt"]),
        "vocabulary_lacks": manifest.get("why") if "vocabulary" in manifest and not manifest["vocabulary"] else None,
        "prompting": prompting,
        "elsewhere": command(program.relative_to(options.results)),
        "path": asking.path(prompting),
        "body": shlex.quote(json.dumps(asking.body(prompting, example["prompt"], len(example["token_ids"]) or 100))),
        "example": example,
        "packages": packages(variant, environment.get("libraries") or {}),
        "command": command(program),
        "llama_server": llama_server(folder, variant, row, context) if variant.deploy == "llama-server" else "",
        "vllm_serve": vllm_serve(folder, entry["model"], variant, context) if variant.deploy == "vllm" else "",
        "figures": figures(row, rooms.get(variant.deploy, context)),
        "weights_from": row["weights_from"],
        "source_itself": variant.recipe.get("type") == "source",
        "machine": options.machine,
        "environment_digest": environment.get("digest"),
        "commit": (environment.get("git") or {}).get("commit"),
        "objectives": OBJECTIVES,
    }


def write(folder: Path, values: Mapping, model: Path, pages) -> None:
    """The folder of one winner, of the templates ``pages``.

    README.md, and a program with the model's tokenizer.
    """
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(pages.get_template("README.md.j2").render(**values))
    from transformers import AutoTokenizer

    (folder / PROGRAM).write_text(pages.get_template(f"{values['way']}.py.j2").render(**values))
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    variants.add_flag(parser)
    parser.add_argument("--study", required=True)
    parser.add_argument("--tables", required=True, type=Path, metavar="FOLDER", help="with decision.json")
    parser.add_argument("--results", required=True, type=Path, metavar="FOLDER", help="models, artifacts and quality")
    parser.add_argument("--quality", type=Path, metavar="FOLDER", help="where it is not {results}/quality")
    parser.add_argument("--environment", required=True, type=Path, metavar="FILE")
    parser.add_argument("--templates", required=True, type=Path, metavar="FOLDER", help="report/deploy")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER")
    parser.add_argument(
        "--also", nargs="*", default=[], metavar="MODEL/VARIANT", help="cells to serve beside the answers"
    )
    options = parser.parse_args(argv)
    decision, environment = read_json(options.tables / "decision.json"), read_json(options.environment)
    options.machine = decision["machine"]
    rows = {(row["model"], row["variant"]): row for row in read(options.tables)[0]}
    pages = templates.folder(options.templates)
    deployed = []
    with atomic_folder(options.output) as temporary:
        for entry in [*winners(decision), *beside(options.also, decision, rows)]:
            model, variant = entry["model"], entry["variant"]
            values = describe(options, entry, rows[model, variant], environment)
            write(temporary / model / variant, values, options.results / "models" / model, pages)
            names = [one["scenario"] for one in entry["asked"]]
            told = {key: values[key] for key in ("model", "variant", "words", "way", "command")}
            told |= {"readme": f"{options.output.name}/{model}/{variant}/README.md", "scenarios": names}
            deployed.append({**told, "digest": values["manifest"]["digest"]})
        write_json(temporary / "deploy.json", deployed)
        answers = [entry for entry in deployed if entry["scenarios"]]
        index = pages.get_template("index.md.j2").render(study=options.study, deployed=answers)
        (temporary / "README.md").write_text(index)
        leading = first_of_models(answers)
        lines = [f"To serve {one['model']} as {one['variant']}:\n    {one['command']}\n" for one in leading]
        (temporary / "command.txt").write_text("".join(lines) or "Nothing that was measured can be deployed.\n")


if __name__ == "__main__":
    errors.run(main)
