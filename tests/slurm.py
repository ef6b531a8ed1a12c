"""A real Slurm on this machine alone, for a test: a controller and nodes that share its cores, ended with the test.

    with slurm.cluster(nodes=2) as cluster:
        subprocess.run(["sinfo"], env=os.environ | cluster.environment)
        cluster.kill_node("n2")

As root on Debian, with the packages slurm-wlm and munge. Everything it writes lies in a folder
of its own; ports are free ones on loopback. Without accounting, so that jobs are asked for with squeue.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue")
SEARCHED = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/%n
SlurmctldPidFile={home}/ctld.pid
SlurmdPidFile={home}/%n.pid
SlurmctldLogFile={home}/ctld.log
SlurmdLogFile={home}/%n.log
SlurmctldTimeout=30
SlurmdTimeout=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=0
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=3600
"""


def missing() -> str:
    """Why no Slurm can be started here; empty where one can."""
    if os.getuid() != 0:
        return "no Slurm here: its daemons need root"
    absent = [name for name in NEEDED if shutil.which(name, path=SEARCHED) is None]
    return f"no Slurm here: {', '.join(absent)} not found (Debian: apt install slurm-wlm munge)" if absent else ""


@dataclass
class Cluster:
    """A Slurm that runs. environment: what its commands need in theirs."""

    home: Path
    nodes: list[str]
    environment: dict[str, str]

    def jobs(self, node: str) -> dict[str, str]:
        """The jobs that run on a node: id and comment, in which Snakemake names rule and wildcards."""
        listed = subprocess.run(
            ["squeue", "--noheader", "--states=RUNNING", "--nodelist", node, "--format=%i %k"],
            env=os.environ | self.environment, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        return dict(line.split(" ", 1) for line in listed.splitlines())

    def kill_node(self, node: str) -> None:
        """End a node as a failure of its power would: its daemon, and all that its jobs had begun."""
        jobs = self.jobs(node)
        _end(self.home / f"{node}.pid", signal.SIGKILL)
        for process, step, at in self._processes():
            if at == node or step in jobs:
                _kill(process)

    def kill_all(self) -> None:
        """End what jobs left behind on any node."""
        for process, *_ in self._processes():
            _kill(process)

    def _processes(self) -> Iterator[tuple[psutil.Process, str | None, str | None]]:
        """What runs in jobs of this Slurm: the process, the job that it is the step's daemon of, the node."""
        for process in psutil.process_iter(["cmdline", "environ", "cwd"]):
            variables = process.info["environ"] or {}
            step = re.match(r"slurmstepd: \[(\d+)", " ".join(process.info["cmdline"] or []))
            if step and process.info["cwd"] == str(self.home):  # a step's daemon hides its environment
                yield process, step[1], None
            elif variables.get("SLURM_CONF") == self.environment["SLURM_CONF"] and "SLURMD_NODENAME" in variables:
                yield process, None, variables["SLURMD_NODENAME"]


@contextlib.contextmanager
def cluster(nodes: int) -> Iterator[Cluster]:
    """A Slurm with nodes n1, n2, … that share this machine's cores and memory; its daemons end with the block."""
    home = Path(tempfile.mkdtemp(prefix="slurm-"))
    home.chmod(0o711)
    ports = _free_ports(nodes + 1)
    host = socket.gethostname().split(".")[0]
    names = [f"n{number + 1}" for number in range(nodes)]
    cores = max((os.cpu_count() or 1) // nodes, 1)
    memory = psutil.virtual_memory().total * 8 // 10 // nodes // 2**20
    shape = f"NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} State=UNKNOWN"
    lines = [f"NodeName={name} Port={port} {shape}" for name, port in zip(names, ports[1:], strict=True)]
    lines.append("PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO")
    config = home / "slurm.conf"
    config.write_text(CONFIG.format(host=host, port=ports[0], home=home) + "\n".join(lines) + "\n")
    for folder in ("state", *names):
        (home / folder).mkdir()
    key = home / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    # the executor takes Slurm's variables from the environment in which it calls srun
    srun = home / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={config} exec {shutil.which("srun", path=SEARCHED)} "$@"\n')
    srun.chmod(0o755)
    made = Cluster(home, names, {"SLURM_CONF": str(config), "PATH": f"{srun.parent}:{SEARCHED}"})
    environment = os.environ | made.environment
    files = [f"--{kind}-file={home}/munge.{kind}" for kind in ("key", "pid", "log", "seed")]
    try:
        for command in (
            ["munged", "--force", f"--socket={home}/munge.socket", *files],
            ["slurmctld"],
            *(["slurmd", "-N", name] for name in names),
        ):
            subprocess.run(command, env=environment, check=True, capture_output=True)
        for _ in range(120):
            states = subprocess.run(
                ["sinfo", "-hN", "-o", "%T"], env=environment, capture_output=True, text=True
            ).stdout
            if states.split() == ["idle"] * nodes:
                break
            time.sleep(0.5)
        else:
            raise AssertionError(f"Slurm's nodes are {states.split()}: {(home / 'ctld.log').read_text()[-3000:]}")
        yield made
    finally:
        for pid in (*(home / f"{name}.pid" for name in names), home / "ctld.pid", home / "munge.pid"):
            _end(pid, signal.SIGTERM)
        made.kill_all()
        shutil.rmtree(home, ignore_errors=True)


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def _end(pid: Path, how: signal.Signals) -> None:
    """Send a signal to the process that a file names, if both are there, and wait for its end."""
    with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess, psutil.TimeoutExpired):
        process = psutil.Process(int(pid.read_text()))
        process.send_signal(how)
        process.wait(timeout=10)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [entry.getsockname()[1] for entry in sockets]
    for entry in sockets:
        entry.close()
    return ports
