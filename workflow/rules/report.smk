"""Draw the figures, make the tables sortable, and write the report.

INPUTS:
    {results}/tables/, {results}/environment.json, report/report.md.j2

OUTPUTS:
    {results}/figures/{figure}.svg
    {results}/tables/html/{table}.html
    {results}/report.md, paper.md, the paper on trial, and landing.rst, the first page of the HTML report
"""

FIGURES = [
    "tradeoff",
    "speed",
    "latency",
    "growth",
    "memory",
    "perplexity",
    "delta_nll",
    "divergence",
    "roofline",
    "launch",
    "loads",
]
TABLES = [*SUMMARY_TABLES, *DECISION_TABLES, "claims"]
CATEGORIES = {
    "Answer": {"summary", "tradeoff", "machines", *DECISION_TABLES},
    "Speed": {"speed", "latency", "itl", "growth", "speed_by_precision", "roofline", "launch"},
    "Under load": {"loads", "crossings"},
    "Memory": {"memory", "memory_by_precision", "resources"},
    "Accuracy": {"perplexity", "delta_nll", "divergence", "conventions", "degradation", "accuracy_drop", "generated"},
    "Proof": {"proof"},
}


# seconds of work each, for which no cluster is asked
localrules:
    figures,
    figure_claims,
    html_tables,
    report,


rule figures:
    input:
        tables=rules.summarize.output,
        decision=f"{RESULTS}/tables/pareto.csv",
    output:
        [shown(f"{RESULTS}/figures/{name}.svg", name, "figure") for name in FIGURES],
    log:
        f"{RESULTS}/logs/figures.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures.tsv"
    container:
        CONTAINER
    params:
        code=code("report.figures"),
        define=KNOWN,
        definitions=DEFINITIONS,
        names=FIGURES,
        folder=lambda wildcards, input: folder_of(input.tables[0]),
    shell:
        """
        python -m workflow.tradeoff.report.figures \\
        {params.define:q} \\
        {params.names:q} \\
        --tables {params.folder:q} \\
        --output {output:q} \\
        2> >(tee {log:q} >&2)
        """


rule figure_claims:
    input:
        f"{RESULTS}/tables/claims.csv",
    output:
        shown(f"{RESULTS}/figures/claims.svg", "claims", "figure"),
    log:
        f"{RESULTS}/logs/claims_figure.log",
    benchmark:
        f"{RESULTS}/benchmarks/claims_figure.tsv"
    container:
        CONTAINER
    params:
        code=code("report.claims_figure"),
    shell:
        """
        python -m workflow.tradeoff.report.claims_figure \\
        --claims {input:q} \\
        --output {output:q} \\
        2> >(tee {log:q} >&2)
        """


rule html_tables:
    input:
        expand(f"{RESULTS}/tables/{{table}}.csv", table=TABLES),
        f"{RESULTS}/tables/notes.json",
    output:
        [shown(f"{RESULTS}/tables/html/{name}.html", name, "table") for name in TABLES],
    log:
        f"{RESULTS}/logs/html_tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/html_tables.tsv"
    container:
        CONTAINER
    params:
        code=code("report.htmltables"),
        names=TABLES,
        tables=lambda wildcards, input: folder_of(input[0]),
        folder=lambda wildcards, output: folder_of(output[0]),
    shell:
        """
        python -m workflow.tradeoff.report.htmltables {params.names:q} \\
        --tables {params.tables:q} \\
        --output {params.folder:q} \\
        2> >(tee {log:q} >&2)
        """


rule report:
    input:
        tables=expand(f"{RESULTS}/tables/{{table}}.csv", table=TABLES),
        decision=f"{RESULTS}/tables/decision.json",
        deploy=DEPLOYED,
        serving=[SERVED] if SERVE is not None else [],
        html=expand(f"{RESULTS}/tables/html/{{table}}.html", table=TABLES),
        figures=expand(f"{RESULTS}/figures/{{figure}}.svg", figure=[*FIGURES, "claims"]),
        diagnoses=cells("quality", ".diagnosis.json"),
        environment=f"{RESULTS}/environment.json",
        manifests=sorted(
            {
                f"{folder}/manifest.json"
                for model, variant in CELLS
                for folder in (f"{RESULTS}/models/{model}", artifact(model, variant))
            }
        ),
        template="report/report.md.j2",
        claims_template="report/claims.md.j2",
        paper="report/paper.md.j2",
        landing="report/landing.rst.j2",
    output:
        markdown=report(
            f"{RESULTS}/report.md",
            caption="../../report/report.rst",
            category="Answer",
            labels={"result": "report (text)"},
        ),
        paper=report(
            f"{RESULTS}/paper.md",
            caption="../../report/paper.rst",
            category="The paper on trial",
            labels={"result": "each statement (text)"},
        ),
        landing=f"{RESULTS}/landing.rst",
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report.tsv"
    container:
        CONTAINER
    params:
        code=code("report"),
        config=json.dumps(config, sort_keys=True),
        commands=[command()],
        serving=lambda wildcards, input: ["--serving", *input.serving] if input.serving else [],
        tables=lambda wildcards, input: folder_of(input.tables[0]),
        figures=lambda wildcards, input: folder_of(input.figures[0]),
    shell:
        """
        python -m workflow.tradeoff.report \\
        --tables {params.tables:q} \\
        --figures {params.figures:q} \\
        --decision {input.decision:q} \\
        --deploy {input.deploy:q} \\
        --environment {input.environment:q} \\
        --template {input.template:q} \\
        --landing {input.landing:q} {output.landing:q} \\
        --paper {input.paper:q} {output.paper:q} \\
        --config {params.config:q} \\
        --manifests {input.manifests:q} \\
        --diagnoses {input.diagnoses:q} \\
        --commands {params.commands:q} \\
        {params.serving:q} \\
        --output {output.markdown:q} \\
        2> >(tee {log:q} >&2)
        """
