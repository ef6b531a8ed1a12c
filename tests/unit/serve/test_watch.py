"""A watch ends well for a server that does what was measured, and in one line for one that does not."""

import http.server
import json
import sys
import threading

import pytest

from workflow.tradeoff.files import write_json
from workflow.tradeoff.serve import greedy, watch

PROMPTING = {"before": "<user>", "after": "</end>", "head": [], "stop": []}
GENERATED = [{"prompt": "Hello?", "text": " fine", "token_ids": [1, 2]}]


@pytest.fixture
def server():
    """A server in OpenAI's form whose words a test sets; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(self.server.status)
            self.end_headers()
            reply = {"choices": [{"message": {"content": self.server.words}}]}
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, *_):
            """Quiet."""

    made = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    made.asked, made.status, made.words = [], 200, " fine"
    made.url = f"http://127.0.0.1:{made.server_port}"
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    write_json(folder / "deploy/deploy.json", [{"model": "m", "variant": "gguf-q8_0", "scenarios": ["s"]}])
    write_json(folder / "quality/m/gguf-q8_0.json", {"prompting": PROMPTING, "generated": GENERATED})
    (folder / "tables").mkdir()
    (folder / "tables/summary.csv").write_text("model,variant,ttft_ms,itl_p50_ms\nm,gguf-q8_0,100,10\n")
    return folder


def generator(tmp_path, ttft, gap):
    """A program in the load generator's place."""
    about = {"benchmark_phase": "profiling", "credit_issued_ns": 0, "request_start_ns": 0, "request_end_ns": 10**9}
    times = {"time_to_first_token": {"value": ttft}, "inter_chunk_latency": {"value": [gap]}}
    program = tmp_path / "aiperf"
    line = json.dumps({"metadata": about, "metrics": times})
    program.write_text(
        f"#!{sys.executable}\nimport pathlib\npathlib.Path('made').mkdir()\n"
        f"pathlib.Path('made/profile_export.jsonl').write_text({line!r})\n"
    )
    program.chmod(0o755)
    return str(program)


def flags(server, results, program):
    return ["--url", server.url + "/v1", "--results", str(results), "--generator", program]


def test_a_server_as_it_was_measured_ends_well(server, results, tmp_path, capsys):
    watch.main(flags(server, results, generator(tmp_path, 120.0, 12.0)))
    said = capsys.readouterr().out
    assert said.endswith("as it was measured\n") and "ttft_p50_ms      120   measured 100" in said
    assert server.asked[0]["messages"] == [{"role": "user", "content": "Hello?"}] and server.asked[0]["max_tokens"] == 2


@pytest.mark.parametrize(
    ("ttft", "gap", "words", "status", "said"),
    [
        (350.0, 10.0, " fine", 200, "median time to the first token 350 ms, 3.5 times the 100 ms that were measured"),
        (100.0, 30.0, " fine", 200, "median time between tokens 30 ms, 3 times the 10 ms"),
        (100.0, 10.0, "bad", 200, "to 'Hello?' it wrote 'bad', not ' fine'"),
        (100.0, 10.0, " fine", 500, "1 of 1 greedy answers failed"),
    ],
)
def test_one_that_degraded_ends_in_one_line(server, results, tmp_path, ttft, gap, words, status, said):
    server.words, server.status = words, status
    with pytest.raises(SystemExit, match=r"^degraded: [^\n]*$") as ended:
        watch.main(flags(server, results, generator(tmp_path, ttft, gap)))
    assert said in str(ended.value)


def test_a_server_that_is_gone_is_said_without_a_load(results, tmp_path):
    program = str(tmp_path / "none")
    with pytest.raises(SystemExit, match=r"degraded: 1 of 1 greedy answers failed .*refused"):
        watch.main(["--url", "http://127.0.0.1:9", "--results", str(results), "--generator", program])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--variant": "torch-fp32"}, "names no such answer: name another with MODEL= and VARIANT="),
        ({"--url": "nonsense"}, "--url nonsense is no address of a server"),
        ({"--url": "ftp://127.0.0.1:1"}, "is no address of a server"),
        ({"--results": "results/typo"}, "results/typo/deploy/deploy.json is not there: name a study that has run"),
    ],
)
def test_what_cannot_be_watched_is_one_line_and_no_degradation(results, capsys, changed, said):
    """Exit code 2: cron tells a typing error from a sick server."""
    given = {"--url": "http://127.0.0.1:9", "--results": str(results), "--generator": "none"} | changed
    with pytest.raises(SystemExit) as ended:
        watch.main([word for pair in given.items() for word in pair])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.startswith("error: ") and said in told and len(told.splitlines()) == 1


def test_the_expectation_is_what_the_served_answer_did_where_it_was_served(results):
    assert watch.expected(results, "m", "gguf-q8_0") == {"ttft_p50_ms": 100, "itl_p50_ms": 10}
    facts = [{"arrival_s": 0, "ttft_s": 0.2, "itl_s": [0.03], "latency_s": 1, "tokens": 2, "error": None}]
    served = {"name": "gguf-q8_0", "rates": [{"rate": 1, "facts": facts}]}
    write_json(results / "serve/raw.json", {"model": "m", "servers": [served]})
    assert watch.expected(results, "m", "gguf-q8_0") == pytest.approx({"ttft_p50_ms": 200, "itl_p50_ms": 30})


def test_an_answer_that_never_comes_is_an_error_in_words(server):
    server.status = 404
    (told,) = greedy.compare(server.url, PROMPTING, GENERATED)
    assert not told["same"] and told["error"] == "HTTPError: HTTP Error 404: Not Found"
