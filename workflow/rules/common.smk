"""Shared by all stages: the checked config, the results folder, the cells, and the digest of a stage's code."""

import json
import os
import shlex
import sys
import time
from pathlib import Path

from snakemake.logging import logger
from snakemake.utils import validate

sys.path.insert(0, workflow.basedir)  # the package lies beside the Snakefile
# rules call `python`: on the host the one that runs Snakemake, also where its environment is not activated
os.environ.update(PATH=os.pathsep.join([os.path.dirname(sys.executable), *os.get_exec_path()]))
# each job is a process: without compiled files it compiles its libraries anew, for seconds
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from workflow.tradeoff.run import config as study_config
from workflow.tradeoff.run.environment import libraries
from workflow.tradeoff.run import interpreter, needs, progress, running
from workflow.tradeoff.run.digest import code
from workflow.tradeoff import loaded, loads, words
from workflow.tradeoff.errors import UserError
from workflow.tradeoff import variants
from workflow.tradeoff.variants import VARIANTS


def readable(path):
    """The path of a config again; a file that cannot be read as one ends the run in one line."""
    try:
        return study_config.readable(path)
    except UserError as error:
        sys.exit(f"error: {error}")


for path in workflow.config_settings.configfiles:
    readable(path)

# A user's --configfile stands in for the embedded default; --config values are laid over either.
if not workflow.config_settings.configfiles:

    configfile: readable("config/config.yaml")


def checked(config):
    """The config with the schema's defaults filled in; a mistake ends the run in one line."""
    try:
        said = study_config.renew(config)
        for line in said if workflow.is_main_process else ():
            logger.warning(line)
        study_config.check_schema(config)
        validate(config, str(study_config.SCHEMA))
        study_config.check_meaning(config)
        if not workflow.local_exec:
            study_config.check_elsewhere(config)
    except UserError as error:
        sys.exit(f"error: {error}")
    return config


config = checked(config)


include: "container.smk"


MODELS = list(config["models"])
CORPUS = config["corpus"]["name"]
DEVICE = study_config.device(config)
LOADS = loads.further(config["measure"])  # beside the standard one
HERE = workflow.is_main_process and workflow.local_exec
SUBMITS = workflow.is_main_process and not workflow.local_exec
# 0: all cores that a process may use. A machine that submits has none to give; a job takes those that its node gives it.
THREADS = config["threads"] or (0 if SUBMITS else len(os.sched_getaffinity(0)))
ASKED = (THREADS if HERE else config["threads"]) or 1  # for a job that computes
# of this run on this machine; a cluster's node gives what was asked for, and knows nothing of --cores
ALL_CORES = (HERE and workflow.resource_settings.cores) or ASKED
try:
    running.check_place(Path(workflow.basedir), Path(RESULTS))
except UserError as error:
    sys.exit(f"error: {error}")


include: "machines.smk"


CELLS = [(model, variant) for model in MODELS for variant in study_config.cells(config, model)[0]]


# For params: another version of a library makes its cells again, so that what it could not do is tried again. A
# container's libraries are the image's, and another image is a reason of its own.
LIBRARIES = {} if IN_CONTAINER else {k: v for k, v in libraries().items() if k != "snakemake"}


wildcard_constraints:
    machine="[a-z0-9._-]+",
    model="[a-z0-9._-]+",
    variant="[a-z0-9_-]+",
    past="(-kv)?",


KNOWN = variants.flags(*(variant for _, variant in CELLS))
DEFINITIONS = {variant: VARIANTS[variant].definition() for _, variant in CELLS}


def baseline(model):
    return study_config.cells(config, model)[1]


def artifact(model, variant):
    """Folder of what a variant runs."""
    name = VARIANTS[variant].artifact
    return f"{RESULTS}/models/{model}" if name == "model" else f"{RESULTS}/artifacts/{model}/{name}"


def exported(name):
    """The float32 export that an ONNX artifact is made of."""
    return "onnx-fp32-kv" if name.endswith("-kv") else "onnx-fp32"


def artifacts(wildcards):
    """Manifests of what a cell and its baseline run, and of the model."""
    folders = [artifact(wildcards.model, name) for name in (wildcards.variant, baseline(wildcards.model))]
    return sorted({f"{folder}/manifest.json" for folder in [*folders, f"{RESULTS}/models/{wildcards.model}"]})


def engine_code(*stages):
    """For params: the digest of stages together with the engines that a cell and its baseline run on."""

    def params(wildcards):
        names = (wildcards.variant, baseline(wildcards.model))
        return code(*stages, *sorted({f"engines.{VARIANTS[name].engine}" for name in names}))

    return params


def beside(wildcards):
    """For params: what is there of the environments that a cell's engine and its baseline's have for themselves."""
    states = {name: interpreter.state(VARIANTS[name]) for name in (wildcards.variant, baseline(wildcards.model))}
    return {name: state for name, state in states.items() if state}


def size_of(wildcards, input):
    """The model's size once it is fetched; before, an input is said to be missing, and Snakemake asks again later."""
    try:
        return needs.of_manifest(Path(RESULTS) / "models" / wildcards.model / "manifest.json")
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, error.strerror, str(input[0])) from error


def memory(stage):
    """For resources: MB of memory that a job of a stage asks a cluster for."""
    return lambda wildcards, input: needs.memory_mb(stage, size_of(wildcards, input), config)


def estimated(stage, of):
    """For resources: ``of`` a stage, the model's size, the config, and what its job runs on, once the model is there."""

    def value(wildcards, input):
        keys = dict(wildcards.items())
        names = [name for _, name in CELLS if VARIANTS[name].artifact == keys.get("recipe")]
        variant = next((VARIANTS[name] for name in [keys.get("variant"), *names] if name), None)
        kind = MACHINES.get(keys.get("machine"), {"device": DEVICE, "threads": ASKED})
        asked = kind["threads"] or ASKED
        return of(stage, size_of(wildcards, input), config, kind["device"], variant, asked)

    return value


def runtime(stage):
    """For resources: minutes that a job of a stage asks a cluster for."""
    return estimated(stage, needs.minutes)


def patience(stage):
    """For resources: seconds without progress after which a job of a stage that prepares ends what hangs."""
    return estimated(stage, lambda *of: needs.hung_after_s(stage, needs.seconds(*of), config))


def known(*names):
    """The flags that make a stage know the variants that it deals with: none for presets."""
    return variants.flags(*names)


def known_to_cell(wildcards):
    return known(wildcards.variant, baseline(wildcards.model))


def definitions(wildcards):
    """For params: what a cell and its baseline are, so that a changed recipe or option reruns its own cells."""
    return [VARIANTS[name].definition() for name in (wildcards.variant, baseline(wildcards.model))]


def hold_the_folder():
    """Let no second run work in this folder, and no stage that a killed run left behind; read every file anew."""
    global held, begun
    try:
        begun = time.time()
        held = running.hold(Path(".snakemake/run.lock"), Path.cwd())
        loaded.forget(Path(RESULTS))
    except UserError as error:
        sys.exit(f"error: {error}")


def show_progress():
    """One line a job from here on; Snakemake's own account of it, with its command, goes to its log file."""
    jobs = progress.numbered(workflow.dag.needrun_jobs())
    progress.attach(
        logger,
        jobs,
        Path(RESULTS) / "logs" / "progress.log",
        {"measure": config["measure"]["budget_s"] * (1 + len(LOADS))},
    )


def say_why_again():
    """Say at the end, below what Snakemake says of a failed job, the line in which its stage named cause and remedy."""
    for line in running.last_words(Path(RESULTS) / "logs", since=begun):
        print(line, file=sys.stderr)


def folder_of(path):
    """The folder that a stage writes, or reads, as a whole: the one that a file of it lies in."""
    return os.path.dirname(str(path))


def cells(kind, suffix=".json", of=CELLS):
    """A file of each cell: ``speed`` of each kind of machine, ``quality`` of each that accuracy is taken on."""
    places = [f"{name}/" for name in (MACHINES if kind == "speed" else SCORERS)] if MACHINES else [""]
    return [f"{RESULTS}/{kind}/{place}{model}/{variant}{suffix}" for place in places for model, variant in of]


def baseline_quality(wildcards):
    """The evaluation that a cell is compared with; none for the baseline itself."""
    name = baseline(wildcards.model)
    place = f"{wildcards.machine}/" if MACHINES else ""
    return [] if wildcards.variant == name else f"{RESULTS}/quality/{place}{wildcards.model}/{name}.json"


# the rule that makes what an engine loads, where it is one rule alone
MADE_BY = {"fused": ("fuse",), "gguf": ("gguf",), "packed": ("auto_round",)}


def weighting(wildcards):
    """The texts that a recipe needs which learns from one."""
    if not variants.calibrated(RECIPES[wildcards.recipe]):
        return {}
    return {"calibration": f"{RESULTS}/corpus/calibration.json", "scored": f"{RESULTS}/corpus/{CORPUS}.json"}


def weighting_flags(wildcards, input):
    """For params: the flags of those texts."""
    return [part for key in ("calibration", "scored") if key in input.keys() for part in (f"--{key}", input[key])]


def benchmarks_so_far(wildcards):
    """Benchmark files of the jobs whose memory the appendix shows; these jobs are done, so the files are no inputs."""
    made = {(VARIANTS[variant].family, model, VARIANTS[variant].artifact) for model, variant in CELLS}
    onnx = {(model, name) for family, model, name in made if family == "onnx"}
    # a quantized file is made of the float32 one with the same kind of cache
    onnx |= {(model, exported(name)) for model, name in onnx}
    steps = [f"{'export' if name == exported(name) else 'quantize'}/{model}_{name}" for model, name in sorted(onnx)]
    steps += sorted(f"{verb}/{model}_{name}" for family, model, name in made for verb in MADE_BY.get(family, ()))
    for stage, places in (("measure", MACHINES), ("evaluate", SCORERS)):
        steps += [
            f"{stage}/{place}{model}_{variant}"
            for place in ([f"{name}/" for name in places] if MACHINES else [""])
            for model, variant in CELLS
            if stage == "measure" or config["models"][model]["source"] != "random"
        ]
    return [f"{RESULTS}/benchmarks/{step}.tsv" for step in [*(f"fetch/{model}" for model in MODELS), *steps]]


def category(name):
    return next((title for title, names in CATEGORIES.items() if name in names), "The paper's tables")


def shown(path, name, kind):
    """A result for the HTML report, with its caption, category and labels."""
    return report(
        path,
        caption=f"../../report/{kind}s/{name}.rst",
        category="The paper on trial" if name == "claims" else category(name),
        # one label: of two, Snakemake's page makes a matrix, and a gap in it leaves the page blank
        labels={"result": f"{name.replace('_', ' ')} ({kind})"},
    )


def command():
    """The command line that makes this study again: a shell takes it as it stands."""
    words = ["snakemake", "--cores", "1", *(["--use-singularity"] if IN_CONTAINER else [])]
    # one flag: of two, Snakemake takes the last
    paths = [os.path.relpath(path) for path in workflow.config_settings.configfiles]
    given = [f"{key}={value}" for key, value in workflow.config_settings.config.items()]
    words += [*(["--configfile", *paths] if paths else []), *(["--config", *given] if given else [])]
    return shlex.join(words)
