"""Serve an answer and its baseline for real, under load. Asked for by the config key `serve`; else nothing here runs.

INPUTS:
    {results}/deploy/deploy.json, {results}/tables/decision.json, envs/serve.lock

OUTPUTS:
    .venv-serve/made                  the load generator's environment, made when it is first asked for
    {results}/serve/raw.json          every request: arrival, first token, gaps, tokens, error; greedy answers
    {results}/serve/serving.csv, versus.csv, serving.json
"""

SERVE = config.get("serve")
GENERATOR = ".venv-serve/made"
SERVED = f"{RESULTS}/serve/serving.json"

if SERVE is not None and IN_CONTAINER:
    sys.exit("error: config key serve: it runs on the host, where its load generator is: leave --use-singularity out")


rule load_generator:
    input:
        "envs/serve.lock",
    output:
        GENERATOR,
    log:
        f"{RESULTS}/logs/load_generator.log",
    benchmark:
        f"{RESULTS}/benchmarks/load_generator.tsv"
    localrule: True
    container:
        CONTAINER
    params:
        folder=lambda wildcards, output: folder_of(output[0]),
    shell:
        """
        python envs/install.py serve {params.folder:q} \
            2> >(tee {log:q} >&2)
        touch {output:q}
        """


rule serve:
    input:
        deploy=f"{RESULTS}/deploy/deploy.json",
        decision=f"{RESULTS}/tables/decision.json",
        quality=cells("quality"),
        generator=GENERATOR,
    output:
        f"{RESULTS}/serve/raw.json",
    log:
        f"{RESULTS}/logs/serve.log",
    benchmark:
        f"{RESULTS}/benchmarks/serve.tsv"
    container:
        CONTAINER
    threads: ALL_CORES
    resources:
        **CARD,
    params:
        code=code("serve"),
        results=lambda wildcards, output: os.path.dirname(folder_of(output[0])),
        plan=json.dumps(SERVE, sort_keys=True),
        baseline=json.dumps({model: baseline(model) for model in MODELS}, sort_keys=True),
        limits=json.dumps(config["decide"]["scenarios"], sort_keys=True),
        program=lambda wildcards, input: f"{folder_of(input.generator)}/bin/aiperf",
    shell:
        """
        python -m workflow.tradeoff.serve \\
        --results {params.results:q} \\
        --deploy {input.deploy:q} \\
        --decision {input.decision:q} \\
        --baseline {params.baseline:q} \\
        --plan {params.plan:q} \\
        --limits {params.limits:q} \\
        --generator {params.program:q} \\
        --output {output:q} \\
        2> >(tee {log:q} >&2)
        """


rule serving:
    input:
        f"{RESULTS}/serve/raw.json",
    output:
        SERVED,
        expand(f"{RESULTS}/serve/{{name}}.csv", name=["serving", "versus"]),
    log:
        f"{RESULTS}/logs/serving.log",
    benchmark:
        f"{RESULTS}/benchmarks/serving.tsv"
    localrule: True
    container:
        CONTAINER
    params:
        code=code("serve.tables"),
        folder=lambda wildcards, output: folder_of(output[0]),
    shell:
        """
        python -m workflow.tradeoff.serve.tables \\
        --raw {input:q} \\
        --output {params.folder:q} \\
        2> >(tee {log:q} >&2)
        """
