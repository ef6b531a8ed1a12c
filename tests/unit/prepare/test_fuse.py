"""The fused decoder in float32 on ONNX Runtime's CPU provider, against transformers."""

import pytest
import torch

from tests import tiny
from workflow.tradeoff import files
from workflow.tradeoff.engines import hf, onnx_shared
from workflow.tradeoff.engines.onnx_graph import graph_proof
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.prepare import fuse
from workflow.tradeoff.variants import VARIANTS

PROMPT = torch.tensor([list(b"The bridge over the river")])
NEW = 24


@pytest.fixture(scope="module", params=tiny.KINDS)
def model(request, tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("model") / "model", request.param, trained=True)


@pytest.fixture(scope="module")
def engine(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fused")
    fuse.fuse(model, folder / "model.onnx", torch.float32)
    return onnx_shared.load(VARIANTS["onnx-fp16-kv"], folder, model, "cpu", 1)


def test_the_same_tokens_and_scores_as_transformers(model, engine):
    eager = hf.load(VARIANTS["torch-fp32"], model, model, "cpu", 1)
    ids = torch.cat([PROMPT, PROMPT.flip(1)])
    # float32 sums in another order, and ONNX Runtime's own approximation of GELU and SiLU
    torch.testing.assert_close(engine.score(ids, 3), eager.score(ids, 3), atol=1e-3, rtol=1e-3)
    assert engine.generate(PROMPT, NEW).tolist() == eager.generate(PROMPT, NEW).tolist()


def test_a_cache_that_grows_keeps_what_it_holds(engine):
    expected = engine.generate(PROMPT, NEW)[0, PROMPT.shape[1] :].tolist()
    engine.capacity, engine.cache = 0, {}
    engine.reserve(4)
    engine.capacity = 30  # as if it were full at 30 tokens; the buffers are longer
    got = [engine.prefill(PROMPT)]
    for _ in range(3):
        got.append(engine.decode(got[-1]))
    assert [int(token) for token in got] == expected[:4]
    foreign = torch.tensor([[expected[3]]])
    assert int(engine.decode(foreign)) == expected[4]


def test_proof_says_what_ran(engine):
    proof = engine.proof()
    assert proof["cache"] and proof["heavy_elsewhere"] == {} and proof["launch"] == {"cuda_graph": False}
    assert proof["nodes"]["GroupQueryAttention"] == 2


def test_tied_head_is_stored_once_and_tables_are_not_read(tmp_path):
    for kind in ("llama", "llama-untied"):
        model = tiny.build(tmp_path / kind, kind)
        fuse.fuse(model, tmp_path / f"{kind}.onnx")
    tied, untied = (graph_proof(tmp_path / f"{kind}.onnx", 16) for kind in ("llama", "llama-untied"))
    embedding = 320 * 64 * 2
    assert untied["weight_bytes"]["float16"] - tied["weight_bytes"]["float16"] == embedding
    assert untied["unread_bytes"] - tied["unread_bytes"] == embedding
    assert tied["linear_weights"] == untied["linear_weights"] and tied["quantized_fraction"] == 1.0


def test_the_stage_writes_a_manifest(model, tmp_path):
    files.write_manifest(model, source={"source": "test"})
    fuse.main(["--model-folder", str(model), "--output", str(tmp_path / "fp16-kv")])
    manifest = files.read_manifest(tmp_path / "fp16-kv")
    assert set(manifest["files"]) == {"model.onnx", "model.onnx.data"}


def test_another_architecture_is_refused_as_unsupported(tmp_path):
    from transformers import GPTNeoXConfig

    GPTNeoXConfig().save_pretrained(tmp_path)
    files.write_manifest(tmp_path, source={"source": "test"})
    with pytest.raises(CellFailure, match="unsupported: this builder knows gpt2 and llama, not gpt_neox"):
        fuse.main(["--model-folder", str(tmp_path), "--output", str(tmp_path / "out")])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_card_the_replayed_step_gives_its_own_best_tokens(model, tmp_path):
    fuse.fuse(model, tmp_path / "model.onnx")
    engine = onnx_shared.load(VARIANTS["onnx-fp16-kv"], tmp_path, model, "cuda", 1)
    ids = engine.generate(PROMPT, NEW)
    assert engine.proof()["launch"]["cuda_graph"]
    scores = engine.score(ids[:, :-1].cpu(), PROMPT.shape[1] - 1)[0].float()
    chosen = scores.gather(1, ids[0, PROMPT.shape[1] :, None])[:, 0]
    assert (scores.amax(-1) - chosen).max() < 0.05
