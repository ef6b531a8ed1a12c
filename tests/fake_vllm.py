"""The part of vLLM that the engine uses, over a tiny transformers model, with the forms in which vLLM 0.23 answers.

Requests get a random ending to their names inside, outputs come under the given name; log-probabilities come as token
ids from the likeliest to the least, the text's own ahead, without the first token of a prompt.
"""

import enum
import sys
import types
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM

PAGE = 16


class RequestOutputKind(enum.Enum):
    CUMULATIVE = 0
    DELTA = 1


class Graphs(enum.Enum):
    NONE = 0
    FULL_AND_PIECEWISE = 1


class Mode(enum.IntEnum):
    NONE = 0
    VLLM_COMPILE = 3


@dataclass
class SamplingParams:
    max_tokens: int
    temperature: float = 1.0
    ignore_eos: bool = False
    detokenize: bool = True
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    logprobs: int | None = None
    prompt_logprobs: int | None = None


class EngineArgs(SimpleNamespace):
    pass


@dataclass
class Request:
    request_id: str
    ids: list[int]
    params: SamplingParams
    outside: str = ""
    made: list[int] = field(default_factory=list)


class Linear(nn.Module):
    """A layer of vLLM's: its sizes, and whatever holds its weights."""

    def __init__(self, rows, columns, dtype, scales=0):
        super().__init__()
        self.input_size_per_partition, self.output_size_per_partition = columns, rows
        self.weight = nn.Parameter(torch.zeros(columns, rows).to(dtype).t(), requires_grad=False)
        if scales:
            self.weight_scale = nn.Parameter(torch.zeros(scales, 1), requires_grad=False)


class Table(nn.Module):
    """vLLM's embedding or head: rows of a vocabulary, and some more."""

    def __init__(self, rows, columns, padded, dtype=torch.float16):
        super().__init__()
        self.num_embeddings = self.org_vocab_size = rows
        self.weight = nn.Parameter(torch.zeros(padded, columns, dtype=dtype), requires_grad=False)


class Network(nn.Module):
    """Two layers of 8 x 8 weights and a vocabulary of 10, padded to 16: tied, or with a head of its own."""

    def __init__(self, dtype=torch.float16, scales=0, tied=True):
        super().__init__()
        self.embed_tokens = Table(10, 8, 16)
        self.layers = nn.ModuleList(Linear(8, 8, dtype, scales) for _ in range(2))
        self.norm = nn.LayerNorm(8, bias=False, dtype=torch.float16)
        self.lm_head = Table(10, 8, 16)
        if tied:
            self.lm_head.weight = self.embed_tokens.weight


class Core:
    """What computes: every waiting request's prompt, and a token of each running one, at a step."""

    def __init__(self, model, budget):
        self.model, self.budget, self.requests = model, budget, {}

    def add_request(self, request):
        self.requests[request.request_id] = request

    def get_output(self):
        return SimpleNamespace(outputs=[self._advance(request) for request in list(self.requests.values())])

    def _advance(self, request):
        with torch.no_grad():
            logits = self.model(torch.tensor([request.ids + request.made])).logits[0]
        logp = logits.log_softmax(-1, dtype=torch.float32)
        token = int(logits[-1].argmax())
        first, params = not request.made, request.params
        request.made.append(token)
        finished = len(request.made) == params.max_tokens
        if finished:
            del self.requests[request.request_id]
        asked = params.prompt_logprobs is not None and first
        return SimpleNamespace(
            request_id=request.request_id,
            new_token_ids=[token],
            outside=request.outside,
            finished=finished,
            new_prompt_logprobs_tensors=ranked(logp[:-1], request.ids[1:]) if asked else None,
            new_logprobs=tuple(part.numpy() for part in ranked(logp[-1:], [token])) if params.logprobs else None,
        )


def ranked(logp, ahead):
    order = logp.argsort(-1, descending=True)
    ids = torch.cat([torch.tensor(ahead)[:, None], order], 1).to(torch.int32)
    return ids, logp.gather(1, ids.long()), torch.zeros(len(ids))


class LLMEngine:
    def __init__(self, args):
        self.args = args
        network = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="eager")
        self.engine_core = Core(network.eval(), args.max_num_batched_tokens)
        self.model_config = SimpleNamespace(get_vocab_size=lambda: network.config.vocab_size)
        graphs, mode = (
            (Graphs.NONE, Mode.NONE) if args.enforce_eager else (Graphs.FULL_AND_PIECEWISE, Mode.VLLM_COMPILE)
        )
        self.vllm_config = SimpleNamespace(compilation_config=SimpleNamespace(cudagraph_mode=graphs, mode=mode))
        self.input_processor = self
        self.loaded = Network()
        kept = torch.uint8 if args.kv_cache_dtype == "fp8" else torch.float16
        spec = SimpleNamespace(block_size=PAGE, page_size_bytes=1000, dtype=kept)
        cache = SimpleNamespace(
            kv_cache_groups=[SimpleNamespace(layer_names=["a", "b"], kv_cache_spec=spec)],
            kv_cache_tensors=[SimpleNamespace(size=1000 * args.num_gpu_blocks_override)] * 2,
        )
        backend = SimpleNamespace(backend=SimpleNamespace(get_name=lambda: "FLASH_ATTN"))
        self.runner = SimpleNamespace(kv_cache_config=cache, attn_groups=[[backend]], get_model=lambda: self.loaded)

    @classmethod
    def from_engine_args(cls, args):
        return cls(args)

    def collective_rpc(self, method):
        return [method(SimpleNamespace(model_runner=self.runner))]

    def get_supported_tasks(self):
        return ("generate",)

    def process_inputs(self, request_id, prompt, params, supported_tasks):
        ids = prompt["prompt_token_ids"]
        if prompt["type"] != "token" or len(ids) >= self.args.max_model_len:
            raise ValueError("the prompt is longer than the maximum model length")
        return Request(request_id, ids, params)

    def assign_request_id(self, request):
        request.outside, request.request_id = request.request_id, f"{request.request_id}-4f2a"

    def add_request(self, request_id, prompt, params):
        request = self.process_inputs(request_id, prompt, params, ())
        self.assign_request_id(request)
        self.engine_core.add_request(request)

    def abort_request(self, names):
        for name in names:
            self.engine_core.requests.pop(f"{name}-4f2a")

    def has_unfinished_requests(self):
        return bool(self.engine_core.requests)

    def step(self):
        return [
            SimpleNamespace(
                request_id=found.outside,
                finished=found.finished,
                outputs=[SimpleNamespace(token_ids=np.array(found.new_token_ids).tolist())],
            )
            for found in self.engine_core.get_output().outputs
        ]


def module():
    """Put the module where an import finds it; the module."""
    found = types.ModuleType("vllm")
    found.EngineArgs, found.LLMEngine, found.SamplingParams = EngineArgs, LLMEngine, SamplingParams
    found.__version__ = "0.23.0"
    params = types.ModuleType("vllm.sampling_params")
    params.RequestOutputKind = RequestOutputKind
    found.sampling_params = params
    sys.modules |= {"vllm": found, "vllm.sampling_params": params}
    return found
