"""What is written to serve a winner: it starts, and writes the tokens that the engine wrote when it was measured."""

import json
import runpy
import shlex
import subprocess
import sys
from importlib.metadata import version
from urllib import request
from urllib.error import HTTPError

import pandas as pd
import pytest
from transformers import AutoTokenizer

from tests.unit.decide.deployed import NEW, TEMPLATES, deployed, results_of
from workflow.tradeoff import asking
from workflow.tradeoff.decide import decision, deploy
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import write_json, write_manifest
from workflow.tradeoff.variants import VARIANTS, build

SERVED = ("torch-fp32", "bnb-int8", "bnb-nf4", "onnx-fp32-kv")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return results_of(tmp_path_factory.mktemp("results"), SERVED)


def test_vllm_is_served_by_its_own_program(study, tmp_path):
    """With the room that it was measured with; where it is not installed, one line says what makes it."""
    folder = deployed(study, ["vllm-fp16", "vllm-fp8"], device="cuda")
    text = (folder / "llama/vllm-fp8/README.md").read_text()
    model = study / "models" / "llama"
    assert f"vllm serve {model.as_posix()} --served-model-name llama --dtype float16 --quantization fp8" in text
    assert "--max-model-len 512 --max-num-seqs 64 --host 127.0.0.1 --port 8000" in text
    assert "--quantization" not in (folder / "llama/vllm-fp16/README.md").read_text()
    words = [sys.executable, folder / "llama/vllm-fp8/serve.py", "--prompt", "Hello?"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env={"PATH": str(tmp_path)})
    assert done.returncode and done.stderr.startswith("error: vLLM is not installed here"), done.stderr


VLLM = """#!{python}
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["model"] == "llama" and asked["temperature"] == 0
        assert self.headers["Content-Type"] == "application/json"  # vLLM answers nothing else
        body = json.dumps({{"choices": [{{"token_ids": [104, 105]}}]}}).encode()
        self.send_response(200); self.end_headers(); self.wfile.write(body)
port = int(sys.argv[sys.argv.index("--port") + 1])
HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def test_an_answer_of_vllms_server_is_read(study, tmp_path):
    folder = deployed(study, ["vllm-fp16"], device="cuda")
    program = tmp_path / "vllm"
    program.write_text(VLLM.format(python=sys.executable))
    program.chmod(0o755)
    words = [sys.executable, folder / "llama/vllm-fp16/serve.py", "--prompt", "Hello?"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env={"PATH": str(tmp_path)}, timeout=300)
    tokenizer = AutoTokenizer.from_pretrained(study / "models" / "llama")
    assert done.stdout.strip() == tokenizer.decode([104, 105]).strip(), done.stderr
    for page in ("README.md", "serve.py"):
        line = next(line for line in (folder / "llama/vllm-fp16" / page).read_text().splitlines() if "curl " in line)
        assert "Content-Type: application/json" in shlex.split(line)


@pytest.fixture(scope="module")
def output(study):
    return deployed(study, SERVED)


@pytest.mark.parametrize("name", SERVED)
def test_what_is_served_writes_what_was_measured(study, output, name):
    measured = json.loads((study / f"quality/llama/{name}.json").read_text())["generated"][0]
    program = runpy.run_path(str(output / "llama" / name / "serve.py"))
    model = program["Model"]()
    for _ in range(2):  # the second prompt starts anew
        assert program["answer"](model, "Hello?", NEW) == measured["token_ids"]
    with pytest.raises(ValueError, match="the model takes fewer than 512"):
        program["answer"](model, "a" * 600, 1)


def post(address, **asked):
    with request.urlopen(address, json.dumps(asked).encode()) as reply:
        return reply.read().decode()


@pytest.fixture
def server(output):
    """The address of a server in a process that has neither torch nor transformers."""
    program = output / "llama/onnx-fp32-kv/serve.py"
    lacking = "import sys; sys.modules.update(torch=None, transformers=None); import runpy; "
    code = f"{lacking}sys.argv = ['serve.py', '--port', '0']; runpy.run_path({str(program)!r}, run_name='__main__')"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    yield process.stdout.readline().strip().removesuffix("/v1/completions")
    process.terminate()
    process.wait()


def test_the_server_answers_in_openais_form_with_the_runtime_alone(study, server):
    stored = json.loads((study / "quality/llama/onnx-fp32-kv.json").read_text())
    measured, prompting = stored["generated"][0], stored["prompting"]
    asked = asking.body(prompting, "Hello?", NEW)
    chat = server + asking.path(prompting)
    assert chat.endswith("/v1/chat/completions")
    assert asking.text(json.loads(post(chat, **asked))) == measured["text"]
    plain = json.loads(post(server + "/v1/completions", prompt="<user>Hello?</end><assistant>", max_tokens=NEW))
    assert (plain["choices"][0]["token_ids"], asking.text(plain)) == (measured["token_ids"], measured["text"])
    assert plain["usage"]["completion_tokens"] == len(measured["token_ids"])
    events = [line.removeprefix("data: ") for line in post(chat, **asked, stream=True).splitlines() if line]
    parts = [json.loads(event) for event in events[:-1]]
    assert events[-1] == "[DONE]" and parts[-1]["usage"]["completion_tokens"] == len(measured["token_ids"])
    assert "".join(part["choices"][0]["delta"]["content"] for part in parts) == measured["text"]
    assert len(parts) == len(measured["token_ids"]) + 1  # one event a token, and the last words
    with request.urlopen(server + "/health") as reply:
        assert json.load(reply) == {"status": "ok"}


@pytest.mark.parametrize(
    "asked", [{"words": "none"}, {"messages": [{"role": "system", "content": "x"}]}, {"messages": 1}]
)
def test_a_request_that_makes_no_sense_is_refused_and_the_server_goes_on(server, asked):
    with pytest.raises(HTTPError, match="400"):
        post(server + "/v1/chat/completions", **asked)
    assert json.loads(post(server + "/v1/completions", prompt=[72, 101], max_tokens=1))["choices"]


def test_the_folder_says_what_it_is_and_what_was_measured(study, output):
    text = (output / "llama/onnx-fp32-kv/README.md").read_text()
    manifest = json.loads((study / "artifacts/llama/onnx-fp32-kv/manifest.json").read_text())
    assert "licence, as its source states it: apache-2.0" in text and not manifest.get("license")
    assert manifest["digest"] in text and str(study / "artifacts/llama/onnx-fp32-kv") in text
    assert "20 tokens/s" in text and "2 times as fast [1.9, 2.1]" in text and "Test CPU, 1 thread" in text
    assert f"python {output}/llama/onnx-fp32-kv/serve.py" in text and f"onnxruntime=={version('onnxruntime')}" in text
    assert "nan" not in text and "None" not in text and "s-onnx-fp32-kv" in text
    assert "| weights and cache | 3.5 MB |" in text and "fetched as" not in text
    more = {"cache_mb": 0.5, "cache_tokens": 32, "weights_from": "a GGUF file of 5.7 bits a weight (Q4_1 100%)"}
    text = (deployed(study, ["onnx-fp32-kv"], **more) / "llama/onnx-fp32-kv/README.md").read_text()
    assert "| weights and cache of 32 tokens | 3.5 MB |" in text
    assert "| to be added to both where all 512 tokens are used, at most | 7.5 MB |" in text  # 0.5 MB for 32
    assert "python deploy/llama/onnx-fp32-kv/serve.py" in text and "It takes 512 tokens" in text
    assert "was fetched as a GGUF file of 5.7 bits a weight" in text and "in no figure below" in text
    deployed(study, SERVED)
    index = json.loads((output / "deploy.json").read_text())
    assert [entry["variant"] for entry in index] == list(SERVED)
    assert f"python {output}/llama/torch-fp32/serve.py" in (output / "command.txt").read_text()
    assert "onnx-fp32-kv/README.md" in (output / "README.md").read_text()


def test_a_gguf_file_is_served_by_llama_cpps_server_in_the_wheel_or_its_own_program(study):
    folder = study / "artifacts/llama/gguf-q8_0"
    folder.mkdir(parents=True)
    (folder / "model.gguf").write_bytes(b"GGUF")
    write_manifest(folder, source={}, vocabulary=None, why="other splits")
    output = deployed(study, ["gguf-q8_0"])
    text = (output / "llama/gguf-q8_0/README.md").read_text()
    assert f"python {output}/llama/gguf-q8_0/serve.py" in text and "pip install tokenizers xllamacpp\n" in text
    assert "This file has no vocabulary (other splits)" in text and "llama-server --model" not in text
    with pytest.raises(SystemExit, match=r"no vocabulary.* takes none without: other splits"):
        runpy.run_path(str(output / "llama/gguf-q8_0/serve.py"))["Model"]()
    write_manifest(folder, source={}, vocabulary="smollm")
    text = (deployed(study, ["gguf-q8_0"]) / "llama/gguf-q8_0/README.md").read_text()
    assert f"llama-server --model {folder}/model.gguf --threads 1 --ctx-size 512 --host 127.0.0.1" in text


def test_a_cache_of_fewer_bits_is_served_as_it_was_measured(study, monkeypatch):
    """Both engines, the command and the program."""
    gguf = {"quantizer": "gguf", "type": "q8_0"}
    kept = {
        "gguf-kv8": {"engine": "llamacpp", "recipe": gguf, "options": {"cache_type": "q8_0"}},
        "vllm-kv8": {"engine": "vllm", "recipe": {"quantizer": "fp8"}, "options": {"cache_type": "fp8"}},
    }
    for name, given in kept.items():
        monkeypatch.setitem(VARIANTS, name, build(name, given))
    folder = study / "artifacts/llama/gguf-q8_0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.gguf").write_bytes(b"GGUF")
    write_manifest(folder, source={}, vocabulary="smollm")
    own = deployed(study, ["gguf-kv8"]) / "llama/gguf-kv8"
    assert "--cache-type-k q8_0 --cache-type-v q8_0" in (own / "README.md").read_text()
    assert (
        "wanted.cache_type_k = wanted.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_Q8_0"
        in (own / "serve.py").read_text()
    )
    own = deployed(study, ["vllm-kv8"], device="cuda") / "llama/vllm-kv8"
    assert "--max-num-seqs 64 --kv-cache-dtype fp8 --host" in (own / "README.md").read_text()
    assert '"--kv-cache-dtype", "fp8"' in (own / "serve.py").read_text()


def test_without_a_winner_the_end_says_so(study):
    results = study.parent / "none"
    results.mkdir()
    write_json(
        results / "decision.json", {"machine": "m", "scenarios": [{"scenario": "s", "model": "m", "winner": None}]}
    )
    row = dict.fromkeys(decision.NEEDS) | {"model": "m", "variant": "torch-fp32", "status": "error"}
    pd.DataFrame([row]).to_csv(results / "summary.csv", index=False)
    write_json(results / "environment.json", {})
    flags = ["--study", "x", "--tables", results, "--results", results, "--output", results / "deploy"]
    deploy.main(list(map(str, [*flags, "--environment", results / "environment.json", "--templates", TEMPLATES])))
    assert (results / "deploy/command.txt").read_text() == "Nothing that was measured can be deployed.\n"
    assert "can be deployed within the limits" in (results / "deploy/README.md").read_text()


def test_a_changed_artifact_is_one_line(study, output):
    weights = study / "models/llama/model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1])
    try:
        with pytest.raises(UserError, match=r"delete .* and run again"):
            deployed(study, ["torch-fp32"])
    finally:
        weights.write_bytes(kept)
