"""Make lower-precision ONNX files, by ONNX Runtime's own quantizers.

INPUTS:
    {results}/artifacts/{model}/onnx-fp32/ or onnx-fp32-kv/

OUTPUTS:
    {results}/artifacts/{model}/onnx-{recipe}/ or onnx-{recipe}-kv/
        dynamic          INT8, activations quantized as they come
        matmul-nbits-…   weight-only 4 or 8 bit, by its settings
"""

RECIPES = {VARIANTS[variant].artifact: VARIANTS[variant].recipe for _, variant in CELLS}


rule quantize:
    input:
        lambda wildcards: f"{RESULTS}/artifacts/{wildcards.model}/{exported(wildcards.recipe)}/manifest.json",
    output:
        f"{RESULTS}/artifacts/{{model}}/{{recipe}}/manifest.json",
    log:
        f"{RESULTS}/logs/quantize/{{model}}_{{recipe}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/quantize/{{model}}_{{recipe}}.tsv"
    wildcard_constraints:
        recipe="onnx-(dynamic|matmul-nbits)[a-z0-9._-]*",
    container:
        CONTAINER
    resources:
        mem_mb=memory("quantize"),
        runtime=runtime("quantize"),
        hung_after_s=patience("quantize"),
    params:
        code=lambda wildcards: code(
            "prepare", "prepare.quantize", f"prepare.{RECIPES[wildcards.recipe]['quantizer'].replace('-', '_')}"
        ),
        libraries=LIBRARIES,
        source=lambda wildcards, input: folder_of(input[0]),
        recipe=lambda wildcards: json.dumps(RECIPES[wildcards.recipe], sort_keys=True),
        folder=lambda wildcards, output: folder_of(output[0]),
    shell:
        """
        python -m workflow.tradeoff.prepare quantize \\
        --input {params.source:q} \\
        --recipe {params.recipe:q} \\
        --hung-after-s {resources.hung_after_s} \\
        --output {params.folder:q} \\
        2> >(tee {log:q} >&2)
        """
