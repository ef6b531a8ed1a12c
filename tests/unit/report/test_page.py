"""The report renders from any study, its links resolve, and no hole of the data shows as nan or None."""

import html
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from docutils import core

from tests import synthetic
from workflow.tradeoff import columns
from workflow.tradeoff.decide.__main__ import main as decide_main
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import write_json
from workflow.tradeoff.report import figures, htmltables
from workflow.tradeoff.report import page as report
from workflow.tradeoff.report.__main__ import main as report_main
from workflow.tradeoff.serve import tables as serving
from workflow.tradeoff.summarize.__main__ import main as summarize_main

ROOT = Path(__file__).parents[3]
CONFIG = {
    "study": "synthetic",
    "corpus": {"name": "wiki", "license": "CC BY-SA 3.0", "source": "local", "path": "a.txt"},
}


def make(folder, **options):
    study = synthetic.write(folder, **options)
    summarize_main(study.flags(folder / "tables"))
    decide_main(
        [
            "--tables",
            str(folder / "tables"),
            "--environment",
            str(study.environment),
            "--output",
            str(folder / "tables"),
        ]
    )
    served = [
        {
            "model": "tiny-a",
            "variant": name,
            "command": f"python {name}/serve.py",
            "readme": f"deploy/{name}/README.md",
            "scenarios": scenarios,
        }
        for name, scenarios in (("onnx-int8-kv", ["s"]), ("torch-bf16", ["t"]), ("torch-fp32", []))
    ]
    write_json(folder / "deploy/deploy.json", served)
    for path in ("deploy/README.md", *(entry["readme"] for entry in served)):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).touch()
    for name in ("tradeoff", "speed", "launch"):
        figures.main([name, "--tables", str(folder / "tables"), "--output", str(folder / f"figures/{name}.svg")])
    report_main(
        [
            "--tables", str(folder / "tables"), "--figures", str(folder / "figures"),
            "--environment", str(study.environment), "--template", str(ROOT / "report/report.md.j2"),
            "--landing", str(ROOT / "report/landing.rst.j2"), str(folder / "landing.rst"),
            "--paper", str(ROOT / "report/paper.md.j2"), str(folder / "paper.md"),
            "--deploy", str(folder / "deploy/deploy.json"), "--config", json.dumps(CONFIG),
            "--serving", str(served_under_load(folder / "serve")),
            "--manifests", *map(str, study.manifests),
            "--commands", "snakemake --cores 1 --configfile config/x.yaml", "--output", str(folder / "report.md"),
        ]
    )  # fmt: skip
    return folder / "report.md"


def served_under_load(folder):
    """Two servers at two rates, the second twice as slow; the file that the report reads."""
    servers = []
    for name, seconds in (("onnx-int8-kv", 0.1), ("torch-fp32", 0.2)):
        one = {"ttft_s": seconds, "itl_s": [0.02], "latency_s": seconds + 0.02, "tokens": 2, "error": None}
        facts = [{"arrival_s": number, **one} for number in range(8)]
        answers = [{"prompt": "Hello?", "same": True, "error": None}]
        rates = [{"rate": rate, "facts": facts} for rate in (1, 2)]
        servers.append({"name": name, "greedy": answers, "rates": rates})
    made = {"model": "tiny-a", "scenario": "balanced", "limits": {"max_ttft_ms": 150}, "plan": {}, "servers": servers}
    write_json(folder / "raw.json", made)
    serving.main(["--raw", str(folder / "raw.json"), "--output", str(folder)])
    return folder / "serving.json"


NAMES = ("torch-fp32", "onnx-fp32", "onnx-int4-kv")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    faults = {
        ("tiny-a", "onnx-int8"): "not_quantized",
        ("tiny-b", "bnb-nf4"): "hung",
        ("tiny-b", "onnx-fp32"): "other_machine",
    }
    return make(tmp_path_factory.mktemp("report"), models=2, faults=faults)


def check_no_holes(text):
    assert not re.search(r"\bnan\b|\bNaN\b|\bNone\b|\bundefined\b", text)


def test_the_answer_comes_first(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# synthetic")
    answer = [line for line in lines[1:10] if re.match(r"\d\. ", line)]
    assert len(answer) == 5 and any("tiny-a/" in line for line in answer)


def test_what_was_served_has_its_section_with_both_servers_and_the_comparison(path):
    section = path.read_text().partition("## Serving")[2].partition("## Memory")[0]
    assert "goodput counts those within `max_ttft_ms` 150." in section
    assert "onnx-int8-kv kept up with every rate that was tried (1, 2 requests a second)" in section
    assert "torch-fp32: 1 of 1 greedy answers are those that were measured offline" in section
    assert "| onnx-int8-kv | torch-fp32 | 1 | time to the first token | 0.5 | 0.5 | 0.5 | lower |" in section


def test_the_html_opens_with_the_same_answer(path):
    page = core.publish_parts(path.with_name("landing.rst").read_text(), writer="html")["body"]
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    answer = [line.partition(" ")[2] for line in path.read_text().splitlines()[1:10] if re.match(r"\d\. ", line)]
    assert len(answer) == 5 and all(line in text for line in answer)


def test_the_answer_ends_in_the_command_that_serves_it(path):
    for text in (path.read_text().partition("## The table behind it")[0], path.with_name("landing.rst").read_text()):
        assert "python onnx-int8-kv/serve.py" in text and "torch-bf16/serve.py" not in text
    page = core.publish_parts(path.with_name("landing.rst").read_text(), writer="html")["body"]
    assert '<pre class="literal-block">\npython onnx-int8-kv/serve.py\n</pre>' in page
    assert "[deploy/README.md](deploy/README.md)" in path.read_text()


def test_the_peak_is_the_higher_one(path):
    frame = pd.read_csv(path.parent / "tables/summary.csv")
    shown = report.main_table(frame, {"scenarios": []})["whole_peak_mb"]
    ok = frame["status"] == "ok"
    assert (shown[ok] >= frame.loc[ok, "peak_mb"]).all() and (shown[ok] >= frame.loc[ok, "load_peak_mb"]).all()


def test_of_more_models_each_has_a_section(tmp_path, path):
    text = make(tmp_path, models=3, variants=NAMES).read_text()
    part = text[text.index("## The table behind it") : text.index("## The trade-off")]
    models = ["tiny-a", "tiny-b", "medium-c"]
    assert re.findall(r"^### (.*)$", part, flags=re.M) == models
    assert f"for each model: {', '.join(f'[{model}](#{model})' for model in models)}." in part
    assert (
        part.count("| scenario | best |")
        == part.count("| variant | what it is |")
        == text.count("| scenario | best |")
        == 3
    )
    assert report.anchor("tinyllama-1.1b") == "#tinyllama-11b"
    assert not report.sections(pd.read_csv(path.parent / "tables/summary.csv"))


def test_a_scenario_table_for_each_model(path):
    text = path.read_text()
    part = text[text.index("### Scenarios") : text.index("### Precision selection")]
    for model in ("tiny-a", "tiny-b"):
        assert f"**{model}**" in part
    assert part.count("| scenario | best | it gives | runner-up | margin | refused |") == 2
    assert "- **balanced**: for everyday use: best product of speed, memory and accuracy; limits: perplexity at" in part
    assert "planted" not in part  # the reason of a failure stands once, with its cell


def test_loads_have_a_section_only_where_several_were_measured(path, tmp_path):
    assert "## Under load" not in path.read_text()
    text = make(tmp_path, loads=synthetic.LOADS, faults={("tiny-a", "bnb-nf4"): "out_of_memory_16"}).read_text()
    part = text[text.index("## Under load") : text.index("## Memory")]
    check_no_holes(part)
    assert "- **tiny-a, over the batch, 1 to 16 (32 prompt tokens, 32 new tokens)**: " in part
    assert "onnx-int8-kv is ahead of torch-fp32 up to " in part
    assert "(1 sequence, 32 new tokens)**: no two of the 9 variants with a curve change places." in part
    assert "- **tiny-a/bnb-nf4** at 16x32+32: out of memory: planted out_of_memory" in part
    assert part.count("\n| tiny-a |") == 9 * 4 and "| compute-bound |" in part


def test_the_main_table_names_what_each_cell_is_best_for(path):
    text = path.read_text()
    line = next(line for line in text.splitlines() if line.startswith("| tiny-a | onnx-int8-kv |"))
    assert "speed-critical" in line
    assert "| tokens/s [95%] |" in text and "| weights + cache MB |" in text


def test_the_main_table_says_what_runs_and_what_nobody_serves(path):
    lines = path.read_text().splitlines()
    cell = {name: next(line for line in lines if line.startswith(f"| tiny-a | {name} |")) for name in NAMES}
    assert (
        "ONNX Runtime, 4-bit weights in blocks of 32, some of 8 bits |" in cell["onnx-int4-kv"]
        and "for comparison" not in cell["torch-fp32"]
    )
    assert "for comparison only" in cell["onnx-fp32"]


def test_full_figures_stand_once(path):
    text = path.read_text()
    advice = text[: text.index("## The table behind it")] + text[text.index("### Scenarios") : text.index("## Speed")]
    assert "of weights and cache" not in advice
    assert max(len(line) for line in advice.splitlines()) < 500


def test_launch_overhead_is_a_section_only_where_graphs_ran(path, tmp_path):
    text = path.read_text()
    assert "No variant ran both eagerly and as a CUDA graph here" in text and "graph tokens/s" not in text
    gpu = {"device": "cuda", "gpu": {"name": "Test GPU"}, "digest": "f" * 64}
    text = make(tmp_path / "gpu", variants=synthetic.GPU_VARIANTS, environment=gpu).read_text()
    check_no_holes(text)
    assert "tiny-a/bnb-int8-t0, eager, is slower than torch-fp16" in text and "graph over eager × [95%]" in text
    faults = {("tiny-a", variant): "unsupported" for variant in synthetic.GPU_VARIANTS if variant.endswith("-graph")}
    text = make(tmp_path / "bad", variants=synthetic.GPU_VARIANTS, environment=gpu, faults=faults).read_text()
    check_no_holes(text)
    assert "bnb-nf4-graph: unsupported" in text


def test_sections_in_the_order_of_reading(path):
    heads = re.findall(r"^## (.+)$", path.read_text(), flags=re.M)
    assert heads == [
        "The table behind it", "The trade-off", "Speed", "Serving", "Memory", "Accuracy",
        "The paper's tables, from this run's cells",
        "Proof of what ran", "How to read these numbers", "Environment", "How to reproduce",
        "Appendix: what the workflow itself took",
    ]  # fmt: skip


def test_nothing_leaks_and_failures_have_their_reason(path):
    text = path.read_text()
    check_no_holes(text)
    assert "only 10% of the linear weights are 8-bit" in text and "hung: planted hung" in text
    assert "machine.cpu: Other CPU" in text


def test_links_resolve(path):
    links = re.findall(r"\]\(([^)]+)\)", path.read_text())
    assert "figures/tradeoff.svg" in links and "tables/summary.csv" in links
    for link in links:
        assert (path.parent / link).is_file(), link


def test_corpus_commands_and_digests_are_named(path):
    text = path.read_text()
    assert "CC BY-SA 3.0" in text and "snakemake --cores 1 --configfile config/x.yaml" in text
    assert synthetic.ENVIRONMENT["git"]["commit"] in text and synthetic.digest("tiny-a") in text


def test_every_column_is_explained(path):
    text = path.read_text()
    for name in columns.COLUMNS:
        if not name.endswith(("_low", "_high")):
            assert f"- `{name}`: " in text


def test_tables_are_whole(path):
    widths = {}
    for line in path.read_text().splitlines():
        if line.startswith("| "):
            cells = len(re.split(r"(?<!\\)\|", line))
            assert widths.setdefault("now", cells) == cells, line
        else:
            widths.clear()


@pytest.mark.parametrize("fault", ["random", "out_of_memory"])
def test_a_study_without_accuracy_or_without_any_figure_renders(tmp_path, fault):
    faults = {("tiny-a", variant): fault for variant in synthetic.CPU_VARIANTS}
    check_no_holes(make(tmp_path, faults=faults).read_text())


def test_a_diagnosis_is_told_where_one_was_needed(tmp_path):
    quiet, loud = tmp_path / "quiet.json", tmp_path / "loud.json"
    quiet.write_text(json.dumps({"model": "a", "variant": "torch-fp32", "status": "not_needed"}))
    hypotheses = [{"name": "unshifted labels", "detail": "undone, 3.1 nats"}, {"name": "missing BOS", "detail": "no"}]
    found = {"model": "b", "variant": "torch-fp32", "status": "found", "fault": "unshifted labels"}
    loud.write_text(json.dumps({**found, "recorded_nll": 10.6, "hypotheses": hypotheses}))
    lines = report.diagnoses([quiet, loud])
    assert [line["cell"] for line in lines] == ["b/torch-fp32"]
    assert lines[0]["cause"] == "unshifted labels" and lines[0]["evidence"] == "undone, 3.1 nats"


def test_missing_tables_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"run summarize and decide first"):
        report.tables(tmp_path)


def test_html_tables_are_self_contained(path):
    output = path.parent / "tables/html"
    htmltables.main(["--tables", str(path.parent / "tables"), "--output", str(output)])
    for name in ("summary", "pareto", "scenarios"):
        text = (output / f"{name}.html").read_text()
        assert "<table>" in text and "aria-sort" in text and not re.search(r"(src|href)=\"(?!data:)", text)
        assert "http" not in text
        check_no_holes(re.sub(r"<script>.*?</script>", "", text, flags=re.S))
    with pytest.raises(UserError, match="does not exist"):
        htmltables.main(["nothing", "--tables", str(path.parent / "tables"), "--output", str(output)])
