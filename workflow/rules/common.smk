"""What every rule file shares: the checked config, the results folder, the cells, and the digest of a stage's code."""

import json
import os
import sys
from pathlib import Path

from snakemake.utils import validate

sys.path.insert(0, workflow.basedir)  # the package lies beside the Snakefile

from workflow.tradeoff import config as study_config
from workflow.tradeoff.digest import code
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.variants import VARIANTS


def checked(config):
    """The config with the schema's defaults filled in; a mistake ends the run in one line."""
    try:
        study_config.check_schema(config)
        validate(config, str(study_config.SCHEMA))
        study_config.check_meaning(config)
    except UserError as error:
        sys.exit(f"error: {error}")
    return config


config = checked(config)


include: "container.smk"


MODELS = list(config["models"])
CORPUS = config["corpus"]["name"]
DEVICE = study_config.device(config)
THREADS = config["threads"] or os.cpu_count()
CELLS = [(model, variant) for model in MODELS for variant in study_config.cells(config, model)[0]]


wildcard_constraints:
    model="[a-z0-9._-]+",
    variant="[a-z0-9._-]+",
    past="(-kv)?",


def baseline(model):
    return study_config.cells(config, model)[1]


def artifact(model, variant):
    """Folder of what a variant runs."""
    name = VARIANTS[variant].artifact
    return f"{RESULTS}/models/{model}" if name == "model" else f"{RESULTS}/onnx/{model}/{name}"


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


def cells(pattern):
    """A file of every cell."""
    return [pattern.format(root=RESULTS, model=model, variant=variant) for model, variant in CELLS]
