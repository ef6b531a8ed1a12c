"""From tables to answers: what to deploy, and which of the study's statements hold.

INPUTS:
    {results}/tables/*.csv, {results}/environment.json, config/claims.yaml, config/reference.yaml

OUTPUTS:
    {results}/tables/decision.json and its tables      front, scenarios, matrix, tree, advice
    {results}/deploy/                                  how to serve each answer: command or program, digests, figures
    {results}/tables/claims.csv                        one verdict per statement of the study
    {results}/quality/{model}/{variant}.diagnosis.json why a loss is as high as a guess, where one is
"""

DECISION_TABLES = ["pareto", "scenarios", "selection_matrix", "quality_aware", "cost_benefit", "use_cases"]
DECISION_TABLES += ["costs", "study_hardware"] if MACHINES else []


# what is asked of each kind of machine for itself
DEPLOYED = [f"{RESULTS}/deploy/{name}/deploy.json" for name in MACHINES] or [f"{RESULTS}/deploy/deploy.json"]
OF_KIND = ["decision.json", "summary.csv", "environment.json"] if MACHINES else []


# seconds of work, for which no cluster is asked
localrules:
    decide,
    claims,


rule decide:
    input:
        tables=rules.summarize.output,
        environment=f"{RESULTS}/environment.json",
    output:
        expand(f"{RESULTS}/tables/{{table}}.csv", table=DECISION_TABLES),
        f"{RESULTS}/tables/decision.json",
        [f"{RESULTS}/tables/{name}/{file}" for name in MACHINES for file in OF_KIND],
    log:
        f"{RESULTS}/logs/decide.log",
    benchmark:
        f"{RESULTS}/benchmarks/decide.tsv"
    container:
        CONTAINER
    params:
        code=code("decide"),
        define=KNOWN,
        definitions=DEFINITIONS,
        scenarios=json.dumps(config["decide"]["scenarios"], sort_keys=True),
        folder=lambda wildcards, output: folder_of(output[0]),
        price=["--price-per-kwh", config["decide"]["price_per_kwh"]] if "price_per_kwh" in config["decide"] else [],
    shell:
        """
        python -m workflow.tradeoff.decide \\
        {params.define:q} \\
        --tables {params.folder:q} \\
        --environment {input.environment:q} \\
        --scenarios {params.scenarios:q} \\
        {params.price:q} \\
        --output {params.folder:q} \\
        2> >(tee {log:q} >&2)
        """


rule deploy:
    input:
        decision=f"{RESULTS}/tables/{ON}decision.json",
        summary=f"{RESULTS}/tables/{ON}summary.csv",
        environment=f"{RESULTS}/tables/{ON}environment.json" if MACHINES else f"{RESULTS}/environment.json",
        models=expand(f"{RESULTS}/models/{{model}}/manifest.json", model=MODELS),
        manifests=sorted({f"{artifact(model, variant)}/manifest.json" for model, variant in CELLS}),
        quality=cells("quality"),
        templates=sorted(map(str, Path("report/deploy").glob("*.j2"))),
    output:
        [f"{RESULTS}/deploy/{ON}{name}" for name in ("deploy.json", "command.txt", "README.md")],
    log:
        f"{RESULTS}/logs/{DEPLOY}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{DEPLOY}.tsv"
    container:
        CONTAINER
    params:
        code=code("decide.deploy"),
        define=KNOWN,
        definitions=DEFINITIONS,
        study=config["study"],
        # the stage `serve` runs an answer beside its baseline
        also=[f"{model}/{baseline(model)}" for model in MODELS] if "serve" in config else [],
        tables=lambda wildcards, input: folder_of(input.summary),
        results=lambda wildcards: RESULTS,
        scored=lambda wildcards: (
            ["--quality", f"{RESULTS}/quality/{MACHINES[wildcards.machine]['scored_by']}"] if MACHINES else []
        ),
        templates=lambda wildcards, input: folder_of(input.templates[0]),
        folder=lambda wildcards, output: folder_of(output[0]),
    shell:
        """
        python -m workflow.tradeoff.decide.deploy \\
        {params.define:q} \\
        --study {params.study:q} \\
        --tables {params.tables:q} \\
        --results {params.results:q} \\
        {params.scored:q} \\
        --environment {input.environment:q} \\
        --templates {params.templates:q} \\
        --also {params.also:q} \\
        --output {params.folder:q} \\
        2> >(tee {log:q} >&2)
        """


rule claims:
    input:
        claims="config/claims.yaml",
        reference="config/reference.yaml",
        summary=f"{RESULTS}/tables/summary.csv",
        conventions=f"{RESULTS}/tables/conventions.csv",
        environment=f"{RESULTS}/environment.json",
        kinds=[f"{RESULTS}/tables/environments.json"] if MACHINES else [],
    output:
        f"{RESULTS}/tables/claims.csv",
    log:
        f"{RESULTS}/logs/claims.log",
    benchmark:
        f"{RESULTS}/benchmarks/claims.tsv"
    container:
        CONTAINER
    params:
        code=code("claims"),
        kinds=lambda wildcards, input: ["--environments", input.kinds] if MACHINES else [],
    shell:
        """
        python -m workflow.tradeoff.claims \\
        --claims {input.claims:q} \\
        --reference {input.reference:q} \\
        --summary {input.summary:q} \\
        --environment {input.environment:q} \\
        {params.kinds:q} \\
        --output {output:q} \\
        2> >(tee {log:q} >&2)
        """


rule diagnose:
    input:
        artifacts=artifacts,
        corpus=f"{RESULTS}/corpus/{CORPUS}.json",
        quality=f"{RESULTS}/quality/{ON}{{model}}/{{variant}}.json",
        arrays=f"{RESULTS}/quality/{ON}{{model}}/{{variant}}.npz",
    output:
        f"{RESULTS}/quality/{ON}{{model}}/{{variant}}.diagnosis.json",
    log:
        f"{RESULTS}/logs/diagnose/{ON}{{model}}_{{variant}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/diagnose/{ON}{{model}}_{{variant}}.tsv"
    container:
        CONTAINER
    threads: cores(ASKED)
    resources:
        **CELL_CARD,
        mem_mb=memory("diagnose"),
        runtime=runtime("diagnose"),
    params:
        code=engine_code("evaluate.diagnose"),
        define=known_to_cell,
        definitions=definitions,
        artifact=lambda wildcards: artifact(wildcards.model, wildcards.variant),
        model=lambda wildcards: f"{RESULTS}/models/{wildcards.model}",
        share=config["evaluate"]["diagnose_share"],
        convention=config["evaluate"]["conventions"][0],
        device=of_machine("device", DEVICE),
        threads=of_machine("threads", THREADS),
    shell:
        """
        OMP_NUM_THREADS={params.threads} python -m workflow.tradeoff.evaluate.diagnose \\
        {params.define:q} \\
        --quality {input.quality:q} \\
        --model-folder {params.model:q} \\
        --artifact {params.artifact:q} \\
        --corpus {input.corpus:q} \\
        --variant {wildcards.variant:q} \\
        --share {params.share} \\
        --convention {params.convention:q} \\
        --device {params.device:q} \\
        --threads {params.threads} \\
        --output {output:q} \\
        2> >(tee {log:q} >&2)
        """
