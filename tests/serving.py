"""What a process of a test does; without the libraries, whose import takes seconds."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.run import hang


def says(argv):
    print("first", file=sys.stderr, flush=True)
    os.write(2, b"second\n")
    print(*argv, file=sys.stderr)


def refuses(argv):
    raise UserError("no such thing: take another")


def killed(argv):
    print("working", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGKILL)


def never_returns():
    """A call in C that keeps Python's lock, and waits for a lock that it holds itself."""
    library, lock = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
    for _ in range(2):
        library.pthread_mutex_lock(lock)


def counted_from(path):
    """A wait that counts from when ``path`` is there, however long a busy machine takes until then."""

    class Wait(hang.Wait):
        def over(self, progress=False):
            return super().over(progress or not path.exists())

    return Wait


def hangs(argv):
    """Writes its own id, a child's and an orphan's to a file, says what it is at, and gets no further."""
    child = subprocess.Popen(["sleep", "60"])
    orphan = subprocess.run(
        ["sh", "-c", "setsid sleep 60 >/dev/null 2>&1 & echo $!"], stdout=subprocess.PIPE, text=True
    ).stdout
    Path(argv[0]).write_text(f"{os.getpid()} {child.pid} {orphan}")
    hang.at("score windows-512, 3 of 9 windows done")
    never_returns()


def channel(argv):
    return socket.socket(fileno=int(argv[argv.index("--channel") + 1])).makefile("rw")


def spins(argv):
    """A server with a thread that never rests; it does what it is asked: breaks, refuses, dies."""
    stream = channel(argv)

    def answer(**words):
        stream.write(json.dumps({"status": "ok", "reason": "", **words}) + "\n")
        stream.flush()

    threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
    answer(pid=os.getpid())
    for line in stream:
        command = json.loads(line)
        match command["do"]:
            case "break":
                raise ValueError("a bug")
            case "refuse":
                raise UserError("no such thing: take another")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                never_returns()
            case "fail":
                answer(status="unsupported", reason="not here")
        answer(said=command["word"])
