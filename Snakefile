"""From a pinned model to a trade-off report: what each quantization buys, what it costs, and which to deploy.

snakemake --cores 1                                   the embedded default: a small model on this machine's CPU
snakemake --cores 1 --use-singularity --configfile config/t4.yaml      the study, in a pinned container
snakemake --report results/demo/report.html           one self-contained page of what was made
"""

from snakemake.utils import min_version

min_version("9.0")


include: "workflow/rules/common.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/quantize.smk"
include: "workflow/rules/gguf.smk"
include: "workflow/rules/auto_round.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/summarize.smk"
include: "workflow/rules/decide.smk"
include: "workflow/rules/serve.smk"
include: "workflow/rules/report.smk"


report: os.path.abspath(f"{RESULTS}/landing.rst")


onstart:
    hold_the_folder()
    refuse_elsewhere()
    show_progress()


onerror:
    say_why_again()


rule all:
    default_target: True
    input:
        f"{RESULTS}/report.md",
        DEPLOYED,
        f"{RESULTS}/environment.json",
        # named here, a table or a cell's file that somebody deleted, to take it again, is made again
        expand(f"{RESULTS}/tables/{{table}}.csv", table=TABLES),
        cells("speed"),
        cells("quality"),
