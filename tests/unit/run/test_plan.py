"""What a study will take, told before it starts."""

import json
from pathlib import Path

import pytest

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.run import config as study_config
from workflow.tradeoff.run import needs, plan, plan_sizes
from workflow.tradeoff.variants import VARIANTS, build

SMALL = needs.Size(100_000_000, 50_000, 400_000_000)


@pytest.fixture(scope="module")
def t4():
    return study_config.load("config/t4.yaml")


def test_the_study_of_four_models_is_counted_whole(t4, tmp_path):
    found = plan.of_study(t4, tmp_path)
    assert found.cells == 80
    stages = [job.stage for job in found.jobs]
    assert {stage: stages.count(stage) for stage in set(stages)} == {
        "fetch_model": 4, "export": 8, "quantize": 16, "fuse": 4, "gguf": 4, "measure": 80, "evaluate": 80,
    }  # fmt: skip
    # float32 checkpoints of 82 and 124 million parameters, float16 ones of 1.1 and 1.24 billion
    assert found.downloads == 4 * (81_912_576 + 124_439_808) + 2 * (1_100_048_384 + 1_235_814_400)
    assert found.disk > 2 * found.downloads


def test_the_plan_in_the_readme_is_the_one_that_is_printed(t4, tmp_path):
    said, _ = plan.lines(plan.of_study(t4 | {"threads": 8}, tmp_path), free=10**11, card_gb=16)
    shown = (Path(__file__).parents[3] / "README.md").read_text()
    assert [line for line in said if line.partition(", 100.0 GB are free")[0] not in shown] == []


def test_a_disk_and_a_card_that_are_too_small_are_said_with_what_is_missing(t4, tmp_path):
    found = plan.of_study(t4, tmp_path)
    assert plan.lines(found, free=10**12, card_gb=80)[1] == []
    disk, *cards = plan.lines(found, free=10**9, card_gb=8)[1]
    assert "1.0 GB are free" in disk
    assert any("llama-3.2-1b/torch-fp32 needs" in line and "card of 8 GB" in line for line in cards)
    assert not any("distilgpt2/bnb-nf4" in line for line in cards)


def test_a_job_that_ran_before_takes_what_it_took(t4, tmp_path):
    before = plan.of_study(t4, tmp_path)
    benchmark = tmp_path / "benchmarks" / "measure" / "distilgpt2_torch-fp16.tsv"
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\tmax_rss\n12.5\t100\n")
    jobs = {(job.stage, job.label): job for job in plan.of_study(t4, tmp_path).jobs}
    assert jobs["measure", "distilgpt2/torch-fp16"].seconds == 12.5
    assert jobs["measure", "distilgpt2/torch-fp16"].measured
    assert sum(job.measured for job in jobs.values()) == 1 and len(jobs) == len(before.jobs)


def test_gguf_files_and_published_checkpoints_are_counted(monkeypatch, t4, tmp_path):
    own = {
        "q4-weighted": {"engine": "llamacpp", "recipe": {"quantizer": "gguf", "type": "q4_k_m", "imatrix": True}},
        "awq": {"engine": "hf", "checkpoint": {"source": "hub", "repo": "a/model-Q4", "revision": "0" * 40}},
        "there": {"engine": "llamacpp", "checkpoint": {"source": "local", "path": str(tmp_path / "x.gguf")}},
    }
    (tmp_path / "x.gguf").write_bytes(b"7777777")
    for name, given in own.items():
        monkeypatch.setitem(VARIANTS, name, build(name, given))
    plain = t4 | {"models": {"m": {"source": "local", "path": "m", "parameters": 10**9}}, "variants": ["torch-fp32"]}
    plain["threads"] = 2  # of which that reading takes long
    bare = plan.of_study(plain, tmp_path)
    found = plan.of_study(plain | {"variants": ["torch-fp32", "gguf-q8_0", "gguf-source", *own]}, tmp_path)
    made = {job.name: job for job in found.jobs if job.stage in ("gguf", "fetch_checkpoint", "fuse", "quantize")}
    assert {name: job.stage for name, job in made.items()} == {
        "gguf-q8_0": "gguf", "gguf-source": "gguf", "gguf-q4_k_m-imatrix": "gguf",
        "checkpoint-awq": "fetch_checkpoint", "checkpoint-there": "fetch_checkpoint",
    }  # fmt: skip
    # the calibration text is read by the whole model
    assert made["gguf-q4_k_m-imatrix"].seconds > 2 * made["gguf-q8_0"].seconds
    assert (bare.downloads, found.downloads) == (0, 600_000_000)
    scored = found.disk - bare.disk - 5 * plan.ARRAYS * needs.CORPUS * len(t4["evaluate"]["conventions"])
    # 8.5 and 4.8 bits a weight, a link, the download with its copy in a cache, the file of seven bytes
    assert scored == 1_062_500_000 + 600_000_000 + 0 + 2 * 600_000_000 + 7


def test_a_learned_rounding_takes_its_steps_and_one_to_nearest_none(t4, tmp_path, monkeypatch):
    recipe = {"quantizer": "auto-round", "bits": 4}
    own = {"learned": recipe, "longer": recipe | {"iterations": 400}, "nearest": recipe | {"iterations": 0}}
    for name, given in own.items():
        monkeypatch.setitem(VARIANTS, name, build(name, {"engine": "hf", "recipe": given}))
    models = {"m": {"source": "local", "path": "m", "parameters": 10**9}}
    found = plan.of_study(t4 | {"models": models, "variants": ["torch-fp32", *own], "threads": 2}, tmp_path)
    took = {job.name: job.seconds for job in found.jobs if job.stage == "auto_round"}
    learned, longer, nearest = (took[VARIANTS[name].artifact] for name in own)
    # 300 steps of four pieces of 512 tokens, each forward and back, at the rate of the study's device
    steps = 300 * 4 * 512 * 3 * 2 * 10**9 / needs.OPERATIONS["cuda"]
    assert longer - learned == pytest.approx(steps) and nearest < learned


def test_a_fetched_model_is_as_large_as_its_manifest_says(tmp_path):
    folder = tmp_path / "models" / "m"
    folder.mkdir(parents=True)
    files = {"model.safetensors": {"bytes": 12}, "tokenizer.json": {"bytes": 99}}
    (folder / "manifest.json").write_text(json.dumps({"parameters": 3, "vocab_size": 7, "files": files}))
    assert plan_sizes.of_model("m", {"source": "hub"}, tmp_path) == (needs.Size(3, 7, 12), "fetched")


@pytest.mark.parametrize(
    ("entry", "parameters"),
    [
        ({"source": "hub", "repo": "a/b", "parameters": 5}, 5),
        ({"source": "hub", "repo": "a/Qwen2.5-1.5B-Instruct"}, 1_500_000_000),
        ({"source": "pypi", "member": "x/a.Q8_0.gguf", "bytes": 8500}, 8000),
        ({"source": "random", "architecture": {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 2,
                                               "vocab_size": 10, "n_positions": 4}}, 1000),
    ],
)  # fmt: skip
def test_size_before_anything_is_there(entry, parameters, tmp_path):
    assert plan_sizes.of_model("m", entry, tmp_path)[0].parameters == parameters


def test_a_model_of_which_nothing_is_known_asks_for_its_parameters(tmp_path):
    with pytest.raises(UserError, match=r"models\.m\.parameters is missing"):
        plan_sizes.of_model("m", {"source": "hub", "repo": "a/gpt2"}, tmp_path)


def test_needs_grow_with_the_model_and_the_budget(t4):
    large = needs.Size(10 * SMALL.parameters, SMALL.vocabulary, 10 * SMALL.stored)
    for stage in ("export", "quantize", "fuse", "measure", "evaluate", "diagnose"):
        assert needs.memory_mb(stage, large, t4) > needs.memory_mb(stage, SMALL, t4) > needs.BASE_MB
        variant = VARIANTS["torch-fp32"]
        assert needs.minutes(stage, large, t4, "cpu", variant) >= needs.minutes(stage, SMALL, t4, "cpu", variant)
    patient = t4 | {"measure": t4["measure"] | {"budget_s": 7200}}
    assert needs.minutes("measure", SMALL, patient, "cuda", VARIANTS["torch-fp16"]) > 240


def test_a_cell_that_hangs_can_be_ended_before_its_job_is(t4):
    told = [t4 | {"hung_after_s": limit} for limit in (0, 3600)]
    short, long = (needs.minutes("evaluate", SMALL, config, "cuda", VARIANTS["torch-fp16"]) for config in told)
    assert short < 60 < long < 60 + short
    assert len({needs.minutes("fetch_model", SMALL, config, "cpu") for config in told}) == 1
    # what prepares may take as long as is expected of it
    limits = [needs.hung_after_s("export", expected, told[1]) for expected in (60, 9000.5)]
    assert limits == [3600, 9001] and needs.hung_after_s("export", 9000, told[0]) == 0
    assert needs.hung_after_s("measure", 9000, told[1]) == 3600


def test_each_further_load_has_its_time_and_its_logits(t4):
    many = t4 | {"measure": t4["measure"] | {"loads": [{"sequences": 16, "prompt_tokens": 256}]}}
    variant = VARIANTS["torch-fp32"]
    once, twice = (needs.seconds("measure", SMALL, config, "cpu", variant) for config in (t4, many))
    assert twice >= once + t4["measure"]["budget_s"]
    more = 2 * 4 * 16 * 256 * SMALL.vocabulary / 1e6
    grown = needs.memory_mb("measure", SMALL, many) - needs.memory_mb("measure", SMALL, t4)
    assert abs(grown - more) <= 1


def test_a_token_without_a_cache_costs_the_whole_sequence(t4):
    slow, fast = (needs.seconds("measure", SMALL, t4, "cpu", VARIANTS[name]) for name in ("onnx-fp32", "onnx-fp32-kv"))
    assert slow > 2 * fast


def test_each_kind_of_machine_has_its_cells_hours_and_cost(t4, tmp_path):
    kinds = {
        "t4": {"device": "cuda", "price_per_hour": 0.5},
        "h100": {"device": "cuda"},
        "amx": {"device": "cpu", "threads": 16},
    }
    found = plan.of_study(t4 | {"machines": kinds, "threads": 8}, tmp_path)
    assert found.cells == 3 * 80
    said = [line.split(": ")[1].strip() for line in plan.lines(found, 10**12, None)[0] if line.startswith("machine:")]
    hours = float(said[0].split(", ")[3].removesuffix(" h"))
    # accuracy is taken once a device
    assert said[0].startswith("t4, 80 cells, 80 evaluations, ") and said[0].endswith(" at 0.5 an hour")
    assert abs(float(said[0].split(", ")[4].split()[0]) - 0.5 * hours) < 0.03
    assert said[1].startswith("h100, 80 cells, 0 evaluations, ") and said[1].endswith(" h")
    assert said[2].startswith("amx, 80 cells, 80 evaluations, ")
    assert plan.of_study(t4 | {"machines": kinds, "run_machines": ["h100"]}, tmp_path).cells == 80


def test_a_cell_that_ran_on_one_machine_tells_nothing_of_another(t4, tmp_path):
    benchmark = tmp_path / "benchmarks" / "measure" / "t4" / "distilgpt2_torch-fp16.tsv"
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\tmax_rss\n12.5\t100\n")
    kinds = {"t4": {"device": "cuda"}, "h100": {"device": "cuda"}}
    jobs = {job.label: job for job in plan.of_study(t4 | {"machines": kinds}, tmp_path).jobs if job.stage == "measure"}
    assert jobs["t4/distilgpt2/torch-fp16"].seconds == 12.5
    assert not jobs["h100/distilgpt2/torch-fp16"].measured


@pytest.mark.parametrize("flag", [["--card-gb", "nan"], ["--card-gb", "-3"], ["--threads", "0"], ["--card-gb", "inf"]])
def test_a_machine_that_cannot_be_is_refused(flag, capsys):
    with pytest.raises(SystemExit) as ended:
        plan.main(["config/t4.yaml", *flag])
    assert ended.value.code == 2 and f"{flag[1]} is not above zero" in capsys.readouterr().err
