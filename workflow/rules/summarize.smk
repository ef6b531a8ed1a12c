"""Turn raw samples and log-probabilities into tables: every statistic is computed here, on the CPU.

INPUTS:
    {results}/speed/{model}/{variant}.json, {results}/quality/{model}/{variant}.json and .npz
    {results}/models/{model}/manifest.json and the corpus, whose digests the cells must have

OUTPUTS:
    {results}/tables/*.csv         tidy, one row per cell, units in the column names
    {results}/tables/notes.json    what each table states: protocol, repeats, device, threads
    With machines in the config also machines.csv, and environments.json: what each kind was
"""

SUMMARY_TABLES = [
    "summary",
    "benchmark",
    "onnx",
    "perplexity",
    "degradation",
    "accuracy_drop",
    "speed_by_precision",
    "memory_by_precision",
    "efficiency_matrix",
    "latency",
    "itl",
    "growth",
    "launch",
    "memory",
    "conventions",
    "divergence",
    "generated",
    "proof",
    "resources",
    "loads",
    "crossings",
    *(["machines"] if MACHINES else []),
]


rule summarize:
    input:
        speed=cells("speed"),
        quality=cells("quality"),
        arrays=cells("quality", ".npz"),
        models=expand(f"{RESULTS}/models/{{model}}/manifest.json", model=MODELS),
        corpus=f"{RESULTS}/corpus/{CORPUS}.json",
    output:
        expand(f"{RESULTS}/tables/{{table}}.csv", table=SUMMARY_TABLES),
        f"{RESULTS}/tables/notes.json",
        [f"{RESULTS}/tables/environments.json"] if MACHINES else [],
    log:
        f"{RESULTS}/logs/summarize.log",
    benchmark:
        f"{RESULTS}/benchmarks/summarize.tsv"
    container:
        CONTAINER
    params:
        code=code("summarize"),
        define=KNOWN,
        definitions=DEFINITIONS,
        study=config["study"],
        benchmarks=benchmarks_so_far,
        machines=["--machines", json.dumps(MACHINES)] if MACHINES else [],
        folder=lambda wildcards, output: folder_of(output[0]),
    shell:
        """
        python -m workflow.tradeoff.summarize \\
        {params.define:q} \\
        --study {params.study:q} \\
        --speed {input.speed:q} \\
        --quality {input.quality:q} \\
        --models {input.models:q} \\
        --corpus {input.corpus:q} \\
        {params.machines:q} \\
        --benchmarks {params.benchmarks:q} \\
        --output {params.folder:q} \\
        2> >(tee {log:q} >&2)
        """
