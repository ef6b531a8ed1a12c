"""Every figure at four models, with faults and without data: labelled, parsed as XML, the same bytes twice."""

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from matplotlib.markers import CARETLEFT
from matplotlib.text import Text

from tests import synthetic
from workflow.tradeoff.decide.__main__ import main as decide_main
from workflow.tradeoff.report import figures, figures_tradeoff, style
from workflow.tradeoff.report.figures_growth import spread
from workflow.tradeoff.summarize.__main__ import main as summarize_main
from workflow.tradeoff.variants import VARIANTS
from workflow.tradeoff.words import brief

FAULTS = {
    ("tiny-a", "bnb-int8"): "unsupported",
    ("tiny-b", "onnx-int8"): "not_quantized",
    ("medium-c", "onnx-int4-kv"): "garbage",
    ("medium-d", "bnb-nf4"): "other_machine",
}
ONLY_FAILURES = {("tiny-a", variant): "out_of_memory" for variant in synthetic.CPU_VARIANTS}


def tables(folder, **options):
    study = synthetic.write(folder / "study", **options)
    summarize_main(study.flags(folder / "tables"))
    decide_main(["--tables", str(folder / "tables"), "--output", str(folder / "tables")])
    return folder / "tables"


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return tables(tmp_path_factory.mktemp("four"), models=4, faults=FAULTS)


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    return tables(tmp_path_factory.mktemp("failed"), faults=ONLY_FAILURES)


def words(path):
    return "\n".join("".join(node.itertext()) for node in ET.parse(path).iter("{http://www.w3.org/2000/svg}text"))


@pytest.mark.parametrize("name", sorted(set(figures.FIGURES) - {"launch", "loads"}))
def test_figure_is_labelled_and_deterministic(four, tmp_path, name):
    for output in (tmp_path / "one.svg", tmp_path / "two.svg"):
        figures.main([name, "--tables", str(four), "--output", str(output)])
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    text = words(tmp_path / "one.svg")
    for model in list(synthetic.MODELS):
        assert model in text
    assert "onnx-int8-kv" in text
    assert "[" in text or "perplexity" in text  # a unit, or the one figure that has none
    assert "nan" not in text and "None" not in text


@pytest.mark.parametrize("name", sorted(figures.FIGURES))
def test_a_study_without_figures_still_draws(failed, tmp_path, name):
    figures.main([name, "--tables", str(failed), "--output", str(tmp_path / "figure.svg")])
    text = words(tmp_path / "figure.svg")
    assert text


def test_loads_are_drawn_over_the_batch_and_the_prompt(tmp_path):
    names = ("torch-fp32", "bnb-int8", "onnx-int8-kv")
    folder = tables(tmp_path, variants=names, faults={("tiny-a", "bnb-int8"): "unsupported"}, loads=synthetic.LOADS)
    panels = figures.loads(folder).axes[:2]
    titles = [axis.get_title(loc="left") for axis in panels]
    assert titles == ["tiny-a: over the batch", "tiny-a: over the prompt"]
    for axis, places in zip(panels, ([1, 4, 16], [32, 1024]), strict=True):
        assert axis.get_xticks().tolist() == places
        drawn = [line for line in axis.lines if line.get_linestyle() != "None"]
        assert [line.get_xdata().tolist() for line in drawn] == [places] * 2


def test_launch_overhead_is_drawn_where_graphs_ran(four, tmp_path):
    figures.main(["launch", "--tables", str(four), "--output", str(tmp_path / "none.svg")])
    assert "No variant was run both eagerly and as a CUDA graph" in words(tmp_path / "none.svg")
    gpu = {"device": "cuda", "digest": "f" * 64}
    faults = {("tiny-b", "bnb-nf4-graph"): "unsupported"}
    ran = tables(tmp_path, models=4, variants=synthetic.GPU_VARIANTS, environment=gpu, faults=faults)
    for output in (tmp_path / "one.svg", tmp_path / "two.svg"):
        figures.main(["launch", "--tables", str(ran), "--output", str(output)])
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    text = words(tmp_path / "one.svg")
    assert all(model in text for model in synthetic.MODELS) and "1,400 kernels" in text and "[tokens/s]" in text
    assert "graph: no figure" in text and "nan" not in text


def test_failed_cells_are_named_in_their_rows(four, tmp_path):
    figures.main(["speed", "--tables", str(four), "--output", str(tmp_path / "speed.svg")])
    text = words(tmp_path / "speed.svg")
    for status in ("unsupported", "not quantized", "diverged", "no ratio"):
        assert status in text


def test_svg_asks_for_nothing_and_carries_no_date(four, tmp_path):
    figures.main(["tradeoff", "--tables", str(four), "--output", str(tmp_path / "t.svg")])
    text = (tmp_path / "t.svg").read_text()
    assert "dc:date" not in text and "<image" not in text and "sans-serif" in text


def test_labels_do_not_overlap_at_nine_variants_and_four_models(four):
    summary = pd.read_csv(four / "summary.csv")
    figure, panels = style.rows_by_model(summary)
    figure.canvas.draw()
    for axis in panels.values():
        boxes = [
            label.get_window_extent() for label in axis.get_yticklabels() if label.get_visible() and label.get_text()
        ]
        boxes = [box for box in boxes if box.width > 0]
        assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[place + 1 :])
    style.plt.close(figure)


def test_each_point_of_the_trade_off_has_its_name_and_no_two_names_overlap(four):
    figure = figures_tradeoff.tradeoff(four)
    figure.canvas.draw()
    for axis in figure.axes:
        names = [text for text in axis.texts if text.get_text() in VARIANTS]
        assert len(names) == len({text.get_text() for text in names}) >= 7
        boxes = [Text.get_window_extent(text) for text in names]  # without the line that leads to the point
        assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[place + 1 :])
    style.plt.close(figure)


def test_references_are_crossed_and_a_wide_range_of_losses_is_logarithmic(four, tmp_path):
    summary = pd.read_csv(four / "summary.csv")
    summary.loc[summary["variant"] == "onnx-int4-kv", ["degradation_pct", "degradation_high_pct"]] = 108.0, 120.0
    summary.to_csv(tmp_path / "summary.csv", index=False)
    (tmp_path / "pareto.csv").write_text((four / "pareto.csv").read_text())
    figure = figures_tradeoff.tradeoff(tmp_path)
    speed = figure.axes[0]
    crossed = {tuple(line.get_xydata()[0]) for line in speed.lines if line.get_marker() == "x"}
    rows = summary[(summary["model"] == "tiny-a") & (summary["status"] == "ok") & (summary["deployable"] == "no")]
    assert crossed == set(rows[["speedup", "degradation_pct"]].itertuples(index=False, name=None)) != set()
    assert speed.get_yscale() == "symlog"
    style.plt.close(figure)


def test_every_variant_has_its_own_look():
    looks = [(style.colour(name), style.marker(name)["marker"], style.hollow(name)) for name in VARIANTS]
    doubles = [name for name, look in zip(VARIANTS, looks, strict=True) if looks.count(look) > 1]
    assert not doubles


def test_divergence_draws_what_its_table_says_and_what_lies_below_the_axis_in_words(four, tmp_path):
    summary = pd.read_csv(four / "summary.csv")
    kl = {"onnx-fp32": (0, 2.7e-7, 5.6e-7, 8.3e-8), "onnx-fp32-kv": (-2e-8, 0, 0, 1e-12)}
    for variant, values in kl.items():
        cell = (summary["model"] == "tiny-a") & (summary["variant"] == variant)
        summary.loc[cell, ["kl_p50", "kl_p90", "kl_p99", "kl_mean"]] = values
    summary.to_csv(tmp_path / "summary.csv", index=False)
    figure, rows = figures.divergence(tmp_path), style.variants(summary)
    for axis, model in zip(figure.axes, synthetic.MODELS, strict=True):
        for cell in summary[(summary["model"] == model) & summary["kl_mean"].notna()].itertuples():
            if cell.variant == cell.baseline or (cell.variant == "onnx-fp32-kv" and model == "tiny-a"):
                continue
            marks = [line for line in axis.lines if set(line.get_ydata()) == {rows.index(cell.variant)}]
            means = [line for line in marks if line.get_marker() == style.marker(cell.variant)["marker"]]
            assert [line.get_xdata()[0] for line in means] == [cell.kl_mean] and cell.kl_mean > axis.get_xlim()[0]
    axis = figure.axes[0]
    for variant, words in (("onnx-fp32", "median 0"), ("onnx-fp32-kv", "median -2e-08, 90% 0, 99% 0, mean 1e-12")):
        row, edge = rows.index(variant), axis.get_xlim()[0]
        assert words in [text.get_text() for text in axis.texts if text.xy[1] == row]
        arrows = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == CARETLEFT]
        assert arrows == [edge, edge]
        shape = style.marker(variant)["marker"]
        drawn = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == shape and row in line.get_ydata()]
        assert drawn == ([8.3e-8] if variant == "onnx-fp32" else [])
    style.plt.close(figure)


def test_the_roofline_agrees_with_the_bandwidth_beside_each_cell(four, tmp_path):
    summary = pd.read_csv(four / "summary.csv")
    known = summary["mbu_pct"].notna()
    beside = 10 + np.arange(len(summary)) % 20.0
    for name, values in (
        ("bandwidth_gb_per_s", beside),
        ("mbu_pct", summary["bytes_per_token"] * summary["decode_tokens_per_s"] / beside / 1e7),
    ):
        summary.loc[known, name] = values[known]
    summary.to_csv(tmp_path / "summary.csv", index=False)
    figure, rows = figures.roofline(tmp_path), style.variants(summary)
    figure.canvas.draw()
    for axis, model in zip(figure.axes, synthetic.MODELS, strict=True):
        bars = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in axis.patches}
        for cell in summary[known & (summary["model"] == model)].itertuples():
            row = rows.index(cell.variant)
            assert bars[row] == cell.mbu_pct
            (text,) = [text for text in axis.texts if text.xy[1] == row]
            assert text.get_text().startswith(f"{cell.mbu_pct:.0f}%: ")
            assert text.get_text().endswith(f" of {cell.bandwidth_gb_per_s:.0f} GB/s")
            assert Text.get_window_extent(text).x1 < axis.bbox.x1
    style.plt.close(figure)


def test_growth_says_its_range_and_each_line_can_be_told(four, tmp_path):
    table = pd.read_csv(four / "growth.csv")
    for variant, other in (("onnx-int8", "gguf-q8_0"), ("onnx-fp32", "gguf-q4_k_m"), ("bnb-int8", "gguf-source")):
        table["variant"] = table["variant"].replace(variant, other)  # three of one colour, on one another
    crowded = table["variant"].str.startswith("gguf") & (table["source"] == "proof")
    table.loc[crowded, "itl_ms"] = 50.0
    table.to_csv(tmp_path / "growth.csv", index=False)
    figure = figures.growth(tmp_path)
    figure.canvas.draw()
    for place, model in enumerate(synthetic.MODELS):
        left, right = figure.axes[2 * place : 2 * place + 2]
        assert left.get_title(loc="left") == f"{model}: 33 to 63 tokens, the timed answers"
        assert right.get_title(loc="left") == "a step after 8 and after 64 tokens"
        part = table[table["model"] == model]
        for axis, source in ((left, "answers"), (right, "proof")):
            known = part[part["source"] == source]
            lines = {tuple(line.get_ydata()): line for line in axis.lines}
            assert len(axis.lines) == known["variant"].nunique()
            assert set(lines) == {tuple(cell["itl_ms"]) for _, cell in known.groupby("variant")}
            looks = [(line.get_color(), line._dash_pattern) for line in axis.lines]
            assert not [look for look in looks if looks.count(look) > 1]
        names = [text.get_text() for text in right.texts]
        assert sorted(names) == sorted(set(part["variant"]))
        boxes = [Text.get_window_extent(text) for text in right.texts]
        assert not any(a.overlaps(b) for first, a in enumerate(boxes) for b in boxes[first + 1 :])
        assert all(box.x1 < figure.bbox.x1 and right.bbox.y0 - 9 < box.y0 for box in boxes)
    style.plt.close(figure)


def test_no_two_variants_of_a_colour_share_a_dash():
    for names in (style.variants(pd.DataFrame({"variant": list(VARIANTS)})), ["gguf-q8_0", "gguf-q4_k_m"]):
        looks = [(style.colour(name), dash) for name, dash in style.dashes(names).items()]
        assert len(looks) == len(set(looks)) == len(names)


@pytest.mark.parametrize(("cache_mb", "shown", "models"), [(2.03, False, 1), (300.0, True, 4)])
def test_bars_are_filled_and_keys_and_values_stand_in_words(four, tmp_path, cache_mb, shown, models):
    summary = pd.read_csv(four / "summary.csv")
    summary = summary[summary["model"].isin(list(synthetic.MODELS)[:models])]
    summary["variant"] = summary["variant"].replace("onnx-int4-kv", "onnx-int8w-kv")  # hollow where it has a marker
    cached = summary["cache_mb"] > 0
    summary.loc[cached, ["cache_mb", "cache_tokens"]] = cache_mb, 44
    summary.loc[cached, "memory_mb"] = summary["weight_mb"] + cache_mb
    summary.to_csv(tmp_path / "summary.csv", index=False)
    figure = figures.memory(tmp_path)
    figure.canvas.draw()
    (legend,) = figure.legends
    assert figure.bbox.x0 < legend.get_window_extent().x0 and legend.get_window_extent().x1 < figure.bbox.x1
    labels = [text.get_text() for text in legend.get_texts()]
    assert ("keys and values" in labels) == shown
    words = "bar: weights + keys and values of 44 tokens"
    assert words + ("" if shown else ", too few to see") in labels
    texts = [text for axis in figure.axes for text in axis.texts]
    found = {text.get_text() for text in texts}
    for cell in summary[cached].itertuples():
        assert f"bar: {brief(cell.weight_mb)} + {brief(cache_mb)}" in found
    assert all(Text.get_window_extent(text).x1 < text.axes.bbox.x1 for text in texts)
    bars = [bar for axis in (*figure.axes, *figures.speed(tmp_path).axes) for bar in axis.patches]
    assert bars and not [bar for bar in bars if bar.get_facecolor()[:3] == (1, 1, 1)]
    style.plt.close("all")


def test_names_that_crowd_share_the_space_and_stay_in_the_panel():
    assert spread([10, 50, 51], 10, 0, 100) == [10, 45.5, 55.5]
    for points in ([1, 1, 2], [98, 99, 99], [0] * 11):
        places = spread(points, 10, 0, 100)
        assert np.diff(places) == pytest.approx(10) and min(places) >= 0 and max(places) <= 100
    assert spread([], 10, 0, 100) == []
