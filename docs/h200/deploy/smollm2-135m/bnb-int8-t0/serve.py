"""smollm2-135m as bnb-int8-t0 (PyTorch (transformers), 8-bit weights), served as it was measured: one prompt at a time, greedily.

    python serve.py --prompt "Hello, how are you?"
    python serve.py --port 8000
    curl http://127.0.0.1:8000/v1/completions --data '{"prompt": "Hello, how are you?", "max_tokens": 100}'

Needs: tokenizers==0.23.3 torch==2.11.0 transformers==5.24.0 accelerate bitsandbytes==0.50.2
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from tokenizers import Tokenizer
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, DynamicCache

HERE = Path(__file__).resolve().parent
ARTIFACT = HERE.parents[2] / "models/smollm2-135m"
DEVICE = "cuda"
THREADS = 4
CONTEXT = 8192  # the longest sequence, in tokens
# what stands around a prompt, in tokens and in text, and the tokens that end an answer
HEAD, BEFORE, AFTER, STOP = [], "\u003c|im_start|\u003esystem\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face\u003c|im_end|\u003e\n\u003c|im_start|\u003euser\n", "\u003c|im_end|\u003e\n\u003c|im_start|\u003eassistant\n", [2]
TOKENIZER = Tokenizer.from_file(str(HERE / "tokenizer.json"))


class Model:
    """The transformers model with a cache of keys and values that grows."""

    def __init__(self):
        torch.set_num_threads(THREADS)
        # cuDNN's attention plans each new length for some 50 ms, and a growing cache has a new one at every token
        torch.backends.cuda.enable_cudnn_sdp(False)
        self.network = AutoModelForCausalLM.from_pretrained(
            ARTIFACT,
            dtype=torch.float16,
            device_map={"": DEVICE},
            quantization_config=BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0),
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
        ).eval()
        self.start()

    def start(self):
        """Forget what was read."""
        self.past = DynamicCache()

    @torch.inference_mode()
    def next(self, ids):
        """Read tokens; the likeliest next one."""
        ids = torch.tensor([ids], device=DEVICE)
        return self.network(ids, past_key_values=self.past, use_cache=True, logits_to_keep=1).logits[0, -1].argmax().item()


def answer(model, prompt, most):
    """The ids of the tokens that follow a prompt, at most so many; a stop token is the last."""
    ids = HEAD + TOKENIZER.encode(BEFORE + prompt + AFTER, add_special_tokens=False).ids
    if len(ids) >= CONTEXT:
        raise ValueError(f"the prompt has {len(ids)} tokens, and the model takes fewer than {CONTEXT}")
    model.start()
    tokens = [model.next(ids)]
    while len(tokens) < min(most, CONTEXT - len(ids)) and tokens[-1] not in STOP:
        tokens.append(model.next(tokens[-1:]))
    return tokens


def serve(model, port):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            try:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                tokens = answer(model, asked["prompt"], int(asked.get("max_tokens", 100)))
                ended = "stop" if tokens[-1] in STOP else "length"
                choice = {"index": 0, "text": TOKENIZER.decode(tokens), "token_ids": tokens, "finish_reason": ended}
                status, reply = 200, {"object": "text_completion", "choices": [choice]}
            except (KeyError, TypeError, ValueError) as error:
                status, reply = 400, {"error": {"message": f"{type(error).__name__}: {error}"}}
            body = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = HTTPServer(("127.0.0.1", port), Handler)
    print(f"http://127.0.0.1:{server.server_port}/v1/completions", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", help="answer this and end")
    parser.add_argument("--tokens", type=int, default=100, help="most tokens of an answer")
    parser.add_argument("--port", type=int, default=8000, help="of the server on this machine; 0 takes a free one")
    options = parser.parse_args()
    if options.prompt is None:
        serve(Model(), options.port)
    else:
        print(TOKENIZER.decode(answer(Model(), options.prompt, options.tokens)))
