"""The tiny study on a real Slurm: two models on two nodes, one of which fails, and the tables of one machine.

It names two kinds of machine: these nodes, and one that no node is, whose cells say so.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from tests import slurm, studies

PLUGIN = "snakemake_executor_plugin_slurm"
WHY_NOT = slurm.missing() or ("" if importlib.util.find_spec(PLUGIN) else f"no {PLUGIN.replace('_', '-')} here")
# few, since each is two jobs; what is quantized is made on a node
VARIANTS = {"llama": ["torch-fp32", "onnx-int8-kv"], "gpt2": ["torch-fp32"]}
CELLS = [(model, variant) for model, variants in VARIANTS.items() for variant in variants]
MACHINES = {"node": {"device": "cpu"}, "elsewhere": {"device": "cpu", "expect": {"cpu": "No such CPU"}}}
TABLE = "results/tiny/tables/summary.csv"
FLAGS = (
    *("--workflow-profile", "profiles/slurm", "--configfile", "config/tiny.yaml", "--nocolor"),
    *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10"),
    *("--set-resources", "measure:slurm_partition={'node': 'main', 'elsewhere': 'main'}[wildcards.machine]"),
    *("measure:slurm_extra='--exclusive'",),
)
# what the machine does not change: the digests of the bytes, and accuracy
SAME = ("artifact", "weight_mb", "nll", "perplexity", "delta", "degradation", "quality", "kl_", "same_top")
SPEED = ["decode_tokens_per_s", "ttft_ms", "speedup"]

pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)


def submit(study: studies.Study, cluster: slurm.Cluster) -> subprocess.Popen:
    """Begin the study on a Slurm, up to its first tables."""
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", TABLE, *FLAGS],
        cwd=study.folder,
        env=os.environ | cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def timed_on(cluster: slurm.Cluster, run: subprocess.Popen) -> tuple[str, str]:
    """The first node on which a cell is being timed, and what Snakemake calls the job."""
    end = time.monotonic() + 600
    while time.monotonic() < end and run.poll() is None:
        for node in cluster.nodes:
            for comment in cluster.jobs(node).values():
                if "measure" in comment and "node" in comment:
                    return node, comment
        time.sleep(0.2)
    run.kill()
    raise AssertionError(f"no cell was timed:\n{run.communicate()[0][-6000:]}")


def begun_again(finished: studies.Study, folder) -> studies.Study:
    """The study with a few of its cells, of which only models, texts and exports are there."""
    study = finished.copy(folder)
    for name in ("speed", "quality", "tables", "figures", "artifacts/llama/onnx-dynamic-kv"):
        shutil.rmtree(study.results / name, ignore_errors=True)
    study.configure(lambda config: [config["models"][name].update(variants=VARIANTS[name]) for name in VARIANTS])
    study.configure(lambda config: config.update(machines=MACHINES))
    return study


def test_a_node_fails_and_the_tables_are_those_of_one_machine(finished, tmp_path):
    study = begun_again(finished, tmp_path / "checkout")
    with slurm.cluster(nodes=2) as cluster:
        run = submit(study, cluster)
        node, comment = timed_on(cluster, run)
        cluster.kill_node(node)
        said = run.communicate(timeout=900)[0]
        assert run.returncode == 1, said[-6000:]
        # the rest went on, and the timing that was lost is said to be, not begun again
        assert said.count("Error in rule measure:") == 1, said[-6000:]
        lost = [cell for cell in CELLS if not (study.results / "speed" / "node" / cell[0] / f"{cell[1]}.json").exists()]
        assert len(lost) == 1 and all(name in comment for name in lost[0]), (lost, comment)
        assert all(
            (study.results / "quality" / "node" / model / f"{variant}.json").exists() for model, variant in CELLS
        )
        again = submit(study, cluster)
        said = again.communicate(timeout=900)[0]
        assert again.returncode == 0, said[-6000:]
    assert "measure" in said and "evaluate" not in said, said[-6000:]
    here, both = (
        pd.read_csv(folder / TABLE).set_index(["model", "variant"]) for folder in (finished.folder, study.folder)
    )
    there, elsewhere = (both[both["machine"] == kind] for kind in MACHINES)
    assert set(elsewhere["status"]) == {"mismatched"} and len(elsewhere) == len(CELLS)
    assert (
        elsewhere["reason"].str.contains("this is no elsewhere: a processor with 'No such CPU' is expected, and ").all()
    )
    assert set(both["scored_on"]) == {"node"}
    assert sorted(there.index) == sorted(CELLS) and set(there["status"]) == {"ok"}
    same = [name for name in there if name.startswith(SAME)]
    assert {"artifact", "nll", "degradation_pct", "kl_mean"} <= set(same)
    pd.testing.assert_frame_equal(there.loc[CELLS, same], here.loc[CELLS, same], check_exact=True)
    assert there[SPEED].notna().all().all()
    for model, variant in CELLS:
        scores = (finished.results / "quality", study.results / "quality" / "node")
        arrays = [np.load(base / model / f"{variant}.npz") for base in scores]
        for name in arrays[0].files:
            np.testing.assert_array_equal(arrays[0][name], arrays[1][name])
