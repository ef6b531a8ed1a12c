"""Measure speed, memory and proof of every cell, its processes alternating with its baseline's.

INPUTS:
    the artifacts of the cell and of its baseline

OUTPUTS:
    {results}/speed/{model}/{variant}.json      raw samples, memory, proof, environment; with machines in the
                                                config {results}/speed/{machine}/{model}/{variant}.json
"""


rule measure:
    input:
        artifacts,
    output:
        f"{RESULTS}/speed/{ON}{{model}}/{{variant}}.json",
    log:
        f"{RESULTS}/logs/measure/{ON}{{model}}_{{variant}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure/{ON}{{model}}_{{variant}}.tsv"
    # a timing that failed is not quietly taken again
    retries: 0
    container:
        CONTAINER
    # nothing else runs while a cell is timed: all cores that this run may use, and on a cluster a node of its own
    threads: cores(ALL_CORES)
    resources:
        **CELL_CARD,
        mem_mb=memory("measure"),
        runtime=runtime("measure"),
        # no parameter: another limit changes no cell that finished
        hung_after_s=config["hung_after_s"],
    params:
        code=engine_code("measure"),
        define=known_to_cell,
        definitions=definitions,
        libraries=LIBRARIES,
        beside=beside,
        study=config["study"],
        baseline=lambda wildcards: baseline(wildcards.model),
        artifact=lambda wildcards: artifact(wildcards.model, wildcards.variant),
        baseline_artifact=lambda wildcards: artifact(wildcards.model, baseline(wildcards.model)),
        model=lambda wildcards: f"{RESULTS}/models/{wildcards.model}",
        protocol={key: value for key, value in config["measure"].items() if key != "loads"},
        loads=["--loads", loads.dumps(LOADS)] if LOADS else [],
        device=of_machine("device", DEVICE),
        threads=of_machine("threads", THREADS),
        machine=machine_flags,
    shell:
        """
        python -m workflow.tradeoff.measure \\
        {params.define:q} \\
        --study {params.study:q} \\
        --model {wildcards.model:q} \\
        --variant {wildcards.variant:q} \\
        --artifact {params.artifact:q} \\
        --baseline {params.baseline:q} \\
        --baseline-artifact {params.baseline_artifact:q} \\
        --model-folder {params.model:q} \\
        --warmup {params.protocol[warmup]} \\
        --pairs {params.protocol[pairs]} \\
        --turns {params.protocol[turns]} \\
        --prompt-tokens {params.protocol[prompt_tokens]} \\
        --new-tokens {params.protocol[new_tokens]} \\
        --study-runs {params.protocol[study_runs]} \\
        --precision {params.protocol[precision]} \\
        --lost-share {params.protocol[lost_share]} \\
        --pairing {params.protocol[pairing]} \\
        --budget-s {params.protocol[budget_s]} \\
        {params.loads:q} \\
        --device {params.device:q} \\
        --threads {params.threads} \\
        --hung-after-s {resources.hung_after_s} \\
        {params.machine:q} \\
        --output {output:q} \\
        2> >(tee {log:q} >&2)
        """
