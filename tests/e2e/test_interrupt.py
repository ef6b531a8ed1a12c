"""kill -9 in every stage, then the same command again: the same tables, and never half a file under a final name."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np

from tests import studies
from workflow.tradeoff import files
from workflow.tradeoff.run import running

PREPARE = {"fetch model", "prepare export", "prepare quantize"}
STAGES = {*PREPARE, "measure", "evaluate", "summarize", "decide", "report.figures", "report"}
# over before anything of their writing could be seen: killed at sight
QUICK = {"summarize", "decide", "report.figures", "report"}
# tables in which there is no time: equal from run to run
SAME = ["perplexity", "degradation", "accuracy_drop", "divergence", "generated"]


def start(study: studies.Study, *targets: str, **streams) -> subprocess.Popen:
    """Snakemake at work in the study's folder, in a process group of its own."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "config/tiny.yaml", "--", *targets]
    return subprocess.Popen(command, cwd=study.folder, start_new_session=True, **streams)


def wait(condition, what: str, seconds: float = 120):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)
    return found


def partials(study: studies.Study) -> list[Path]:
    return list(study.results.rglob(".*partial*"))


def check_whole(results: Path) -> None:
    """Read every file that has its final name."""
    for path in results.rglob("*"):
        if any(part.startswith(".") for part in path.relative_to(results).parts) or "benchmarks" in path.parts:
            continue
        if path.name == "manifest.json":
            files.read_manifest(path.parent)
        elif path.suffix == ".json":
            files.read_json(path)
        elif path.suffix == ".npz":
            with np.load(path) as stored:
                assert all(stored[name] is not None for name in stored)
        elif path.suffix == ".csv":
            assert path.read_text().endswith("\n") and len({len(row) for row in csv.reader(path.open())}) == 1, path
        elif path.suffix == ".svg":
            xml.parse(path)
        elif path.suffix == ".html":
            assert path.read_text().endswith("</html>\n"), path


def rows(study: studies.Study, table: str) -> list[dict[str, str]]:
    """A table without the variant that the test leaves out."""
    with (study.results / "tables" / f"{table}.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["variant"] != "int4-b16"]


def killed_in(study: studies.Study, stages: set[str]) -> str | None:
    """Run, and kill the run with all its processes in the first of ``stages`` that begins; None when it ended well."""
    log = study.folder / "log"
    with log.open("wb") as file:
        run = start(study, stdout=file, stderr=subprocess.STDOUT)
    try:
        while run.poll() is None:
            time.sleep(0.02)
            begun = [pair for pair in running.leftovers(study.folder).items() if pair[1] in stages]
            if not begun:
                continue
            process, stage = begun[0]
            # in the middle of its writing, if that can be seen
            deadline = time.monotonic() + (0 if stage in QUICK else 1.5)
            while time.monotonic() < deadline and not partials(study):
                time.sleep(0.01)
            if process in running.leftovers(study.folder):
                return stage
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
    assert run.returncode == 0, log.read_text()[-6000:]
    return None


def test_a_run_killed_in_every_stage_ends_with_the_same_tables(study):
    before = {name: rows(study, name) for name in SAME}
    # one branch of the workflow is enough here, and half the time
    study.configure(lambda config: config["models"]["gpt2"]["variants"].remove("int4-b16"))
    shutil.rmtree(study.results / "models" / "gpt2")
    for folder in ("artifacts/gpt2", "quality/gpt2", "speed/gpt2", "tables", "figures"):
        shutil.rmtree(study.results / folder)
    (study.results / "report.md").unlink()
    left = set(STAGES)
    while stage := killed_in(study, left):
        left.remove(stage)
        wait(lambda: not running.leftovers(study.folder), "the end of the killed processes")
        check_whole(study.results)
    assert left == set()
    check_whole(study.results)
    assert not partials(study)
    for name, expected in before.items():
        assert rows(study, name) == expected, name
    assert study.planned() == {}


def test_a_stage_that_outlives_its_run_is_waited_for(study):
    target = study.results / "artifacts" / "gpt2" / "onnx-dynamic" / "manifest.json"
    before = files.read_json(target)
    target.unlink()
    goal = str(target.relative_to(study.folder))
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    killed = start(study, goal, **silent)
    again = None
    try:
        left = wait(lambda: running.leftovers(study.folder), "the stage")
        killed.kill()  # Snakemake alone
        killed.wait()
        for process in left:
            os.kill(process, signal.SIGSTOP)
        again = start(study, goal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in again.stdout:
            if line.startswith("waiting for process"):
                break
        else:
            raise AssertionError("the second run did not wait")
        assert line.split()[3] in map(str, left) and "prepare quantize" in line
        for process in left:
            os.kill(process, signal.SIGCONT)
        assert again.communicate() and again.returncode == 0
    finally:
        for run in filter(None, (killed, again)):
            try:
                os.killpg(run.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    assert files.read_json(target) == before
    assert not partials(study)


def test_a_second_run_in_the_same_folder_is_refused(study):
    script = """
import time
from pathlib import Path
from workflow.tradeoff.run import running
held = running.hold(Path(".snakemake/run.lock"), Path("inputs"))
print("held", flush=True)
time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", script], cwd=study.folder, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline()
        (study.results / "report.md").unlink()
        done = study.snakemake(check=False)
    finally:
        holder.kill()
        holder.wait()
    assert done.returncode and "error: another run works in this folder" in done.stdout
    assert not (study.results / "report.md").exists()
