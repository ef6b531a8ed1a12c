"""What a cell's job asks for, and where its files lie, in a study of several kinds of machine and in one of none.

INPUTS:
    the config's machines and run_machines

GIVES:
    MACHINES     {kind: what the config says of it} of those that are run; empty without the key: no path names one then
    SCORERS      those of them on which accuracy is taken
    ON           the kind in a path, before a file's name; PREFLIGHT, DEPLOY: paths that end in it
    CARD         what a job asks for that uses the device and is of no cell; CELL_CARD: what a cell's job asks for
"""

from workflow.tradeoff.run import machines

MACHINES = machines.kinds(config)
SCORERS = list(dict.fromkeys(kind["scored_by"] for kind in MACHINES.values() if kind["scored_by"] in MACHINES))
ON = "{machine}/" if MACHINES else ""  # in the paths of what is taken on a machine
PREFLIGHT, DEPLOY = (os.path.normpath(f"{stage}/{ON}") for stage in ("preflight", "deploy"))
ON_ITS_MACHINE = {"preflight", "measure", "evaluate", "diagnose"}
CARD = {"gpu": 1} if DEVICE == "cuda" else {}  # what a rule that uses the device asks for
CELL_CARD = CARD  # the same for a cell's job
if MACHINES:
    # a cluster's profile maps the kind to its partition and card
    CELL_CARD = {
        "gpu": lambda wildcards: int(MACHINES[wildcards.machine]["device"] == "cuda"),
        "machine": lambda wildcards: wildcards.machine,
    }


def of_machine(key, plain):
    """A setting of a cell's job: the study's own, or that of the kind of machine that the cell is of."""
    # threads: 0 is told on the machine that runs, as the study's own is
    every = {"threads": 0 if SUBMITS else len(os.sched_getaffinity(0))}
    return (lambda wildcards: MACHINES[wildcards.machine][key] or every[key]) if MACHINES else plain


def cores(plain):
    """Threads that a cell's job asks for: on this machine as in any study, elsewhere those of its kind."""
    if not MACHINES or HERE:
        return plain
    return lambda wildcards: MACHINES[wildcards.machine]["threads"] or plain


def machine_flags(wildcards):
    """The flag by which a stage looks whether it runs on a machine of its kind."""
    return machines.flags(wildcards.machine, MACHINES[wildcards.machine]) if MACHINES else []


def refuse_elsewhere():
    """End a run on this machine alone that has jobs of a kind that this machine is not."""
    if not (MACHINES and workflow.local_exec):
        return
    jobs = [job for job in workflow.dag.needrun_jobs() if job.rule.name in ON_ITS_MACHINE]
    here = machines.here()
    for name in sorted({job.wildcards.machine for job in jobs}):
        if reason := machines.misfit(name, MACHINES[name], here):
            rest = [other for other in MACHINES if not machines.misfit(other, MACHINES[other], here)]
            add = f"add --config 'run_machines={json.dumps(rest)}'"
            remedy = add if rest else "name this machine's kind under machines"
            sys.exit(f"error: config key machines.{name}: {reason}: {remedy} (README, More than one machine)")
