"""An importance matrix: how much each column of a matrix matters, by the mean square of what it is multiplied with.

llama.cpp's ``imatrix`` by torch: the same sums over the inputs of every linear layer, over windows of a calibration
text. A quantizer then spends its error where the inputs are small.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.prepare import calibration, gguf_convert

WINDOW = 512  # llama.cpp's
TOKENS = 32 * WINDOW


@dataclass(frozen=True)
class Importance:
    """A calibration corpus (its JSON as fetched), of which ``TOKENS`` tokens are read."""

    corpus: dict

    def matrix(self, model: Path, threads: int) -> dict[str, np.ndarray]:
        """Mean squared input of each column, float32, by the GGUF name of the matrix."""
        return measure(model, self.corpus["rows"], threads)

    def said(self) -> dict:
        return {"corpus": self.corpus["name"], "sha256": self.corpus["sha256"], "tokens": TOKENS}


def read(calibration_text: Path | None, scored: Path | None) -> Importance:
    """The calibration corpus, checked (``calibration.read``)."""
    return Importance(calibration.read(calibration_text, scored, "a recipe with imatrix"))


@torch.inference_mode()
def measure(model: Path, rows: Iterable[str], threads: int) -> dict[str, np.ndarray]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    local = {"local_files_only": True, "trust_remote_code": False}
    config = gguf_convert.read_config(model)
    arch = gguf_convert.architecture(config, model.name)
    tokenizer = AutoTokenizer.from_pretrained(model, **local)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, **local).eval()
    sums: dict[str, torch.Tensor] = {}
    seen: dict[str, int] = {}

    def hook(name: str):
        def add(module, inputs) -> None:
            values = inputs[0].flatten(0, -2)
            sums[name] = sums.get(name, 0) + values.double().square().sum(0)
            seen[name] = seen.get(name, 0) + len(values)

        return add

    for name, module in gguf_convert.linear_names(network, arch, config):
        # llama.cpp weights no head that is also the embedding
        if name != "token_embd.weight":
            module.register_forward_pre_hook(hook(name))
    ids = tokenizer("\n".join(rows), add_special_tokens=False, return_tensors="pt").input_ids[0, :TOKENS]
    length = min(WINDOW, config.max_position_embeddings)
    if len(ids) < length:
        raise UserError(
            f"the calibration text has {len(ids)} tokens, fewer than one window of {length}: give a longer one"
        )
    for start in range(0, len(ids) - length + 1, length):
        network(ids[None, start : start + length], use_cache=False)
    return {name: (total / seen[name]).float().numpy() for name, total in sums.items()}
