"""A server ends with the block that runs it, and with a process that is killed."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.serve import server

SERVES = """import http.server, sys
made = http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), None)
print(f"http://127.0.0.1:{made.server_port}/v1/completions", flush=True)
open("pid", "w").write(str(__import__("os").getpid()))
made.serve_forever()
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "serve.py"
    path.write_text(SERVES)
    return path


def gone(process, seconds=60):
    until = time.monotonic() + seconds
    while psutil.pid_exists(process) and time.monotonic() < until:
        time.sleep(0.02)
    return not psutil.pid_exists(process)


def test_it_runs_on_a_free_port_and_ends_with_the_block(program):
    with server.running(f"python {program}") as address:
        assert address.startswith("http://127.0.0.1:") and not address.endswith("/v1/completions")
        while not (text := (program.parent / "pid").read_text() if (program.parent / "pid").exists() else ""):
            time.sleep(0.01)
        assert psutil.pid_exists(int(text))
    assert gone(int(text))


def test_it_ends_when_the_stage_is_killed(program):
    script = f"""import time
from workflow.tradeoff.serve import server
with server.running("python {program}"):
    print("up", flush=True)
    time.sleep(60)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    stage = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
    assert stage.stdout.readline() == b"up\n"
    while not (text := (program.parent / "pid").read_text() if (program.parent / "pid").exists() else ""):
        time.sleep(0.01)
    stage.send_signal(signal.SIGKILL)
    stage.wait()
    assert gone(int(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "ended"), ("print('hello')", "said 'hello'"), ("import time; time.sleep(9)", "said nothing in 0.5 s")],
)
def test_one_that_does_not_start_is_one_line(program, text, said):
    program.write_text(text)
    running = server.running(f"python {program}", seconds=0.5 if "sleep" in text else 120)
    with pytest.raises(UserError, match=f"^the server {said} instead of its address: run `python .*` by hand"), running:
        raise AssertionError("it runs")
