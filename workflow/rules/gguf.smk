"""Make the GGUF files that llama.cpp runs: converted, quantized by ggml, the first blocks checked against torch.

INPUTS:
    {results}/models/{model}/
    the corpus and the calibration text, where errors are weighted by an importance matrix

OUTPUTS:
    {results}/artifacts/{model}/gguf-{type}/            model.gguf, of llama.cpp's types and mixes
    {results}/artifacts/{model}/gguf-{type}-imatrix/
    {results}/artifacts/{model}/gguf-source/            the file that the model was fetched as
"""


rule gguf:
    input:
        unpack(weighting),
        model=f"{RESULTS}/models/{{model}}/manifest.json",
    output:
        f"{RESULTS}/artifacts/{{model}}/{{recipe}}/manifest.json",
    log:
        f"{RESULTS}/logs/gguf/{{model}}_{{recipe}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/gguf/{{model}}_{{recipe}}.tsv"
    wildcard_constraints:
        recipe="gguf-[a-z0-9_-]+",
    container:
        CONTAINER
    threads: ASKED
    resources:
        mem_mb=memory("gguf"),
        runtime=runtime("gguf"),
        hung_after_s=patience("gguf"),
    params:
        code=code("prepare", "prepare.gguf"),
        libraries=LIBRARIES,
        model=lambda wildcards, input: folder_of(input.model),
        recipe=lambda wildcards: json.dumps(RECIPES[wildcards.recipe], sort_keys=True),
        texts=weighting_flags,
        threads=THREADS,
        folder=lambda wildcards, output: folder_of(output[0]),
    shell:
        """
        python -m workflow.tradeoff.prepare gguf \\
        --model-folder {params.model:q} \\
        --recipe {params.recipe:q} \\
        {params.texts:q} \\
        --threads {params.threads} \\
        --hung-after-s {resources.hung_after_s} \\
        --output {params.folder:q} \\
        2> >(tee {log:q} >&2)
        """
