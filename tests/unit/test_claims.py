"""The study on trial: every statement is there, rounding never convicts, and what is wrong is found by arithmetic."""

import csv
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from workflow.tradeoff import claimfile, claims, claims_figure, consistency, measured, plausibility, replication
from workflow.tradeoff.claimfile import Interval
from workflow.tradeoff.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CLAIMS, REFERENCE = ROOT / "config/claims.yaml", ROOT / "config/reference.yaml"
DOCUMENT = ROOT.parent / "shared/study/tradeoff-analysis.md"
needs_document = pytest.mark.skipif(not DOCUMENT.exists(), reason="the study's document is not beside the repository")


@pytest.fixture(scope="module")
def study():
    data, found = claimfile.load(CLAIMS)
    return data, found, claimfile.reference(REFERENCE, found)


@pytest.fixture(scope="module")
def rows(study):
    return {row["id"]: row for row in claims.judge(study[1], study[2], None, None)}


# --- the statements


@needs_document
def test_every_quote_stands_on_its_line(study):
    lines = DOCUMENT.read_text().splitlines()
    wrong = [claim.id for claim in study[1].values() if claim.quote not in lines[claim.line - 1]]
    assert not wrong
    assert all(claim.id.split(".")[0] == str(claim.line) for claim in study[1].values())


def exempt_lines(data):
    for entry in data["exempt"]:
        first, _, last = entry["lines"].partition("-")
        yield from range(int(first), int(last or first) + 1)


def is_furniture(lines, number):
    """Blank, a heading, a fence, the rule of a table, or a table's header."""
    text = lines[number - 1].strip()
    following = lines[number] if number < len(lines) else ""
    return not text or text.startswith(("#", "```")) or set(text) <= set("|-: ") or (
        text.startswith("|") and bool(following) and set(following.strip()) <= set("|-: ")
    )  # fmt: skip


@needs_document
def test_every_line_is_claimed_or_exempt(study):
    data, found, _ = study
    lines = DOCUMENT.read_text().splitlines()
    covered = {claim.line for claim in found.values()} | set(exempt_lines(data))
    assert [n for n in range(1, len(lines) + 1) if n not in covered and not is_furniture(lines, n)] == []


@needs_document
def test_every_number_of_the_document_is_claimed(study):
    data, found, _ = study
    exempt = set(exempt_lines(data))
    missing = []
    for number, line in enumerate(DOCUMENT.read_text().splitlines(), start=1):
        if number in exempt:
            continue
        for name in data["names"]:
            line = re.sub(name["pattern"], " ", line)
        there = Counter(claimfile.NUMBER.findall(line.replace("3/5", "3 of five")))
        # a range is one quote for two numbers, and a run of equal cells one quote for each
        quoted = Counter(text for claim in found.values() if claim.line == number for text in claim.printed)
        missing += [f"line {number}: {text}" for text in there - quoted]
    assert not missing


@needs_document
def test_every_table_cell_is_claimed(study):
    _, found, _ = study
    labels = {"**Small (<1B)**", "**Medium (1-6B)**", "**Large (>6B)**", "General", "Memory-Constrained",
              "Speed-Critical", "Balanced", "Any", "FP16", "INT8", "INT4"}  # fmt: skip
    missing = []
    lines = DOCUMENT.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.startswith("|") or is_furniture(lines, number):
            continue
        quotes = " ".join(claim.quote for claim in found.values() if claim.line == number)
        for cell in [cell.strip() for cell in line.strip("| ").split("|")][1:]:
            plain = re.sub(r"\*\*| \(.*\)", "", cell)
            if cell not in labels and plain not in quotes:
                missing.append(f"line {number}: {cell}")
    assert not missing


def test_broken_files_are_refused_in_one_line(tmp_path):
    text = CLAIMS.read_text()
    for old, new, words in (
        ("id: 18.speed,", "id: 19.speed,", "used twice"),
        ("variant: bnb-int8", "variant: bnb-int9", "unknown variant"),
        ("value: 28.42", "value: 28.43", "does not stand in the quote"),
        ("{ratio: [19.speed, 18.speed]}", "{ratio: [19.speed, 18.spead]}", "is no claim"),
        ("kind: figure", "kind: guess", "correct it as"),
    ):
        assert old in text
        (tmp_path / "claims.yaml").write_text(text.replace(old, new, 1))
        with pytest.raises(UserError, match=words) as error:
            for claim in claimfile.load(tmp_path / "claims.yaml")[1].values():
                assert claim.printed is not None
        assert "\n" not in str(error.value)


# --- intervals


def test_rounding():
    assert claimfile.rounding("0.65") == Interval(pytest.approx(0.645), pytest.approx(0.655))
    assert claimfile.rounding("59.93") == Interval(pytest.approx(59.925), pytest.approx(59.935))
    assert claimfile.rounding("41,021.00") == Interval(pytest.approx(41020.995), pytest.approx(41021.005))
    assert claimfile.rounding("12") == Interval(11.5, 12.5)
    assert Interval(0.1 + 0.2, 1).meets(Interval(0, 0.3))
    assert not Interval(0.31, 1).meets(Interval(0, 0.3))


# --- consistency


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("19.speedup", "inconsistent", "5.58 / 28.42 = 0.1963"),  # printed 0.52
        ("23.speedup", "consistent", "59.93 / 91.81 = 0.6528"),
        ("23.reduction", "consistent", "100 × (1 - 0.31 / 0.35) = 11.43"),  # 12 is within the rounding of its parts
        ("30.reduction", "consistent", "= 49.28"),
        ("21.speedup", "inconsistent", "different models: Llama-3.2-1B and TinyLlama-1.1B"),
        ("31.speedup", "consistent", "98.3 / 14.4 = 6.826"),
        ("59.perplexity", "consistent", "exp(4.41) = 82.27"),
        ("61.perplexity", "consistent", "exp(10.62)"),
        ("73.increase", "consistent", "1,354.57"),
        ("94.range", "consistent", "1.12"),
        ("105.drop", "inconsistent", "N/A"),
        ("123.fp16", "inconsistent", "FP32"),
        ("154.consistent", "inconsistent", "50, 12"),
        ("163.accuracy", "inconsistent", "100 - 3.30 = 96.7"),
        ("163.memory", "consistent", "0.35 / 0.31"),
        ("301.int8", "inconsistent", "the least is 12"),
        ("302.int8", "inconsistent", "1.12%"),
        ("316.no-degradation", "inconsistent", "1.12%"),
        ("358.better", "inconsistent", "24.4 > 59.93 is false"),
        ("360.penalty", "consistent", "= 34.72"),
        ("370.choice", "inconsistent", "98.3 > 157.11 is false"),
        ("119.speedup", "inconsistent", "rests on 19.speedup"),
        ("314.memory", "not_checkable", "no figure"),
    ],
)
def test_consistency(rows, name, status, words):
    assert rows[name]["consistency"] == status
    assert words in rows[name]["consistency_arithmetic"]


def test_a_corrected_study_is_not_convicted(study):
    """The verdicts come from the numbers: with 0.20 printed for 5.58 / 28.42 nothing is left to object."""
    _, found, known = study
    mended = {**found, "19.speedup": replace(found["19.speedup"], quote="0.20×", value=0.20)}
    assert consistency.judge(mended, known)["19.speedup"].status == "consistent"
    broken = {**found, "23.speedup": replace(found["23.speedup"], quote="0.66×", value=0.66)}
    assert consistency.judge(broken, known)["23.speedup"].status == "inconsistent"


def test_a_range_of_parts_that_moved_is_caught(study):
    _, found, known = study
    broken = {**found, "94.range": replace(found["94.range"], quote="1.12-3.40%", value=(1.12, 3.4))}
    assert consistency.judge(broken, known)["94.range"].status == "inconsistent"


# --- plausibility


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("18.memory", "implausible", "32-bit weights"),
        ("22.memory", "implausible", "32-bit weights"),
        ("20.memory", "plausible", "2.200 GB"),
        ("21.memory", "implausible", "below the weights"),
        ("22.speed", "plausible", "14.9 GB/s"),
        ("31.speed", "implausible", "onnx-int8-kv"),
        ("31.speedup", "implausible", "unlike work"),
        ("61.perplexity", "implausible", "98 % of a uniform guess, ln 50,257 = 10.825"),
        ("104.perplexity", "implausible", "94 % of a uniform guess, ln 32,000 = 10.373"),
        ("59.perplexity", "plausible", "41 %"),
        ("73.degradation", "implausible", "rests on 62.perplexity"),
        ("135.utilization", "plausible", "22 %"),
        ("361.consistent", "implausible", "23 %"),
        ("59.tokens", "plausible", "6,503"),
    ],
)
def test_plausibility(rows, name, status, words):
    assert rows[name]["plausibility"] == status
    assert words in rows[name]["plausibility_arithmetic"]


def test_other_models_size_is_recognized(rows):
    assert "which is the size of TinyLlama-1.1B (0.550 GB)" in rows["21.memory"]["plausibility_arithmetic"]


def test_roofline_refutes(study):
    """320 GB/s over 2.2 GB of weights is 155 tokens/s at most for TinyLlama in FP16."""
    _, found, known = study
    claim = replace(found["20.speed"], quote="160.0", value=160.0)
    assert plausibility.speed(claim, known).status == "implausible"
    assert plausibility.speed(replace(claim, quote="150.0", value=150.0), known).status == "plausible"


def test_reference_sizes_follow_from_the_architectures(study):
    for name, model in study[2]["models"].items():
        shape = model["architecture"]
        width, layers, embedding = shape["width"], shape["layers"], shape["vocabulary"] * shape["width"]
        if shape["family"] == "gpt2":
            linear = layers * 12 * width**2
            rest = shape["positions"] * width + layers * 13 * width + 2 * width
            assert model["positions"] == shape["positions"] * width
            cache = 2 * layers * width * 2
        else:
            kv = width * shape["kv_heads"] // shape["heads"]
            linear = layers * (2 * width**2 + 2 * width * kv + 3 * width * shape["mlp"])
            rest = (2 * layers + 1) * width
            cache = 2 * layers * kv * 2
        heads = 1 if model["tied"] else 2
        assert (model["linear"], model["embedding"]) == (linear, embedding), name
        assert model["parameters"] == linear + heads * embedding + rest, name
        assert (model["kv_bytes_per_token"], model["vocabulary"]) == (cache, shape["vocabulary"]), name


# --- replication

DEFAULTS = {"study": "s", "status": "ok", "accuracy_status": "ok", "reason": "", "convention": "windows-512"}


def cell(model, variant, baseline="torch-fp16", device="cuda", **values):
    row = {**DEFAULTS, "model": model, "variant": variant, "baseline": baseline, "device": device}
    for key, value in values.items():
        if isinstance(value, tuple):
            middle, low, high = value
            stem, suffix = (key[:-4], "_pct") if key.endswith("_pct") else (key, "")
            row |= {key: str(middle), f"{stem}_low{suffix}": str(low), f"{stem}_high{suffix}": str(high)}
        else:
            row[key] = str(value)
    return row


def judged(study, tmp_path, cells, environment=None, conventions=None):
    for name, table in (("summary", cells), ("conventions", conventions)):
        if table is not None:
            columns = list(dict.fromkeys(key for row in table for key in row))
            with open(tmp_path / f"{name}.csv", "w", newline="") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(table)
    read = measured.read(tmp_path / "summary.csv", study[2])
    return replication.judge(study[1], study[2], read, environment)


T4 = {"gpu": {"name": "Tesla T4"}, "machine": {"cpu": "any"}}
ON_T4 = [
    cell("distilgpt2", "torch-fp16", weight_mb=164, peak_mb=172, study_tokens_per_s=93.0, study_s_sd=0.002, speedup=1),
    cell("distilgpt2", "bnb-int8", weight_mb=121, peak_mb=140, study_tokens_per_s=31.0, study_s_sd=0.002,
         speedup=(0.33, 0.32, 0.34), degradation_pct=(1.0, 0.8, 1.2)),
]  # fmt: skip


def test_replication_on_the_studys_card(study, tmp_path):
    found = judged(study, tmp_path, ON_T4, T4)
    assert found["22.speed"].status == "reproduced"
    assert found["23.speed"].status == "not reproduced"
    assert found["122.int8"] == found["23.speed"]
    assert found["23.speedup"].status == "not reproduced"
    assert "0.32 to 0.34 here" in found["23.speedup"].arithmetic
    assert found["72.degradation"].status == "reproduced"
    assert found["122.slower"].status == "reproduced"
    assert found["22.memory"].status == "not reproduced"
    assert (found["19.speed"].status, found["19.speed"].arithmetic[:5]) == ("not comparable", "model")
    assert found["21.speedup"].status == "not comparable"
    assert found["94.range"].status == "not comparable"  # DialoGPT-small is part of it


def test_another_device_never_convicts_a_speed(study, tmp_path):
    found = judged(study, tmp_path, ON_T4, {"gpu": {"name": "NVIDIA H100 80GB HBM3"}})
    assert found["22.speed"].status == "not comparable"
    assert found["22.speed"].arithmetic.startswith("device")
    assert found["23.speedup"].status == "reproduced"  # slower there too: the direction holds
    faster = [ON_T4[0], {**ON_T4[1], "speedup": "1.5", "speedup_low": "1.4", "speedup_high": "1.6"}]
    found = judged(study, tmp_path, faster, {"gpu": {"name": "NVIDIA H100 80GB HBM3"}})
    assert found["23.speedup"].status == "not comparable"
    assert found["122.slower"].status == "not comparable"
    assert found["72.degradation"].status == "reproduced"  # accuracy does not depend on the card


def test_ratio_over_another_baseline_is_rebuilt(study, tmp_path):
    """Our baseline is torch-fp32, the study's ONNX rows divide by onnx-fp32: two of our speedups give the ratio."""
    cpu = {"baseline": "torch-fp32", "device": "cpu"}
    cells = [
        cell("distilgpt2", "onnx-fp32", **cpu, weight_mb=482, speedup=(0.5, 0.49, 0.51)),
        cell("distilgpt2", "onnx-int8", **cpu, weight_mb=240, speedup=(0.85, 0.84, 0.86)),
    ]
    found = judged(study, tmp_path, cells, {"machine": {}})
    assert found["30.speedup"].status == "reproduced"
    assert found["30.reduction"].status == "reproduced"
    assert found["23.speedup"].status == "not comparable"
    found = judged(study, tmp_path, cells[1:], {"machine": {}})
    assert found["30.speedup"].status == "not comparable"
    assert "baseline" in found["30.speedup"].arithmetic


def test_perplexity_needs_the_studys_convention(study, tmp_path):
    cells = [cell("distilbert/distilgpt2", "torch-fp16", perplexity=50)]
    found = judged(study, tmp_path, cells, T4)
    assert found["59.perplexity"].arithmetic.startswith("protocol")
    studied = [{"model": "distilbert/distilgpt2", "variant": "torch-fp16", "convention": "study",
                "perplexity": "85.1", "paper_perplexity": "82.4"}]  # fmt: skip
    found = judged(study, tmp_path, cells, {}, studied)
    assert found["59.perplexity"].status == "reproduced"
    assert found["59.loss"].status == "reproduced"
    assert found["106.perplexity"].status == "reproduced"


def test_a_failed_cell_says_why(study, tmp_path):
    found = judged(study, tmp_path, [{**ON_T4[1], "status": "not_quantized", "reason": "no layer was quantized"}], T4)
    assert "no layer was quantized" in found["23.speed"].arithmetic


# --- verdicts


def test_verdicts(rows):
    assert rows["19.speedup"]["verdict"] == "does not stand"
    assert rows["23.speedup"]["verdict"] == "stands"
    assert rows["22.speed"]["verdict"] == "not checked"  # plausible, but nobody has measured it again
    assert rows["366.fp16"]["verdict"] == "not checked"  # said twice, and no truer for it
    assert rows["135.utilization"]["verdict"] == "stands"
    assert all(row["reason"] for row in rows.values())


def test_command_section_and_figure(tmp_path, study):
    output = tmp_path / "claims.csv"
    claims.main(["--claims", str(CLAIMS), "--reference", str(REFERENCE), "--output", str(output)])
    written = claims.read(output)
    assert len(written) == len(study[1])
    assert list(written[0]) == list(claims.COLUMNS)
    text = claims.section(written)
    assert "5.58 / 28.42 = 0.1963" in text
    for table in text.split("\n\n"):  # a bar in a quote must not open a column
        widths = {len(line.replace("\\|", "").split("|")) for line in table.splitlines() if line.startswith("|")}
        assert len(widths) <= 1
    claims_figure.main(["--claims", str(output), "--output", str(tmp_path / "claims.svg")])
    assert "does not stand" in (tmp_path / "claims.svg").read_text()
