"""Make what engines load of a model: one verb a step, each of its own file.

python -m workflow.tradeoff.prepare export --model-folder results/demo/models/M --output … --help

A step that fails makes its artifact all the same: a manifest with status and reason, which its cells then have. Only a
broken study (a full disk, a file that was changed) stops the run.
"""

import argparse
import importlib
import sys
from pathlib import Path

from workflow.tradeoff import errors, files
from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.run import fork, hang, shortage

VERBS = ("export", "quantize", "fuse", "gguf", "auto_round")


def main(argv: list[str]) -> None:
    if not argv or argv[0] not in VERBS:
        raise UserError(f"prepare: name a step, one of {', '.join(VERBS)} (--help after it lists its flags)")
    verb, flags = argv[0], argv[1:]
    sys.argv[0] = f"prepare {verb}"
    if "--output" not in flags[:-1]:  # --help, or a flag that is missing: the step says so itself
        return importlib.import_module(f"workflow.tradeoff.prepare.{verb}").main(flags)
    output = Path(flags[flags.index("--output") + 1])
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    hang.add_flag(own)
    limited, argv = own.parse_known_args(argv)
    before = shortage.on_host()
    try:
        # in a process of its own, so that the end of memory is a status too, and a hang has an end
        code, text = fork.run(step, argv, limit=hang.Limit(verb, limited.hung_after_s, output))
    except CellFailure as failure:
        return record(verb, output, failure)
    if code > 0:  # it has said why
        sys.exit(code)
    if code < 0:
        record(verb, output, died(code, text, before))


def step(argv: list[str]) -> None:
    """One step; whatever a library raises on the way is the status of the cells that wait for it."""
    verb, flags = argv[0], argv[1:]
    output = Path(flags[flags.index("--output") + 1])
    hang.at("the whole step")
    try:
        importlib.import_module(f"workflow.tradeoff.prepare.{verb}").main(flags)
    except UserError:
        raise
    except CellFailure as failure:
        record(verb, output, failure)
    except Exception as error:
        if errors.full_disk(error):
            raise
        record(verb, output, understood(error))


def understood(error: Exception) -> CellFailure:
    """The failure that an exception of a library stands for."""
    words = errors.described(error)
    if shortage.says_so(words):
        return CellFailure("out_of_memory", f"{shortage.on_host()}: {words}")
    return CellFailure("unsupported" if isinstance(error, NotImplementedError) else "error", words)


def died(code: int, text: str, before: shortage.Available) -> CellFailure:
    """The failure of a step whose process died of signal ``-code``; before: the memory that there was."""
    last = ([line for line in text.splitlines() if line.strip()] or ["no message"])[-1]
    if code == -9 or shortage.says_so(last):
        return CellFailure(
            "out_of_memory", f"the process was killed, as when memory runs out; {before} before it began"
        )
    return CellFailure("error", f"the process died of signal {-code}: {last}")


def record(verb: str, output: Path, failure: CellFailure) -> None:
    """Write the failure in the artifact's place; one that its source brought with it names its own step."""
    inherited = failure.reason.split(":")[0] in VERBS
    reason = failure.reason if inherited else f"{verb}: {failure.reason}"
    files.write_failure(output, CellFailure(failure.status, reason), {"step": verb})
    print(f"{output} cannot be made, {failure.status}: {reason}", file=sys.stderr)


if __name__ == "__main__":
    errors.run(main)
