"""Folders of transformers: what of them counts, and how it becomes safetensors of a causal LM."""

from collections.abc import Collection, Mapping
from pathlib import Path

from workflow.tradeoff import architecture, files
from workflow.tradeoff.errors import UserError, first_line
from workflow.tradeoff.fetch.sources import generation, kinds, weights
from workflow.tradeoff.fetch.sources.keys import say

DTYPES = ("float32", "float16", "bfloat16")  # that a model is kept in
CONFIGS = ("config.json", "generation_config.json")
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "tokenizer.model", "spiece.model", "vocab.txt", "chat_template.jinja", "chat_template.json",
)  # fmt: skip


def wanted(names: Collection[str], what: str) -> list[str]:
    """The files of a model among ``names``: configs, tokenizer, and the one file, or index, of its weights.

    Raises UserError when one kind is missing.
    """
    names = set(names)
    first = weights.entry(names)
    if "config.json" not in names:
        if "adapter_config.json" in names:
            raise UserError(f"{what} is an adapter and no model: merge it into its model and give the result")
        raise UserError(f"{what} has no config.json, so it is no transformers model: give another source")
    if not first:
        other = sorted(name for name in names if name.endswith((".safetensors", ".bin", ".gguf", ".pth", ".h5")))
        raise UserError(
            f"{what} has no model.safetensors and no pytorch_model.bin, nor an index of several"
            f"{f' (it has {other[0]})' if other else ''}: give a source with weights"
        )
    if not names & {"tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt"}:
        raise UserError(f"{what} has no tokenizer files (tokenizer.json): put the model's tokenizer beside its weights")
    return [name for name in (*CONFIGS, *TOKENIZER) if name in names] + [first]


def adopt(source: Path, target: Path, *, dtype: str, what: str) -> dict:
    """Bring the model of folder ``source`` into folder ``target`` as safetensors in ``dtype``.

    dtype: float32, float16, bfloat16, or auto: the one of the source (of float64: float32). Safetensors that have it
    already are copied byte for byte; else transformers saves what it read, which handles tied weights and names of old
    versions. Of a multimodal model, the text part.
    Returns ``dtype``, and what a reader must know: ``generation_settings`` that were left out, files ``left_out``,
    tensors ``unread``, and what the text model was ``taken_from``.
    Raises UserError when the model is not a causal LM, is quantized, weights are missing, or a .bin needs more than
    ``weights_only``.
    """
    present = {path.name for path in source.iterdir()}
    config = causal = None
    if "config.json" in present:
        # a model of another kind is told so before anything that it may lack
        raw = kinds.raw(source, what)
        kinds.refuse_quantized(raw, present, what)
        config = kinds.read_config(source, what)
        causal = kinds.model_class(config, what)
    names = wanted(present, what)
    placed = weights.places(source, what)
    state, others = weights.read(source, placed, what)
    weights.refuse_packed(state, what)
    stored = weights.dtype_of(state)
    dtype = stored if dtype == "auto" else dtype
    if dtype not in DTYPES:
        say(f"{what}: its weights are {dtype}, and kept as float32")
        dtype = "float32"
    facts = {"dtype": dtype, "left_out": weights.beside(source, placed)}
    if facts["left_out"]:
        say(f"{what}: {', '.join(facts['left_out'])} lie beside the model and are not read (an adapter must be merged)")
    generation_free(raw, causal, source, target)
    config = kinds.read_config(target, what)
    # read even when it is only copied: a model with missing weights would run with random ones
    part = architecture.text(config)
    if part is not config:
        whole = kinds.whole_class(config, what)
        outer, facts["unread"] = complete(whole, config, state, dtype, what)
        state = text_part(outer, causal, config, what)
        facts["taken_from"] = whole.__name__
    model, unread = complete(causal, part, state, dtype, what)
    facts.setdefault("unread", unread)
    if facts["unread"]:
        more = f" and {len(facts['unread']) - 1} more" if len(facts["unread"]) > 1 else ""
        say(f"{what}: {facts['unread'][0]}{more} of its tensors are not read, as its config.json has no place for them")
    kinds.refuse_foresight(model, what)
    if dtype == stored and part is config and not others and all(file.endswith(".safetensors") for file in placed):
        for name in dict.fromkeys([*names, *placed]):
            if name not in CONFIGS:
                copy(source / name, target / name)
    else:
        save(model, target, what)
        for name in names:
            if name in TOKENIZER:
                copy(source / name, target / name)
    facts["generation_settings"] = generation.neutral(source, target, raw, what)
    return facts


def generation_free(raw: dict, causal, source: Path, target: Path) -> None:
    """config.json in ``target``: the source's, without settings of generation, and with today's name of its class."""
    changed = generation.without(raw)
    if isinstance(inner := raw.get("text_config"), dict):
        changed["text_config"] = generation.without(inner)
    if not inner:
        changed["architectures"] = [causal.__name__]
    if changed == raw:
        copy(source / "config.json", target / "config.json")
    else:
        files.write_json(target / "config.json", changed)


def text_part(whole, causal, config, what: str) -> dict:
    """The weights of a loaded multimodal model's text part; what only the outer config states goes to the inner."""
    part = architecture.text(config)
    for key in generation.TOKENS:
        if getattr(part, key, None) is None:
            setattr(part, key, getattr(config, key, None))
    part.architectures = [causal.__name__]
    try:
        return kinds.text_state(whole, causal, part)
    except Exception as error:
        raise UserError(
            f"the text part of {what} cannot be taken out of it ({first_line(error)}): give a text model"
        ) from error


def save(model, target: Path, what: str) -> None:
    """Write config and weights of a loaded model as safetensors."""
    files.check_disk(target, 2**20 + sum(tensor.nbytes for tensor in model.parameters()), what)
    generation.plain(model)
    try:
        model.save_pretrained(target)
    except OSError:
        raise
    except Exception as error:
        raise UserError(
            f"transformers cannot save {what} as safetensors ({first_line(error)}): give it in that form"
        ) from error


def complete(causal, config, state: Mapping, dtype: str, what: str) -> tuple:
    """The model of ``config`` with the weights ``state``, and the names of those that it has no place for.

    UserError when one is missing or has another shape.
    """
    import torch

    try:
        model, report = causal.from_pretrained(
            None, config=config, state_dict=dict(state), dtype=getattr(torch, dtype), output_loading_info=True
        )
    except Exception as error:  # a library refuses a checkpoint in whatever way it likes
        raise UserError(
            f"the weights of {what} do not fit its config.json ({first_line(error)}): check the source"
        ) from error
    refuse_missing(report, what)
    return model, sorted(report["unexpected_keys"])


def refuse_missing(report: Mapping, what: str) -> None:
    """Raise UserError when transformers' loading ``report`` names weights that are missing or of another shape."""
    wrong = [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]
    if wrong:
        raise UserError(
            f"the weights of {what} lack {wrong[0]}"
            + (f" and {len(wrong) - 1} more" if len(wrong) > 1 else "")
            + ", which its config.json asks for: the checkpoint is not whole, fetch or copy it again"
        )


def copy(source: Path, target: Path) -> None:
    """Copy a file's content, with a bar when it is large."""
    from tqdm import tqdm

    target.parent.mkdir(parents=True, exist_ok=True)
    size = source.stat().st_size
    with (
        open(source, "rb") as reader,
        open(target, "wb") as writer,
        tqdm(total=size, unit="B", unit_scale=True, desc=f"copy {source.name}", disable=size < 16 * files.CHUNK) as bar,
    ):
        while chunk := reader.read(files.CHUNK):
            writer.write(chunk)
            bar.update(len(chunk))
