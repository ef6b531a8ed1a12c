"""The load generator's records become raw facts, whatever happened to a request."""

import json
import sys

import pytest

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.serve import generator

CHAT = {"before": "<user>", "after": "</end>", "head": [], "stop": []}
PLAIN = {"before": "", "after": "", "head": [], "stop": []}
PLAN = {"rate": 2.0, "requests": 3, "seconds": 5, "new_tokens": 8, "seed": 4}
MS = {"time_to_first_output_token": 250.0, "inter_chunk_latency": [10.0, 30.0], "usage_completion_tokens": 3}


def record(at, metrics=None, **more):
    about = {
        "benchmark_phase": "profiling",
        "credit_issued_ns": at,
        "request_start_ns": at,
        "request_end_ns": at + 10**9,
    }
    metrics = {name: {"value": value, "unit": ""} for name, value in (metrics or {}).items()}
    return json.dumps({"metadata": about | more.pop("about", {}), "metrics": metrics, **more})


def test_facts_are_in_the_order_of_arrival_and_in_seconds():
    warm = record(0, MS, about={"benchmark_phase": "warmup"})
    first, second = generator.facts([record(3 * 10**9, MS), warm, record(10**9, MS)])
    assert (first["arrival_s"], second["arrival_s"]) == (0, 2)
    assert (first["ttft_s"], first["itl_s"], first["latency_s"]) == (0.25, [0.01, 0.03], 1)
    assert (first["tokens"], first["error"]) == (3, None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (record(0, error={"type": "TimeoutError", "message": "TimeoutError()"}), "TimeoutError()"),
        (record(0, MS, about={"was_cancelled": True}), "cut off when the time was over"),
        (record(0), "no token came"),
    ],
)
def test_a_request_without_an_answer_has_its_reason_and_no_time(line, said):
    (fact,) = generator.facts([line])
    assert (fact["error"], fact["ttft_s"], fact["itl_s"]) == (said, None, [])


def test_a_prompt_is_put_as_it_was_measured_and_never_twice():
    for prompting, kind in ((CHAT, "chat"), (PLAIN, "completions")):
        words = generator.command("aiperf", "http://127.0.0.1:1", prompting, PLAN)
        assert words[words.index("--endpoint-type") + 1] == kind
        assert words[words.index("--arrival-pattern") + 1] == "poisson" and "max_tokens:8" in words
    asked = [*generator.prompts(["a", "b"], 0, 3), *generator.prompts(["a", "b"], 3, 3)]
    assert len(set(asked)) == 6 and asked[1] == "Question 1: b"


def aiperf(tmp_path, text):
    program = tmp_path / "aiperf"
    program.write_text(f"#!{sys.executable}\n{text}")
    program.chmod(0o755)
    return program


def test_its_records_are_read_and_it_asks_no_hub(tmp_path):
    text = f"""import os, pathlib
assert os.environ["HF_ENDPOINT"] == "http://127.0.0.1:9" and pathlib.Path("tokenizer/there").exists()
assert len(open("prompts.jsonl").readlines()) == 2
pathlib.Path("made").mkdir()
pathlib.Path("made/profile_export.jsonl").write_text({record(0, MS)!r})"""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "there").touch()
    found = generator.drive(aiperf(tmp_path, text), "http://127.0.0.1:1", CHAT, tmp_path / "model", ["a", "b"], PLAN)
    assert found[0]["ttft_s"] == 0.25


def test_without_records_its_last_words_are_the_error(tmp_path):
    text = "print('12:00 ERROR no such thing')"
    with pytest.raises(UserError, match=r"^AIPerf made no records at 2 requests/s: 12:00 ERROR no such thing$"):
        generator.drive(aiperf(tmp_path, text), "http://127.0.0.1:1", CHAT, tmp_path, ["a"], PLAN)
