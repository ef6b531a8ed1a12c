"""smollm2-135m as bnb-int8 (PyTorch (transformers), 8-bit weights), served as it was measured: one prompt at a time, greedily.

    python serve.py --prompt "Hello, how are you?"
    python serve.py --port 8000
    curl http://127.0.0.1:8000/v1/chat/completions --header 'Content-Type: application/json' --data '{"messages": [{"role": "user", "content": "Hello, how are you?"}], "max_tokens": 24, "temperature": 0}'

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
            quantization_config=BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=6.0),
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


def fitting(ids):
    """Token ids again; ValueError where the model takes fewer."""
    if len(ids) >= CONTEXT:
        raise ValueError(f"the prompt has {len(ids)} tokens, and the model takes fewer than {CONTEXT}")
    return ids


def turn(prompt):
    """The token ids of what a user says, as it was put when it was measured."""
    return fitting(HEAD + TOKENIZER.encode(BEFORE + prompt + AFTER, add_special_tokens=False).ids)


def write(model, ids, most):
    """Yield the tokens that follow a prompt's, at most so many; a stop token is the last."""
    model.start()
    token = model.next(ids)
    for _ in range(min(most, CONTEXT - len(ids)) - 1):
        yield token
        if token in STOP:
            return
        token = model.next([token])
    yield token


def answer(model, prompt, most):
    return list(write(model, turn(prompt), most))


def asked_for(path, asked):
    """(token ids, most tokens) of a request. Text stands for itself; a chat is one turn of a user."""
    most = int(asked.get("max_tokens") or asked.get("max_completion_tokens") or 100)
    if path == "/v1/chat/completions":
        said = asked["messages"]
        if len(said) != 1 or said[0]["role"] != "user":
            raise ValueError("messages: one of the role user is taken, as it was measured")
        return turn(said[0]["content"]), most
    if path != "/v1/completions":
        raise ValueError(f"{path} is not served: /v1/completions and /v1/chat/completions are")
    prompt = asked["prompt"]
    if isinstance(prompt, str):
        prompt = HEAD + TOKENIZER.encode(prompt, add_special_tokens=False).ids
    return fitting([int(token) for token in prompt]), most


class Server(HTTPServer):
    request_queue_size = 128  # requests that wait for their turn


def serve(port):
    model = Model()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply(200, {"status": "ok"})

        def do_POST(self):
            try:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                ids, most = asked_for(self.path, asked)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                return self.reply(400, {"error": {"message": f"{type(error).__name__}: {error}"}})
            if asked.get("stream"):
                return self.stream(ids, most)
            tokens = list(write(model, ids, most))
            self.reply(200, self.part("message", TOKENIZER.decode(tokens), tokens, tokens[-1], ids))

        def stream(self, ids, most):
            """One event a token, as it is made; letters that are not whole yet come with the next."""
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            tokens, sent = [], ""
            for token in write(model, ids, most):
                tokens.append(token)
                text = TOKENIZER.decode(tokens)
                piece = "" if text.endswith("\N{REPLACEMENT CHARACTER}") else text[len(sent) :]
                sent += piece
                self.event(self.part("delta", piece, [token]))
            self.event(self.part("delta", TOKENIZER.decode(tokens)[len(sent) :], [], tokens[-1], ids, len(tokens)))
            self.wfile.write(b"data: [DONE]\n\n")

        def event(self, reply):
            self.wfile.write(b"data: " + json.dumps(reply).encode() + b"\n\n")
            self.wfile.flush()

        def part(self, kind, text, tokens, last=None, ids=None, count=None):
            """An answer, or a part of one; the last part says why it ended and how many tokens there were."""
            chat = self.path == "/v1/chat/completions"
            ended = None if last is None else "stop" if last in STOP else "length"
            said = {kind: {"role": "assistant", "content": text}} if chat else {"text": text}
            reply = {
                "object": ("chat.completion" if chat else "text_completion") + (".chunk" if kind == "delta" and chat else ""),
                "model": "bnb-int8",
                "choices": [{"index": 0, **said, "token_ids": tokens, "finish_reason": ended}],
            }
            if ids is not None:
                counts = {"prompt_tokens": len(ids), "completion_tokens": count or len(tokens)}
                reply["usage"] = counts | {"total_tokens": sum(counts.values())}
            return reply

        def reply(self, status, reply):
            body = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = Server(("127.0.0.1", port), Handler)
    print(f"http://127.0.0.1:{server.server_port}/v1/completions", flush=True)
    server.serve_forever()


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
