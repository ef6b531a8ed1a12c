"""smollm2-135m as vllm-fp8 (vLLM, 8-bit weights), served as it was measured: by vLLM's own server.

    python serve.py --prompt "Hello, how are you?"
    python serve.py --port 8000
    curl http://127.0.0.1:8000/v1/chat/completions --header 'Content-Type: application/json' --data '{"messages": [{"role": "user", "content": "Hello, how are you?"}], "max_tokens": 24, "temperature": 0}'

Needs: tokenizers==0.23.3 vllm
"""

import argparse
import json
import ctypes
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
ARTIFACT = HERE.parents[2] / "models/smollm2-135m"
DEVICE = "cuda"
THREADS = 4
CONTEXT = 4096  # the longest sequence, in tokens
# what stands around a prompt, in tokens and in text, and the tokens that end an answer
HEAD, BEFORE, AFTER, STOP = [], "\u003c|im_start|\u003esystem\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face\u003c|im_end|\u003e\n\u003c|im_start|\u003euser\n", "\u003c|im_end|\u003e\n\u003c|im_start|\u003eassistant\n", [2]
TOKENIZER = Tokenizer.from_file(str(HERE / "tokenizer.json"))


OWN = Path(".venv-vllm/bin/vllm")  # where the study was run from
NAME = "smollm2-135m"
ROOM = 4096  # tokens of a sequence


def tie():
    """The server gets a signal when the program that started it is gone."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Model:
    """vLLM's server in a process of its own, at ``address``."""

    def __init__(self, port=0):
        program = str(OWN) if OWN.is_file() else shutil.which("vllm")
        if not program:
            raise SystemExit("error: vLLM is not installed here: python envs/install.py vllm .venv-vllm, or name it on PATH")
        if not port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        words = [program, "serve", str(ARTIFACT), "--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port)]
        words += ["--dtype", "float16", "--max-model-len", str(ROOM)]
        words += ["--max-num-seqs", "64", "--generation-config", "vllm"]
        words += ["--quantization", "fp8"]
        # what it says goes where errors go: the first line of this program is its address
        self.server = subprocess.Popen(words, stdout=sys.stderr, preexec_fn=tie)
        while not self.ready():
            if self.server.poll() is not None:
                raise SystemExit("error: vLLM's server ended: its last lines say why")
            time.sleep(0.5)

    def ready(self):
        try:
            with urllib.request.urlopen(self.address + "/health", timeout=5):
                return True
        except (OSError, urllib.error.URLError):
            return False


def fitting(ids):
    """Token ids again; ValueError where the model takes fewer."""
    if len(ids) >= CONTEXT:
        raise ValueError(f"the prompt has {len(ids)} tokens, and the model takes fewer than {CONTEXT}")
    return ids


def turn(prompt):
    """The token ids of what a user says, as it was put when it was measured."""
    return fitting(HEAD + TOKENIZER.encode(BEFORE + prompt + AFTER, add_special_tokens=False).ids)


def answer(model, prompt, most):
    """The ids of the tokens that follow a prompt, at most so many."""
    asked = {"model": NAME, "prompt": turn(prompt), "max_tokens": most, "temperature": 0, "return_token_ids": True}
    asked["stop_token_ids"] = STOP
    said = urllib.request.Request(
        model.address + "/v1/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(said) as reply:
        return json.load(reply)["choices"][0]["token_ids"]


def serve(port):
    model = Model(port)
    print(model.address + "/v1/completions", flush=True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(model.server.wait())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", help="answer this and end")
    parser.add_argument("--tokens", type=int, default=100, help="most tokens of an answer")
    parser.add_argument("--port", type=int, default=8000, help="of the server on this machine; 0 takes a free one")
    options = parser.parse_args()
    if options.prompt is None:
        serve(options.port)
    else:
        print(TOKENIZER.decode(answer(Model(), options.prompt, options.tokens)))
