"""Two halves of a study run apart: merged, the tables are made of them, and nothing is measured again."""

import shutil
import subprocess
import sys

RAW = {"fetch_model", "fetch_corpus", "export", "quantize", "measure", "evaluate", "unscored", "diagnose"}


def test_halves_run_apart_give_the_tables_of_the_whole(study):
    whole = study.folder / "whole"
    shutil.move(study.results, whole)
    shutil.rmtree(study.folder / ".snakemake")
    for half, left_out in (("a", "gpt2"), ("b", "llama")):
        shutil.copytree(whole, study.folder / half)
        for kind in ("models", "artifacts", "speed", "quality"):
            shutil.rmtree(study.folder / half / kind / left_out)
        shutil.rmtree(study.folder / half / "tables")
    merge = ["-m", "workflow.tradeoff.run.merge", "a", "b", "--config", "config/tiny.yaml"]
    done = subprocess.run([sys.executable, *merge], cwd=study.folder, capture_output=True, text=True)
    assert done.stdout == "7 cells of 2 models from 2 runs, in results/tiny\n", done.stderr
    planned = study.planned("--rerun-triggers", "mtime")
    assert {"summarize", "decide", "report"} <= set(planned) and not set(planned) & RAW
    study.snakemake("--rerun-triggers", "mtime", "--", "results/tiny/tables/summary.csv")
    for name in ("summary", "perplexity", "latency", "divergence"):
        assert (study.results / "tables" / f"{name}.csv").read_bytes() == (
            whole / "tables" / f"{name}.csv"
        ).read_bytes()
