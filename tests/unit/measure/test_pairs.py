"""The protocol of speed: who takes turns with whom, what comes of crowds and neighbours, and when it is enough."""

from pathlib import Path

import pytest

from workflow.tradeoff import files, samples
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.measure import __main__ as measure
from workflow.tradeoff.measure import pairs

LOAD = {"prompt_tokens": 8, "new_tokens": 4}
QUIET = {"wall_s": 1.0, "cpu_s": 2.0, "waited_s": 0.0, "others_s": 0.0, "steal_s": 0.0, "cores": 2, "switches": 0}
LOUD = QUIET | {"waited_s": 0.5, "others_s": 0.5}


class Runner:
    """Starts processes that take no time; ``log`` has who did what, ``seconds`` what each turn takes."""

    def __init__(self, name, log, seconds=(1.0,), lost=(QUIET,), fails=None, artifact=None, study=(QUIET,)):
        self.variant, self.log, self.fails, self.artifact = name, log, fails, artifact or Path(__file__).parent
        self.seconds, self.lost, self.study = endless(seconds), endless(lost), endless(study)

    def start(self, meanwhile=lambda: None):
        self.log.append(("start", self.variant))
        meanwhile()
        if self.fails and self.fails(self.log):
            raise CellFailure("out_of_memory", "the process was killed")
        return Process(self)

    def warm(self):
        self.log.append(("import", self.variant))

    def passed(self):
        self.log.append(("passed", self.variant))


def endless(values):
    """The values, and the last one again and again."""
    *others, last = values
    yield from others
    while True:
        yield last


class Process:
    def __init__(self, runner):
        self.runner, self.ready = runner, {"load_s": 1.0}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.runner.log.append(("end", self.runner.variant))

    def ask(self, do, **details):
        self.runner.log.append((do, self.runner.variant))
        if do == "turn":
            second = next(self.runner.seconds)
            return {"ttft_s": 1.0, "itl_s": [second] * 3, "lost": next(self.runner.lost), "telemetry": None}
        if do == "study":
            lost = next(self.runner.study)
            samples = [{"total_s": 1.0, "new_tokens": 10, "lost": lost, "telemetry": None}]
            return {"prompt_tokens": 6, "samples": samples if lost else []}
        if do == "memory":
            return {"before_load_bytes": 1, "load_peak_bytes": 2, "decode_peak_bytes": 3}
        if do == "held":
            return {"memory": {"cache_bytes": 4}}
        return {key: {} for key in pairs.PROOF} if do == "proof" else {}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(pairs, "PAUSE_S", 0)


def plan(**changes):
    settings = {"turns": 2, "pairs": 2, "precision": 0.05, "budget_s": 100, "study_runs": 1, "lost_share": 0.05}
    return pairs.Plan(load=LOAD, warmup=1, **{**settings, **changes})


def run(cell=(), baseline=(), apart="", alone=False, **changes):
    log = []
    base = None if alone else Runner("b", log, **dict(baseline))
    return pairs.measure(Runner("c", log, **dict(cell)), base, plan(**changes), apart), log


def did(log, *words):
    return [who for what, who in log if what in words]


def test_two_live_processes_take_turns_and_are_made_anew():
    taken, log = run()
    assert did(log, "start", "end") == ["c", "b", "b", "c", "b", "c", "c", "b"]
    assert did(log, "turn") == ["c", *"cbbc", *"bccb"]  # the first one is for the peaks of memory, and warms up
    assert did(log, "study") == ["c", "b", "b", "c"]
    assert taken["pairing"] == "live" and taken["pairing_reason"] == ""
    assert [(entry["role"], entry["replicate"]) for entry in taken["processes"]] == [
        ("cell", 0), ("baseline", 0), ("baseline", 1), ("cell", 1),
    ]  # fmt: skip


def test_the_studys_protocol_is_taken_in_three_pairs_and_no_more():
    taken, log = run(pairs=5)
    assert did(log, "study") == ["c", "b", "b", "c", "c", "b"]
    assert [len(entry["study"]["samples"]) for entry in taken["processes"]] == [1] * 6 + [0] * 4


def test_a_disturbed_call_of_the_studys_protocol_is_taken_again_too():
    taken, log = run(cell={"study": [LOUD, QUIET]})
    first = taken["processes"][0]["study"]
    assert [len(first[kind]) for kind in ("samples", "rejected")] == [1, 1] and not first["samples"][0]["disturbed"]
    assert first["rejected"][0]["disturbed"] == "others took 50% of a core's time" and first["prompt_tokens"] == 6
    assert did(log, "study") == ["c", "c", "b", "b", "c"]
    none, _ = run(cell={"study": [None]})  # the model has no room for it
    assert none["processes"][0]["study"]["samples"] == []


def test_memory_and_proof_are_of_a_process_of_the_cell_that_is_alone():
    _, log = run()
    alive = {}
    for what, who in log:
        alive = {**alive, who: {"start": True, "end": False}.get(what, alive.get(who))}
        if what in ("memory", "proof"):
            assert who == "c" and not alive.get("b"), what
    assert did(log, "memory", "proof") == ["c", "c"]
    # the libraries are shared by later processes only; native ones when the cell is known to run
    assert log.index(("import", "c")) == log.index(("start", "c")) + 1
    assert [entry[0] for entry in log].count("import") == 2 and log.index(("passed", "c")) > log.index(("end", "c"))


def test_the_baselines_own_cell_has_no_partner():
    taken, log = run(alone=True)
    assert taken["pairing"] == "alone" and set(did(log, "start")) == {"c"}


def test_apart_where_it_is_asked_for():
    taken, log = run(apart="asked")
    assert (taken["pairing"], taken["pairing_reason"]) == ("apart", "asked")
    assert did(log, "start", "end") == list("ccbbbbcc")
    assert len(samples.pairs(taken["processes"], samples.decode_rate)) == 2


def test_apart_where_the_memory_does_not_do(tmp_path, monkeypatch):
    (tmp_path / "model").write_bytes(bytes(1000))
    monkeypatch.setattr(pairs.shortage, "on_host", lambda: pairs.shortage.Available(1500, "a test"))
    taken, _ = run(baseline={"artifact": tmp_path})
    assert taken["pairing"] == "apart"
    assert taken["pairing_reason"] == (
        "b needs some 2,001 bytes, and beside the cell 1,500 bytes were available (a test)"
    )
    assert {entry["replicate"] for entry in taken["processes"]} == {0, 1}


def test_apart_where_one_dies_beside_the_other():
    taken, _ = run(baseline={"fails": lambda log: did(log, "start", "end").count("c") % 2})  # while one of c lives
    assert taken["pairing"] == "apart"
    assert taken["pairing_reason"].startswith("side by side, out_of_memory: its baseline, b: the process was killed")
    assert len(taken["processes"]) == 4


def test_a_baseline_that_fails_is_named():
    with pytest.raises(CellFailure, match="out_of_memory: its baseline, b: the process was killed"):
        run(baseline={"fails": lambda log: True})


def test_pairs_go_on_until_it_is_sharp_enough():
    steady, _ = run(pairs=4)
    assert len(steady["processes"]) == 8
    wavering = [1.0, *[1.0] * 2, *[1.2] * 2, *[1.0] * 2, *[1.2] * 2, 1.1]
    more, _ = run(cell={"seconds": wavering}, pairs=4)
    assert len(more["processes"]) > 8
    known = samples.pairs(more["processes"], samples.decode_rate)
    assert len(known) == len(more["processes"]) / 2


def test_the_budget_leaves_three_pairs():
    taken, _ = run(cell={"seconds": [1.0, 1.0, 1.0, 3.0]}, pairs=5, budget_s=0)
    assert len(taken["processes"]) == 6


def test_the_time_of_the_first_pair_which_imports_is_not_counted(monkeypatch):
    clock = {"now": 0.0}
    monkeypatch.setattr(pairs.time, "monotonic", lambda: clock["now"])
    start = Runner.start

    def slow(self, meanwhile=None):
        clock["now"] += 50 if meanwhile else 5  # a pair: 55 s with what is imported, then 10 s
        return start(self, meanwhile or (lambda: None))

    monkeypatch.setattr(Runner, "start", slow)
    taken, _ = run(cell={"seconds": [1.0 + number % 7 for number in range(50)]}, pairs=2, precision=1e-9, budget_s=45)
    assert len(taken["processes"]) == 2 * (1 + 4)


@pytest.mark.parametrize(
    ("lost", "taken_pairs", "usable"),
    [
        ([QUIET] * 7 + [LOUD], 5, 3),  # what is enough for a figure is left as it is
        ([QUIET, *[LOUD] * 18, QUIET], 6, 3),  # the first three pairs: two are left in the time, and a third after it
        ([QUIET] * 3 + [LOUD], 10, 1),  # all but the first: it ends all the same
        ([LOUD], 5, 0),  # on a machine that others hold no time is added
    ],
)
def test_a_cell_that_was_disturbed_in_part_has_as_much_time_again(monkeypatch, lost, taken_pairs, usable):
    """Pairs of 10 s, of which four fit into 45 s after the first, and nine into twice that; a call is made thrice."""
    clock = {"now": 0.0}
    monkeypatch.setattr(pairs.time, "monotonic", lambda: clock["now"])
    init = pairs.Pair.__init__

    def begun(self, *args):
        clock["now"] += 10
        init(self, *args)

    monkeypatch.setattr(pairs.Pair, "__init__", begun)
    taken, _ = run(cell={"lost": lost}, pairs=20, precision=1e-9, budget_s=45)
    assert len(taken["processes"]) == 2 * taken_pairs
    assert len(samples.pairs(taken["processes"], samples.decode_rate)) == usable


def test_a_disturbed_sample_is_taken_again_and_kept_apart():
    taken, _ = run(cell={"lost": [QUIET, LOUD, QUIET]})
    first = taken["processes"][0]
    assert [len(first[kind]) for kind in ("samples", "rejected")] == [2, 1]
    assert first["rejected"][0]["disturbed"] == "others took 50% of a core's time"
    assert not any(sample["disturbed"] for sample in first["samples"])
    assert pairs.disturbed(taken["processes"], plan(), alone=False) == ""


def test_a_sample_that_stays_disturbed_does_not_count():
    taken, _ = run(cell={"lost": [QUIET, LOUD, LOUD, LOUD, QUIET]})
    assert taken["processes"][0]["samples"][0]["disturbed"]
    assert [len(turns) for turns in samples.pairs(taken["processes"], samples.decode_rate)] == [1, 2]


def test_a_cell_that_is_always_disturbed_says_so():
    taken, _ = run(cell={"lost": [LOUD]}, budget_s=0)
    reason = pairs.disturbed(taken["processes"], plan(), alone=False)
    assert len(taken["processes"]) == 2  # the time was over, and nothing came of it
    assert reason.startswith("2 of 4 samples were disturbed, and 0 of 2 pairs of processes that are needed had a")
    assert "others took 50% of a core's time" in reason
    everything, _ = run(cell={"lost": [LOUD]}, lost_share=1)
    assert pairs.disturbed(everything["processes"], plan(), alone=False) == ""


def test_a_throttled_or_shared_gpu_disturbs():
    sample = {"lost": QUIET, "telemetry": {"throttled": True, "reasons": ["hw_thermal"], "others": 0}}
    assert pairs.spoiled(sample, 0.05) == "the GPU was slowed down: hw_thermal"
    shared = sample | {"telemetry": {"throttled": False, "reasons": [], "others": 2}}
    assert pairs.spoiled(shared, 0.05) == "2 other processes worked on the GPU"


def test_a_disturbed_cell_keeps_its_samples(tmp_path, monkeypatch):
    taken, _ = run(cell={"lost": [LOUD]}, budget_s=0)
    monkeypatch.setattr(measure.pairs, "measure", lambda *_: taken)
    folder = tmp_path / "model"
    folder.mkdir()
    files.write_manifest(folder, source={})
    flags = {"study": "s", "model": "m", "variant": "onnx-int8-kv", "artifact": folder, "baseline": "torch-fp32"}
    flags |= {
        "baseline-artifact": folder,
        "model-folder": folder,
        "output": tmp_path / "cell.json",
        "device": "cpu",
    }
    flags |= {"threads": 1, "warmup": 1, "pairs": 2, "turns": 2, "prompt-tokens": 8, "new-tokens": 4, "study-runs": 1}
    flags |= {"precision": 0.05, "budget-s": 1, "lost-share": 0.05, "pairing": "auto"}
    measure.main([word for name, value in flags.items() for word in (f"--{name}", str(value))])
    written = files.read_json(tmp_path / "cell.json")
    assert (written["schema"], written["status"]) == (2, "disturbed")
    assert written["reason"].endswith(f": delete {tmp_path / 'cell.json'} and run again when the machine is quiet")
    assert len(written["protocols"]["standard"]["replicates"]) == len(taken["processes"])
