"""Take per-token log-probabilities, divergence from the baseline and generated text of every cell.

INPUTS:
    the cell's artifact, the corpus, and the baseline's own evaluation

OUTPUTS:
    {results}/quality/{model}/{variant}.json    perplexity by convention, divergence, text
    {results}/quality/{model}/{variant}.npz     per-token negative log-likelihoods, paired across variants

With machines in the config both lie in quality/{machine}/, for the kinds on which accuracy is taken: one of each device.

Cells of models with random weights have no accuracy: one job writes that, for all of them.
"""


rule evaluate:
    input:
        artifacts=artifacts,
        corpus=f"{RESULTS}/corpus/{CORPUS}.json",
        baseline=baseline_quality,
    output:
        json=f"{RESULTS}/quality/{ON}{{model}}/{{variant}}.json",
        arrays=f"{RESULTS}/quality/{ON}{{model}}/{{variant}}.npz",
    log:
        f"{RESULTS}/logs/evaluate/{ON}{{model}}_{{variant}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate/{ON}{{model}}_{{variant}}.tsv"
    container:
        CONTAINER
    threads: cores(ASKED)
    resources:
        **CELL_CARD,
        mem_mb=memory("evaluate"),
        runtime=runtime("evaluate"),
        # no parameter: another limit changes no cell that finished
        hung_after_s=config["hung_after_s"],
    params:
        code=engine_code("evaluate"),
        define=known_to_cell,
        definitions=definitions,
        libraries=LIBRARIES,
        beside=beside,
        study=config["study"],
        baseline=lambda wildcards: baseline(wildcards.model),
        baseline_flag=lambda wildcards, input: ["--baseline-quality", input.baseline] if input.baseline else [],
        artifact=lambda wildcards: artifact(wildcards.model, wildcards.variant),
        model=lambda wildcards: f"{RESULTS}/models/{wildcards.model}",
        settings={key: value for key, value in config["evaluate"].items() if key != "diagnose_share"},
        device=of_machine("device", DEVICE),
        threads=of_machine("threads", THREADS),
        machine=machine_flags,
    shell:
        """
        OMP_NUM_THREADS={params.threads} python -m workflow.tradeoff.evaluate \\
        {params.define:q} \\
        --study {params.study:q} \\
        --model {wildcards.model:q} \\
        --variant {wildcards.variant:q} \\
        --artifact {params.artifact:q} \\
        --baseline {params.baseline:q} \\
        {params.baseline_flag:q} \\
        --model-folder {params.model:q} \\
        --corpus {input.corpus:q} \\
        --conventions {params.settings[conventions]:q} \\
        --max-tokens {params.settings[max_tokens]} \\
        --batch-tokens {params.settings[batch_tokens]} \\
        --divergence-tokens {params.settings[divergence_tokens]} \\
        --generate-tokens {params.settings[generate_tokens]} \\
        --chat {params.settings[chat]} \\
        --bos {params.settings[bos]} \\
        --device {params.device:q} \\
        --threads {params.threads} \\
        --hung-after-s {resources.hung_after_s} \\
        {params.machine:q} \\
        --output {output.json:q} \\
        2> >(tee {log:q} >&2)
        """


RANDOM = [(model, variant) for model, variant in CELLS if config["models"][model]["source"] == "random"]

if RANDOM:

    ruleorder: unscored > evaluate

    rule unscored:
        input:
            corpus=f"{RESULTS}/corpus/{CORPUS}.json",
        output:
            json=cells("quality", of=RANDOM),
            arrays=cells("quality", ".npz", RANDOM),
        log:
            f"{RESULTS}/logs/unscored.log",
        benchmark:
            f"{RESULTS}/benchmarks/unscored.tsv"
        container:
            CONTAINER
        resources:
            **CARD,
        params:
            code=code("evaluate.unscored"),
            study=config["study"],
            baselines=lambda wildcards, output: [baseline(Path(path).parent.name) for path in output.json],
            device=DEVICE,
            threads=THREADS,
        shell:
            """
            python -m workflow.tradeoff.evaluate.unscored \\
            --study {params.study:q} \\
            --baselines {params.baselines:q} \\
            --corpus {input.corpus:q} \\
            --device {params.device:q} \\
            --threads {params.threads} \\
            --outputs {output.json:q} \\
            2> >(tee {log:q} >&2)
            """
