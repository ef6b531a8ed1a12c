"""The load: AIPerf in an environment of its own (envs/serve.in), and the raw facts of each request out of its records.

AIPerf counts tokens by the server's usage, takes its tokenizer from the model's folder, and asks no hub: the address of
the hub that it is given is one where nobody answers.
"""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from workflow.tradeoff import asking
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.serve.server import tied

NO_HUB = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_TELEMETRY": "1"}
GRACE_S = 30  # for answers that are still on their way when the time of a rate is over
OVERHEAD_S = 180  # for AIPerf's own start and end
RECORDS = "profile_export.jsonl"


def prompts(given: Sequence[str], first: int, count: int) -> list[str]:
    """``count`` different prompts: the study's in turn, numbered from ``first``, so that no cache knows all of one."""
    return [f"Question {number}: {given[number % len(given)]}" for number in range(first, first + count)]


def command(program: Path, address: str, prompting: Mapping, plan: Mapping) -> list[str]:
    """plan: rate (requests/s), requests, seconds, new_tokens, seed."""
    chat = asking.path(prompting) == asking.CHAT
    flags = {
        "--model": "served",
        "--tokenizer": "./tokenizer",
        "--url": address,
        "--endpoint-type": "chat" if chat else "completions",
        "--arrival-pattern": "poisson",
        "--request-rate": plan["rate"],
        "--request-count": plan["requests"],
        "--benchmark-duration": plan["seconds"],
        "--benchmark-grace-period": GRACE_S,
        "--request-timeout-seconds": plan["seconds"] + GRACE_S,
        "--random-seed": plan["seed"],
        "--input-file": "prompts.jsonl",
        "--custom-dataset-type": "single_turn",
        "--dataset-sampling-strategy": "sequential",
        "--output-artifact-dir": "made",
        "--export-level": "records",
        "--ui": "none",
        "--workers-max": 1,
        "--record-processor-service-count": 1,
    }
    words = [str(program), "profile", *(str(word) for pair in flags.items() for word in pair)]
    words += ["--streaming", "--use-server-token-count", "--no-gpu-telemetry", "--no-server-metrics"]
    return [*words, "--extra-inputs", "temperature:0", "--extra-inputs", f"max_tokens:{plan['new_tokens']}"]


def drive(program: Path, address: str, prompting: Mapping, tokenizer: Path, asked: Sequence[str], plan: Mapping):
    """The facts of each request that arrived, in order (``facts``).

    Raises UserError with AIPerf's last words when it made no records.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tokenizer").symlink_to(tokenizer.absolute())
        (folder / "prompts.jsonl").write_text("".join(json.dumps({"text": prompt}) + "\n" for prompt in asked))
        done = _run(command(program, address, prompting, plan), folder, plan["seconds"] + GRACE_S + OVERHEAD_S)
        records = folder / "made" / RECORDS
        if not records.is_file():
            raise UserError(f"AIPerf made no records at {plan['rate']:g} requests/s: {last_words(done)}")
        return facts(records.read_text().splitlines())


def _run(words: Sequence[str], folder: Path, seconds: float) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    process = subprocess.Popen(
        words, cwd=folder, env={**environment, **NO_HUB}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True, preexec_fn=tied(signal.SIGTERM),
    )  # fmt: skip
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        raise UserError(f"AIPerf did not end within {seconds:g} s: fewer requests, or a slower rate") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def last_words(text: str) -> str:
    lines = [line.strip("│ ") for line in text.splitlines() if "ERROR" in line or "Error" in line]
    return lines[0][:300] if lines else "it said nothing of an error"


def facts(lines: Sequence[str]) -> list[dict]:
    """Raw facts of AIPerf's records, ordered by arrival: seconds from the first one.

    Each: arrival_s, ttft_s, itl_s (a list), latency_s, prompt_tokens, tokens; ``error`` in words, or None.
    """
    records = [record for line in lines if (record := json.loads(line))["metadata"]["benchmark_phase"] == "profiling"]
    records.sort(key=lambda record: record["metadata"]["credit_issued_ns"])
    found = []
    for record in records:
        about, measured = record["metadata"], record.get("metrics") or {}

        def value(*names, measured=measured):
            return next((measured[name]["value"] for name in names if name in measured), None)

        error = record.get("error")
        ttft = value("time_to_first_output_token", "time_to_first_token")
        if not error and (ttft is None or about.get("was_cancelled")):
            error = {"message": "cut off when the time was over" if about.get("was_cancelled") else "no token came"}
        found.append(
            {
                "arrival_s": (about["credit_issued_ns"] - records[0]["metadata"]["credit_issued_ns"]) / 1e9,
                "ttft_s": None if error else ttft / 1e3,
                "itl_s": [] if error else [gap / 1e3 for gap in value("inter_chunk_latency") or []],
                "latency_s": (about["request_end_ns"] - about["request_start_ns"]) / 1e9,
                "prompt_tokens": value("usage_prompt_tokens", "input_sequence_length"),
                "tokens": value("usage_completion_tokens", "output_sequence_length"),
                "error": (error.get("message") or error.get("type") or "failed") if error else None,
            }
        )
    return found
