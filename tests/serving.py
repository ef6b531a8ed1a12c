"""What a process of a test does; without the libraries, whose import takes seconds."""

import json
import os
import signal
import socket
import sys
import threading

from workflow.tradeoff.errors import UserError


def says(argv):
    print("first", file=sys.stderr, flush=True)
    os.write(2, b"second\n")
    print(*argv, file=sys.stderr)


def refuses(argv):
    raise UserError("no such thing: take another")


def killed(argv):
    print("working", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGKILL)


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
            case "fail":
                answer(status="unsupported", reason="not here")
        answer(said=command["word"])
