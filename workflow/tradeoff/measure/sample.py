"""One fresh process of a measurement: load an artifact, then do what is asked, one command at a time.

``process`` starts it and asks over a socket; by hand, commands come from standard input and answers go to standard
output, a JSON object a line:

    echo '{"do": "turn", "load": {"prompt_tokens": 32, "new_tokens": 32}}' |
        python -m workflow.tradeoff.measure.sample --variant torch-fp32 --artifact M --model-folder M --device cpu \\
        --threads 2

Commands: ``warm`` (load, times), ``turn`` (load): one timed generation; ``study`` (runs): the study's protocol;
``memory``: its peaks until now; ``proof`` (load): what ran; ``held`` (load): the bytes of its keys and values. The
first answer says how loading went. A load with ``sequences`` is a batch of so many prompts of one length.
"""

import functools
import json
import socket
import sys
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer

from workflow.tradeoff import engines, errors, gguf_text, variants
from workflow.tradeoff.engines.base import Engine
from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.measure import disturbance, energy, memory, roofline, telemetry
from workflow.tradeoff.measure.timed import cache_growth, calibrate, harness_seconds, take
from workflow.tradeoff.run import shortage
from workflow.tradeoff.variants import VARIANTS

STUDY_PROMPT = "Hello, how are you?"
STUDY_NEW_TOKENS = 10
# real text, since some kernels (INT8 with outliers) take longer for some activations; repeated to any length
PASSAGE = (
    "The harbour town had two clocks, and for as long as anyone could remember they had disagreed by four minutes. "
    "Ships left by one and shops closed by the other. When a new mayor wished to set them alike, a long debate began. "
)
BESIDE = ("manifest.json", gguf_text.KEPT)  # files of an artifact that no engine of it loads


def study(engine: Engine, ids: torch.Tensor, runs: int) -> list[dict]:
    """The study's protocol: whole ``generate`` calls of STUDY_NEW_TOKENS tokens, prefill included.

    None at all where the prompt and these tokens do not fit the model's context.
    """
    if (length := ids.shape[1] + STUDY_NEW_TOKENS) > engine.context:
        words = f"the study's protocol is left out: it takes {length} tokens, the model {engine.context}"
        print(words, file=sys.stderr)
        return []
    results = []
    for _ in range(runs):
        engine.synchronize()
        with telemetry.Sampler(engine.device) as sampler, disturbance.Watch() as watch:
            start = time.perf_counter()
            engine.generate(ids, STUDY_NEW_TOKENS)
            engine.synchronize()
            seconds = time.perf_counter() - start
        beside = {"lost": watch.result() | {"wall_s": seconds}, "telemetry": sampler.summary()}
        results.append({"total_s": seconds, "new_tokens": STUDY_NEW_TOKENS, **beside})
    return results


@functools.cache
def encode(model: Path, text: str) -> torch.Tensor:
    """Token ids (1, T) of a text, without special tokens; kept, since loading a tokenizer is what takes the time."""
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    return torch.tensor([tokenizer(text, add_special_tokens=False).input_ids])


def share(model: Path) -> None:
    """Keep the ids of all texts, for the processes that are forked off this one."""
    for text in (PASSAGE, STUDY_PROMPT):
        encode(model, text)


def passage_ids(model: Path, length: int, sequences: int = 1) -> torch.Tensor:
    """The first token ids (sequences, length) of PASSAGE, repeated as often as that takes; each row begins a token on.

    So no two rows are one text (until the passage is over), and the first is what one sequence alone would be.
    """
    ids = encode(model, PASSAGE)[0]
    places = torch.arange(length) + torch.arange(sequences)[:, None]
    return ids[places % len(ids)]


class Server:
    """A loaded engine and the answers to commands on it."""

    def __init__(self, args):
        self.args = args
        self.watch = memory.Watch(args.device)
        self.load: dict = {}
        start = time.perf_counter()
        self.engine = engines.load(VARIANTS[args.variant], args.artifact, args.model_folder, args.device, args.threads)
        self.engine.synchronize()
        self.load_s = time.perf_counter() - start
        self.watch.mark("load")

    def ready(self) -> dict:
        """What is known when the artifact is loaded."""
        return {
            "started": time.time(),
            "load_s": self.load_s,
            "torch_threads": torch.get_num_threads(),
            "harness_s": harness_seconds(),
        }

    def prepare(self, load: dict) -> None:
        """Make the prompt of a load and room in the cache, if it is not the last one."""
        if load == self.load:
            return
        folder, length = self.args.model_folder, load["prompt_tokens"] + load["new_tokens"]
        many = load.get("sequences", 1)
        if many > 1 and (why := getattr(self.engine, "one_at_a_time", "")):
            raise CellFailure("unsupported", f"{many} sequences at once: {why}")
        if length > self.engine.context:
            if "sequences" in load:  # one load of several: the others have their figures
                raise CellFailure("unsupported", f"{length} tokens exceed the model's context of {self.engine.context}")
            raise UserError(
                f"measure: prompt_tokens + new_tokens is {length}, more than the {self.engine.context} tokens that "
                f"{folder.name} takes: lower one of them"
            )
        self.ids, self.load = passage_ids(folder, load["prompt_tokens"], many), load
        if hasattr(self.engine, "reserve"):
            self.engine.reserve(length)

    def warm(self, load: dict, times: int) -> dict:
        """Untimed generations."""
        self.prepare(load)
        # a GPU's libraries choose their kernels anew for each length, so its warm-up passes through all of them
        length = load["new_tokens"] if self.engine.device.type == "cuda" else min(load["new_tokens"], 8)
        for _ in range(times):
            take(self.engine, self.ids, length)
        return {}

    def turn(self, load: dict) -> dict:
        """One timed generation, the state of the device while it ran, and what others took of the machine."""
        self.prepare(load)
        calibration = calibrate(self.engine.device)
        meter = energy.Meter(self.engine.device)
        with telemetry.Sampler(self.engine.device) as sampler, disturbance.Watch() as watch, meter:
            sample = take(self.engine, self.ids, load["new_tokens"])
        # the time is the generation's alone, without that of starting and ending the watch
        lost = watch.result() | {"wall_s": sample["ttft_s"] + sum(sample["itl_s"])}
        beside = {"telemetry": sampler.summary(), "energy": meter.result()}
        return {**sample, "calibration_s": calibration, "lost": lost, **beside}

    def study(self, runs: int) -> dict:
        """``runs`` of the study's protocol."""
        prompt = encode(self.args.model_folder, STUDY_PROMPT)
        return {"prompt_tokens": prompt.shape[1], "samples": study(self.engine, prompt, runs)}

    def memory(self) -> dict:
        """Peaks of memory while it loaded and since."""
        self.watch.mark("decode")
        return self.watch.result()

    def held(self, load: dict) -> dict:
        """Bytes of the keys and values of all sequences of a load."""
        length = load["prompt_tokens"] + load["new_tokens"]
        size = load["sequences"] * self.engine.cache_bytes(length)
        return {"memory": {"cache_bytes": size, "cache_length": length}}

    def proof(self, load: dict) -> dict:
        """What ran, and the bytes that it holds."""
        self.prepare(load)
        args, engine, length = self.args, self.engine, load["prompt_tokens"] + load["new_tokens"]
        proof = engine.proof()
        held = {
            "disk_bytes": sum(path.stat().st_size for path in args.artifact.iterdir() if path.name not in BESIDE),
            "weight_bytes": sum(proof["weight_bytes"].values()),
            "cache_bytes": engine.cache_bytes(length),
            "cache_length": length,
        }
        proof["bytes_per_token"] = roofline.bytes_per_token(proof, engine.cache_bytes(length))
        proof["cache_growth"] = cache_growth(engine, self.ids, cached=VARIANTS[args.variant].cache)
        proof["idle_energy"] = energy.idle(engine.device)
        return {
            "memory": held,
            "proof": proof,
            "kernels": roofline.kernel_profile(engine),
            "bandwidth": roofline.measure_bandwidth(args.device, args.threads),
        }


COMMANDS = {name: getattr(Server, name) for name in ("warm", "turn", "study", "memory", "held", "proof")}


def serve(args, commands, answers) -> None:
    """Load, then answer each line of ``commands`` with a line; a failure of the cell is the last answer."""

    def answer(result: dict) -> None:
        answers.write(json.dumps({"status": "ok", "reason": "", **result}) + "\n")
        answers.flush()

    try:
        server = Server(args)
        answer(server.ready())
        for line in commands:
            command = json.loads(line)
            answer(COMMANDS[command.pop("do")](server, **command))
    except CellFailure as failure:
        answer({"status": failure.status, "reason": failure.reason})
    except UserError:
        raise
    except Exception as error:
        failure = shortage.of(error, VARIANTS[args.variant], args.artifact, args.device)
        failure = failure or CellFailure("error", errors.described(error))
        answer({"status": failure.status, "reason": failure.reason})


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    variants.add_flag(parser)
    parser.add_argument("--variant", choices=VARIANTS, required=True)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--model-folder", type=Path, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--channel", type=int, help="descriptor of the socket that commands come by")
    args = parser.parse_args(argv)
    if args.channel is None:
        return serve(args, sys.stdin, sys.stdout)
    with socket.socket(fileno=args.channel) as channel, channel.makefile("rw") as stream:
        serve(args, stream, stream)


if __name__ == "__main__":
    errors.run(main)
