"""AutoRound's files as they are served: the program and the command of each engine that loads them."""

import json
import runpy
import shutil
import subprocess
from importlib.util import find_spec

import pytest
from transformers import AutoTokenizer

from tests.unit.decide.deployed import NEW, deployed, results_of
from workflow.tradeoff import engines
from workflow.tradeoff.decide import deploy
from workflow.tradeoff.evaluate import generation
from workflow.tradeoff.files import write_json, write_manifest
from workflow.tradeoff.prepare import auto_round
from workflow.tradeoff.variants import VARIANTS, build


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return results_of(tmp_path_factory.mktemp("results"), ["torch-fp32"])


class Ended:
    """A server that ended at once."""

    poll = staticmethod(lambda: 1)


def test_autorounds_files_are_served_by_the_kernels_that_were_measured(study, monkeypatch):
    """transformers with the package that reads them, in the type that was measured; vLLM by itself."""
    folder = study / "artifacts/llama" / VARIANTS["autoround-int4"].artifact
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder, source={})
    for device, backend, widened in (("cpu", "torch", True), ("cuda", "auto", False)):
        own = deployed(study, ["autoround-int4"], device=device) / "llama/autoround-int4"
        assert "pip install tokenizers torch" in (own / "README.md").read_text()
        assert "auto-round" in (own / "README.md").read_text().split("pip install")[1].splitlines()[0]
        text = (own / "serve.py").read_text()
        compile(text, "serve.py", "exec")
        assert f'AutoRoundConfig(backend="{backend}")' in text and "dtype=torch.float16" in text
        assert ("parameter.data.to(torch.float32)" in text) is widened
    own = deployed(study, ["vllm-w4a16"], device="cuda") / "llama/vllm-w4a16"
    text = (own / "README.md").read_text()
    without = "VLLM_DISABLED_KERNELS=HummingLinearKernel"
    assert f"\n{without} vllm serve {folder.as_posix()} --served-model-name llama --dtype float16 --max" in text
    program, started = runpy.run_path(str(own / "serve.py")), []
    monkeypatch.setattr(subprocess, "Popen", lambda words, **more: started.append(more["env"]) or Ended)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    with pytest.raises(SystemExit, match="ended"):
        program["Model"](port=1)
    assert started[0]["VLLM_DISABLED_KERNELS"] == "HummingLinearKernel" and started[0]["PATH"]


@pytest.mark.skipif(find_spec("auto_round") is None, reason="auto-round is not in this environment")
def test_what_is_served_of_autorounds_files_writes_what_was_measured(study, monkeypatch):
    recipe = {"quantizer": "auto-round", "bits": 4, "group": 32, "iterations": 0}
    monkeypatch.setitem(VARIANTS, "rounded", build("rounded", {"engine": "hf", "recipe": recipe}))
    variant, model = VARIANTS["rounded"], study / "models/llama"
    folder = deploy.artifact(study, "llama", variant)
    flags = ["--model-folder", model, "--recipe", json.dumps(dict(variant.recipe)), "--device", "cpu", "--threads", "1"]
    auto_round.main([*map(str, flags), "--output", str(folder)])
    prompting = json.loads((study / "quality/llama/torch-fp32.json").read_text())["prompting"]
    write_json(study / "quality/llama/rounded.json", {"generated": [], "prompting": prompting})
    program = runpy.run_path(str(deployed(study, ["rounded"]) / "llama/rounded/serve.py"))
    tokenizer = AutoTokenizer.from_pretrained(model)
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "Hello?"}], add_generation_prompt=True)
    asked = asked if isinstance(asked, list) else asked["input_ids"]
    engine = engines.load(variant, folder, model, "cpu", 1)
    assert program["answer"](program["Model"](), "Hello?", NEW) == generation.greedy(engine, asked, NEW, {256})
