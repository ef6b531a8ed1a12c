"""The study on trial: every statement is there, rounding never convicts, and what is wrong is found by arithmetic."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from workflow.tradeoff.claims import claimfile, consistency, plausibility
from workflow.tradeoff.claims import trial as claims
from workflow.tradeoff.claims.__main__ import main as claims_main
from workflow.tradeoff.claims.claimfile import Interval
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.report import claimed, claims_figure
from workflow.tradeoff.report.page import render

ROOT = Path(__file__).resolve().parents[3]
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


# --- verdicts


def test_verdicts(rows):
    assert rows["19.speedup"]["verdict"] == "does not stand"
    assert rows["23.speedup"]["verdict"] == "stands"
    assert rows["22.speed"]["verdict"] == "not checked"  # plausible, but nobody has measured it again
    assert rows["366.fp16"]["verdict"] == "not checked"  # said twice, and no truer for it
    assert rows["135.utilization"]["verdict"] == "stands"
    assert all(row["reason"] for row in rows.values())


def test_command_page_and_figure(tmp_path, study):
    output = tmp_path / "claims.csv"
    claims_main(["--claims", str(CLAIMS), "--reference", str(REFERENCE), "--output", str(output)])
    written = claimed.read(output)
    assert len(written) == len(study[1])
    assert list(written[0]) == list(claims.COLUMNS)
    values = {"claims": written, "claim_counts": claimed.counts(written), "config": {"study": "tiny"}}
    text = render(ROOT / "report/paper.md.j2", values)
    assert f"Of {len(written)} statements of the paper" in text
    everything = text.partition("## Every statement")[2]
    assert sum(line.startswith("| ") and line[2].isdigit() for line in everything.splitlines()) == len(written)
    assert "5.58 / 28.42 = 0.1963" in text
    for table in text.split("\n\n"):  # a bar in a quote must not open a column
        widths = {len(line.replace("\\|", "").split("|")) for line in table.splitlines() if line.startswith("|")}
        assert len(widths) <= 1
    claims_figure.main(["--claims", str(output), "--output", str(tmp_path / "claims.svg")])
    assert "does not stand" in (tmp_path / "claims.svg").read_text()
