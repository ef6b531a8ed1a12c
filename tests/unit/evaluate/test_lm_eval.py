"""``word`` against lm-evaluation-harness itself, on one model and text. Needs lm-eval 0.4.13; skipped without."""

import shutil

import pytest
from transformers import AutoTokenizer

from tests import tiny
from workflow.tradeoff import engines
from workflow.tradeoff.evaluate import cell as evaluate
from workflow.tradeoff.evaluate import conventions, prose, scoring
from workflow.tradeoff.variants import VARIANTS

pytest.importorskip("lm_eval")
from tests.bench.lm_eval_word import Harness

HEADS = (" = The bridge = \n", " = The school = \n")
LINES = [f" {line} \n".replace(",", " ,").replace(";", " ;") for line in tiny.TEXT.splitlines()]
ROWS = [
    "",
    HEADS[0],
    "",
    *LINES,
    "",
    "",
    HEADS[1],
    "",
    *LINES[:3],
    ' ( A ) 1 @,@ 000 @-@ year " old " N \'s wall . \n',
    "",
]
DOCUMENTS = [1, ROWS.index(HEADS[1])]


def with_bos(source, folder):
    """The same model, with a tokenizer that begins each text with its BOS."""
    from tokenizers.processors import TemplateProcessing

    shutil.copytree(source, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("kind", "adds_bos"), [("gpt2", False), ("llama", False), ("llama", True)])
@pytest.mark.parametrize("length", [64, 512])
def test_word_perplexity_is_the_harness_s(tmp_path, kind, adds_bos, length):
    folder = tiny.build(tmp_path / "plain", kind)
    if adds_bos:
        folder = with_bos(folder, tmp_path / "bos")
    vocab = conventions.vocabulary(AutoTokenizer.from_pretrained(folder), "auto")
    assert vocab.decision == ("always" if adds_bos else "never")
    plan = conventions.plan(f"word-{length}", ROWS, DOCUMENTS, vocab, 512)
    engine = engines.load(VARIANTS["torch-fp32"], folder, folder, "cpu", 1)
    ours = evaluate.figures(plan, scoring.score(engine, plan, 1024))["word_perplexity"]
    pages = ["\n".join(page) for page in prose.pages(ROWS, DOCUMENTS)]
    (tmp_path / "task").mkdir()
    theirs, _ = Harness(folder, pages, tmp_path / "task", length, 4, "cpu").run()
    # both in float32, batched otherwise: exp of a sum over some hundred tokens, each rounded by 1e-6
    assert ours == pytest.approx(theirs, rel=1e-3)
