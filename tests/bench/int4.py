"""CPU time of one decode step of ONNX files that differ in their recipe alone, in turns, on one thread.

    python -m tests.bench.int4 results/int4/artifacts/smollm2-135m/onnx-matmul-nbits-*

CPU time of one thread is what a machine that others use too changes least; the workflow's own speeds of the same files
(config/int4.yaml) are of two threads on the clock.
"""

import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

ROUNDS, STEPS, PAST = 7, 5, 32


def feeds(session: ort.InferenceSession) -> dict[str, np.ndarray]:
    """One token after PAST others, whose keys and values are zeros."""
    found = {}
    for entry in session.get_inputs():
        if entry.name == "input_ids":
            found[entry.name] = np.full((1, 1), 17, np.int64)
        elif entry.name == "attention_mask":
            found[entry.name] = np.ones((1, PAST + 1), np.int64)
        elif entry.name == "position_ids":
            found[entry.name] = np.full((1, 1), PAST, np.int64)
        else:
            _, heads, _, size = entry.shape
            found[entry.name] = np.zeros((1, heads, PAST, size), np.float32)
    return found


def main(folders: list[str]) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {folder: ort.InferenceSession(str(Path(folder) / "model.onnx"), options) for folder in folders}
    seconds = {folder: [] for folder in folders}
    for _ in range(ROUNDS):
        for folder, session in sessions.items():
            given, start = feeds(session), time.process_time()
            for _ in range(STEPS):
                session.run(None, given)
            seconds[folder].append((time.process_time() - start) / STEPS)
    for folder, values in seconds.items():
        print(f"{Path(folder).name}: {1e3 * np.median(values):.1f} ms of CPU a step")


if __name__ == "__main__":
    main(sys.argv[1:])
