"""Make lower-precision ONNX files, by ONNX Runtime's own quantizers.

INPUTS:
    {results}/onnx/{model}/fp32/ or fp32-kv/

OUTPUTS:
    {results}/onnx/{model}/{precision}/ or {precision}-kv/
        int8   dynamic INT8, QInt8 weights
        int8w  weight-only 8 bit (MatMulNBits)
        int4   weight-only 4 bit (MatMulNBits)
"""


rule quantize:
    input:
        f"{RESULTS}/onnx/{{model}}/fp32{{past}}/manifest.json",
    output:
        f"{RESULTS}/onnx/{{model}}/{{precision}}{{past}}/manifest.json",
    log:
        f"{RESULTS}/logs/quantize/{{model}}_{{precision}}{{past}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/quantize/{{model}}_{{precision}}{{past}}.tsv"
    wildcard_constraints:
        precision="int8|int8w|int4",
    container:
        CONTAINER
    params:
        code=code("prepare.quantize"),
        source=lambda wildcards, input: folder_of(input[0]),
        options=lambda wildcards: (
            [f"--{key.replace('_', '-')}" for key, value in config["quantize"].items() if value]
            if wildcards.precision == "int8"
            else []
        ),
        folder=lambda wildcards, output: folder_of(output[0]),
    shell:
        """
        python -m workflow.tradeoff.prepare quantize \\
        --input {params.source:q} \\
        --precision {wildcards.precision:q} \\
        {params.options} \\
        --output {params.folder:q} \\
        2> >(tee {log:q} >&2)
        """
