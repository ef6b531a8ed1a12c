"""kill -9 in the middle of a stage, then the same command again: the same tables, and nothing half-written."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests import studies

# what of the results goes, so that the stage is needed again, and the file that it then makes
STAGES = {
    "evaluate": (["quality/gpt2"], "quality/gpt2/torch-fp32.json"),
}


def begun(study: studies.Study, stage: str) -> bool:
    """Whether a process of the stage is at work in the study's folder."""
    found = subprocess.run(["pgrep", "-f", f"workflow.tradeoff.{stage} "], capture_output=True, text=True).stdout
    return any(os.path.realpath(f"/proc/{process}/cwd") == str(study.folder.resolve()) for process in found.split())


@pytest.mark.parametrize("stage", STAGES)
def test_the_same_command_completes_a_killed_run(study, stage):
    gone, target = STAGES[stage]
    before = (study.results / "tables" / "perplexity.csv").read_text()
    for path in (study.results / name for name in [*gone, "tables", "report.md"]):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "config/tiny.yaml"]
    running = subprocess.Popen(
        command, cwd=study.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not begun(study, stage):
        assert running.poll() is None and time.monotonic() < deadline, f"{stage} never began"
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not (study.results / target).exists()
    study.snakemake()
    assert (study.results / target).exists()
    assert (study.results / "tables" / "perplexity.csv").read_text() == before
    assert not list(study.results.rglob(".*partial*"))
    assert study.planned() == {}


def test_a_second_run_in_the_same_folder_is_refused(study):
    lock = study.folder / ".snakemake" / "run.lock"
    script = f"""
import fcntl, time
held = open({str(lock)!r}, "w")
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        (study.results / "report.md").unlink()
        done = study.snakemake(check=False)
    finally:
        holder.kill()
        holder.wait()
    assert done.returncode and "error: another run works in this folder" in done.stdout
