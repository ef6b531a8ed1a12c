"""Make what engines load of a model: one verb a step, each of its own file.

python -m workflow.tradeoff.prepare export --model-folder results/demo/models/M --output … --help
"""

import importlib
import sys

from workflow.tradeoff import errors
from workflow.tradeoff.errors import UserError

VERBS = ("export", "quantize", "fuse")


def main(argv: list[str]) -> None:
    if not argv or argv[0] not in VERBS:
        raise UserError(f"prepare: name a step, one of {', '.join(VERBS)} (--help after it lists its flags)")
    sys.argv[0] = f"prepare {argv[0]}"
    importlib.import_module(f"workflow.tradeoff.prepare.{argv[0]}").main(argv[1:])


if __name__ == "__main__":
    errors.run(main)
