"""Quantize matrices with a learned rounding, by AutoRound: one folder that transformers and vLLM load.

INPUTS:
    {results}/models/{model}/
    the corpus and the calibration text, but for what is only rounded to nearest

OUTPUTS:
    {results}/artifacts/{model}/packed-auto-round-{settings}/
"""


rule auto_round:
    input:
        unpack(weighting),
        model=f"{RESULTS}/models/{{model}}/manifest.json",
    output:
        f"{RESULTS}/artifacts/{{model}}/{{recipe}}/manifest.json",
    log:
        f"{RESULTS}/logs/auto_round/{{model}}_{{recipe}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/auto_round/{{model}}_{{recipe}}.tsv"
    wildcard_constraints:
        recipe="packed-auto-round[a-z0-9._-]*",
    container:
        CONTAINER
    threads: ASKED
    resources:
        **CARD,
        mem_mb=memory("auto_round"),
        runtime=runtime("auto_round"),
        hung_after_s=patience("auto_round"),
    params:
        code=code("prepare", "prepare.auto_round"),
        libraries=LIBRARIES,
        model=lambda wildcards, input: folder_of(input.model),
        recipe=lambda wildcards: json.dumps(RECIPES[wildcards.recipe], sort_keys=True),
        texts=weighting_flags,
        device=DEVICE,
        threads=THREADS,
        folder=lambda wildcards, output: folder_of(output[0]),
    shell:
        """
        python -m workflow.tradeoff.prepare auto_round \\
        --model-folder {params.model:q} \\
        --recipe {params.recipe:q} \\
        {params.texts:q} \\
        --device {params.device:q} \\
        --threads {params.threads} \\
        --hung-after-s {resources.hung_after_s} \\
        --output {params.folder:q} \\
        2> >(tee {log:q} >&2)
        """
