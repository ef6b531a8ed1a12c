"""What a served answer refuses, or lacks, is one line that says what to do."""

import shutil
import socket
import subprocess
import sys

import pytest

from tests.unit.decide.deployed import deployed, results_of

SERVED = ("torch-fp32", "onnx-fp32-kv")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return results_of(tmp_path_factory.mktemp("results"), SERVED)


@pytest.fixture(scope="module")
def output(study):
    return deployed(study, SERVED)


def serve(folder, *words):
    return subprocess.run([sys.executable, folder / "serve.py", *words], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "99999"], "99999 is no port: 0 to 65535 are"),
        (["--port", "-1"], "-1 is no port"),
        (["--prompt", "Hello?", "--tokens", "0"], "0 tokens are no answer"),
        (["--prompt", "Hello? " * 600], "error: the prompt has "),
    ],
)
def test_what_cannot_be_served_is_one_line(study, output, words, said):
    done = serve(output / "llama/torch-fp32", *words)
    assert done.returncode and done.stderr.splitlines()[-1].count(said) == 1 and "Traceback" not in done.stderr


def test_a_port_that_another_program_has_is_one_line(study, output):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve(output / "llama/torch-fp32", "--port", str(port))
    assert done.returncode and done.stderr.startswith(
        f"error: port {port} cannot be had (Address already in use): give"
    )


@pytest.mark.parametrize("change", ["absent", "shorter"])
def test_a_copy_without_its_artifact_is_one_line(study, output, tmp_path, change):
    """The program and its folder were copied; the artifact was forgotten, or came over in part."""
    copied = tmp_path / "deploy" / "llama" / "onnx-fp32-kv"
    shutil.copytree(output / "llama/onnx-fp32-kv", copied)
    model = tmp_path / "artifacts" / "llama" / "onnx-fp32-kv"
    if change == "shorter":
        shutil.copytree(study / "artifacts" / "llama" / "onnx-fp32-kv", model)
        with (model / "model.onnx").open("r+b") as file:
            file.truncate(100)
    done = serve(copied, "--prompt", "Hello?")
    words = {"absent": "is not there", "shorter": "has 100 bytes, not the "}[change]
    assert done.returncode and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {model}/") and words in done.stderr


def test_a_package_that_is_not_here_is_named_with_what_installs_it(output):
    words = [sys.executable, "-S", "-E", output / "llama/onnx-fp32-kv/serve.py", "--prompt", "Hello?"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode and done.stderr.startswith(
        "error: the package tokenizers is not here: pip install tokenizers"
    )
