"""Export each model to ONNX in float32, and check its logits against torch's; build the float16 decoder for GPUs.

INPUTS:
    {results}/models/{model}/

OUTPUTS:
    {results}/artifacts/{model}/onnx-fp32/         without past key values: the whole sequence runs again for every token
    {results}/artifacts/{model}/onnx-fp32-kv/      with past key values
    {results}/artifacts/{model}/fused-fp16-kv/     ONNX Runtime's fused operators in float16, with a static cache
"""


rule export:
    input:
        f"{RESULTS}/models/{{model}}/manifest.json",
    output:
        f"{RESULTS}/artifacts/{{model}}/onnx-fp32{{past}}/manifest.json",
    log:
        f"{RESULTS}/logs/export/{{model}}_onnx-fp32{{past}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/export/{{model}}_onnx-fp32{{past}}.tsv"
    container:
        CONTAINER
    threads: ASKED
    resources:
        mem_mb=memory("export"),
        runtime=runtime("export"),
        hung_after_s=patience("export"),
    params:
        code=code("prepare", "prepare.export"),
        libraries=LIBRARIES,
        model=lambda wildcards, input: folder_of(input[0]),
        cache=lambda wildcards: ["--cache"] if wildcards.past else [],
        longest=words.longest_window(config["evaluate"]["conventions"]),
        threads=THREADS,
        folder=lambda wildcards, output: folder_of(output[0]),
    shell:
        """
        python -m workflow.tradeoff.prepare export \\
        --model-folder {params.model:q} \\
        {params.cache} \\
        --longest {params.longest} \\
        --threads {params.threads} \\
        --hung-after-s {resources.hung_after_s} \\
        --output {params.folder:q} \\
        2> >(tee {log:q} >&2)
        """


rule fuse:
    input:
        f"{RESULTS}/models/{{model}}/manifest.json",
    output:
        f"{RESULTS}/artifacts/{{model}}/fused-fp16-kv/manifest.json",
    log:
        f"{RESULTS}/logs/fuse/{{model}}_fused-fp16-kv.log",
    benchmark:
        f"{RESULTS}/benchmarks/fuse/{{model}}_fused-fp16-kv.tsv"
    container:
        CONTAINER
    resources:
        mem_mb=memory("fuse"),
        runtime=runtime("fuse"),
        hung_after_s=patience("fuse"),
    params:
        code=code("prepare", "prepare.fuse"),
        libraries=LIBRARIES,
        model=lambda wildcards, input: folder_of(input[0]),
        folder=lambda wildcards, output: folder_of(output[0]),
    shell:
        """
        python -m workflow.tradeoff.prepare fuse \\
        --model-folder {params.model:q} \\
        --hung-after-s {resources.hung_after_s} \\
        --output {params.folder:q} \\
        2> >(tee {log:q} >&2)
        """
