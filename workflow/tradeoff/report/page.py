"""The report, by a Jinja2 template, from the tables, the figures and the decision. No number is typed by hand."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from workflow.tradeoff import columns, templates
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import read_json
from workflow.tradeoff.report import claimed, launch_words, markdown, places, show
from workflow.tradeoff.variants import VARIANTS
from workflow.tradeoff.words import LEADS, OBJECTIVES, number

SOURCE = ("source", "repo", "config", "split", "revision", "package", "member", "path", "sha256")
TOGETHER = 2  # models whose rows stand in one table
REQUIRED = ("summary", "benchmark", "onnx", "perplexity", "degradation", "accuracy_drop", "launch", "pareto")


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Every CSV of the folder by name; UserError when one that the report needs is missing."""
    found = {path.stem: read_table(path) for path in sorted(folder.glob("*.csv"))}
    if missing := [name for name in REQUIRED if name not in found]:
        raise UserError(f"{folder} lacks {', '.join(missing)}.csv: run summarize and decide first")
    return found


def read_table(path: Path) -> pd.DataFrame:
    """A table; an empty frame for a file without any column, but for the summary, without which there is no report."""
    needs = show.NEEDS if path.stem == "summary" else ()
    if not needs and not path.read_bytes().strip():
        return pd.DataFrame()
    return places.read(path, needs, dtype=columns.DIGESTS)


def manifests(paths: Sequence[Path | str]) -> list[dict]:
    """What is named of each artifact: folder, source, licence, digest, and the digest that it was made from.

    What was made of a model has the licence of that model, which its own manifest does not repeat.
    """
    read = {Path(path): read_json(path) for path in paths}
    licences = {data["digest"]: data.get("license") for data in read.values()}
    found = []
    for path, data in read.items():
        folder = "/".join(path.parent.parts[-3:] if "artifacts" in path.parts else path.parent.parts[-2:])
        found.append(
            {
                "artifact": folder,
                "source": source_words(data.get("source") or {}),
                "license": data.get("license") or licences.get(data.get("model") or data.get("made_from")),
                "digest": data["digest"],
                "made_from": data.get("made_from"),
                "files_mb": sum(entry["bytes"] for entry in data["files"].values()) / 1e6,
            }
        )
    return found


def source_words(source: Mapping) -> str:
    """``key value`` of what is known about a source, in one line."""
    return ", ".join(f"{key} {value}" for key, value in source.items() if value not in (None, "", [], {}))


def diagnoses(paths: Sequence[Path | str]) -> list[dict]:
    """What diagnose found, in words, of the cells whose loss asked for it."""
    found = [read_json(path) for path in paths]
    words = {"found": "the cause that fits", "not_found": "no known cause fits"}
    return [
        {
            "cell": f"{data['model']}/{data['variant']}",
            "convention": data.get("convention"),
            "outcome": words.get(data["status"], data["status"].replace("_", " ")),
            "cause": data.get("fault"),
            "recorded_nll": data.get("recorded_nll"),
            "rescored_nll": data.get("rescored_nll"),
            "uniform_nll": data.get("uniform_nll"),
            "evidence": data.get("reason")
            or "; ".join(item["detail"] for item in data.get("hypotheses", []) if item["name"] == data.get("fault")),
        }
        for data in found
        if data["status"] != "not_needed"
    ]


def main_table(summary: pd.DataFrame, decision: Mapping) -> pd.DataFrame:
    """The summary as ``show`` tells it, with ``what``, what runs there, and ``best_for``, the scenarios that it won."""
    won: dict[tuple[str, str], list[str]] = {}
    for entry in decision["scenarios"]:
        won.setdefault((entry["model"], entry["winner"]), []).append(entry["scenario"])
    cells = zip(summary["model"], summary["variant"], strict=True)
    apart = summary["deployable"] == "no"
    return show.told(summary).assign(
        best_for=[", ".join(won.get(cell, [])) or None for cell in cells],
        what=[
            VARIANTS[name].told(bits) + ("; for comparison only" if reference else "")
            for name, bits, reference in zip(summary["variant"], summary["bits_per_weight"], apart, strict=True)
        ],
    )


def sections(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The main table's rows by model where there are more models than one table shows well; else nothing."""
    models = dict.fromkeys(table["model"])
    return {model: table[table["model"] == model] for model in models} if len(models) > TOGETHER else {}


def anchor(text: str) -> str:
    """Where a link to the heading ``text`` of a Markdown page leads, as GitHub makes it of a model's name."""
    return "#" + re.sub(r"[^a-z0-9_-]", "", text)


def scenario_tables(decision: Mapping) -> dict[str, pd.DataFrame]:
    """Each model's scenarios: the best variant, what it gives, the runner-up, the margin, and who was refused why."""
    rows: dict[str, list[dict]] = {}
    for entry in decision["scenarios"]:
        best = entry["winner"] or "no admissible variant"
        given = {name: entry[name] for name in ("scenario", "gives", "runner_up", "margin", "mind")}
        line = {**given, "best": best, "refused": entry["refused_short"]}
        rows.setdefault(entry["model"], []).append(line)
    return {model: pd.DataFrame(lines) for model, lines in rows.items()}


def scenario_words(decision: Mapping) -> dict[str, str]:
    """What each scenario asks for, and its limits."""
    return {
        entry["scenario"]: f"{LEADS[entry['scenario']].lower() + ': ' if entry['scenario'] in LEADS else ''}"
        f"{OBJECTIVES[entry['objective']]}; limits: {entry['limits']}"
        for entry in decision["scenarios"]
    }


def written(generated: pd.DataFrame, decision: Mapping) -> pd.DataFrame | None:
    """What each model's baseline and answers wrote to each prompt, side by side; None where no text was evaluated."""
    if generated.empty:
        return None
    rows: dict[tuple[str, str], dict] = {}
    for entry in decision["scenarios"]:
        for name in filter(None, (entry["baseline"], entry["winner"])):
            own = generated[(generated["model"] == entry["model"]) & (generated["variant"] == name)]
            for prompt, text in zip(own["prompt"], own["text"], strict=True):
                head = {"model": entry["model"], "prompt": prompt}
                rows.setdefault((entry["model"], prompt), head)[name] = text
    return pd.DataFrame(list(rows.values())) if rows else None


def under_load(found: Mapping[str, pd.DataFrame]) -> dict | None:
    """The table of loads, each in one column of words, and what crosses; None where one load was measured."""
    loads = found.get("loads", pd.DataFrame())
    if loads.empty or loads["load"].nunique() < 2:
        return None
    crossed = found["crossings"]
    unit = {"sequences": "the batch", "prompt_tokens": "the length of the prompt"}
    words: dict[str, list[str]] = {}
    for row in crossed.to_dict("records"):
        head = f"{row['model']}, over {unit[row['over']]}, {row['from']} to {row['to']} ({row['at']})"
        words.setdefault(head, []).append(row["words"])
    return {"table": loads.assign(state=loads["status"].str.replace("_", " ")), "crossings": words}


def serving(path: Path | None) -> dict | None:
    """What was served under load: its sentences and tables; None where it was not asked for."""
    if path is None:
        return None
    told = read_json(path)
    return {**told, **{name: pd.DataFrame(told[name]) for name in ("serving", "versus")}}


def use_cases(decision: Mapping) -> pd.DataFrame:
    """One row per use case with the chosen cell of every model."""
    rows: dict[str, dict] = {}
    for entry in decision["use_cases"]:
        row = rows.setdefault(
            entry["use_case"], {"use case": entry["use_case"], "asks for": entry["question"], "cells": []}
        )
        row["cells"].append(entry["cell"])
    return pd.DataFrame([{**row, "cells": "; ".join(row["cells"])} for row in rows.values()])


def groups(several: bool) -> dict[str, dict[str, str]]:
    """The summary's columns in words; with those that a study of several kinds of machine has beside."""
    first, *rest = columns.GROUPS.items()
    return dict([(first[0], {**first[1], **(columns.OF_MACHINES if several else {})}), *rest])


def context(options) -> dict:
    """What the template may use."""
    found = tables(options.tables)
    notes = read_json(options.tables / "notes.json")
    decision = places.folded(read_json(options.decision or options.tables / "decision.json"))
    # a study that was not put on trial has no claims.csv; numbers stay as they are written there
    trial = options.tables / "claims.csv"
    rows = claimed.read(trial) if trial.is_file() else []
    folder = options.output.absolute().parent
    made = manifests(options.manifests)
    environment, corpus = read_json(options.environment), options.config.get("corpus") or {}
    told = places.deployed(options.deploy) if options.deploy else []
    deployed = [entry for entry in told if entry["scenarios"]]  # the others are served beside them
    summary = found["summary"]
    told = main_table(summary, decision)
    remarks = summary[(summary["status"] == "ok") & summary["reason"].notna()]
    return {
        "tables": found,
        "main_table": told,
        "sections": sections(told),
        "scenario_tables": scenario_tables(decision),
        "scenario_words": scenario_words(decision),
        "use_cases": use_cases(decision),
        "under_load": under_load(found),
        "launch_words": launch_words.paragraphs(found["launch"]),
        "remarks": remarks.to_dict("records"),
        "notes": {name: entry["note"] for name, entry in notes.items()},
        "titles": {name: entry["title"] for name, entry in notes.items()},
        "decision": decision,
        "deployed": deployed,
        "deploy_pages": [path.with_name("README.md").absolute().relative_to(folder) for path in options.deploy or ()],
        "leading": list({entry["model"]: entry for entry in reversed(deployed)}.values())[::-1],
        "serving": serving(options.serving),
        "figures": _links(options.figures, folder, "*.svg"),
        "links": _links(options.tables, folder, "*.csv"),
        "environment": environment,
        "config": options.config,
        "config_text": json.dumps(options.config, indent=1, ensure_ascii=False),
        "commands": options.commands,
        "manifests": pd.DataFrame(made),
        "expanded": [entry for entry in made if ".gguf" in entry["source"]],
        "written": written(found.get("generated", pd.DataFrame()), decision),
        "diagnoses": pd.DataFrame(diagnoses(options.diagnoses)),
        "groups": groups(several="machines" in found),
        "claims": rows,
        "claim_counts": claimed.counts(rows) if rows else {},
        "corpus": corpus,
        "corpus_source": source_words({key: corpus.get(key) for key in SOURCE}),
        "environment_table": environment_table(environment),
        "environments": ", ".join(sorted(set(summary["environment"].dropna().astype(str)))),
    }


def environment_table(environment: Mapping) -> pd.DataFrame:
    """Machine, libraries and image, one fact a line; the config has its own place in the report."""
    lines = []
    for name, value in environment.items():
        if name in ("config", "digest", "git"):
            continue
        if isinstance(value, Mapping):
            lines += [
                {"fact": f"{name}: {key}", "value": str(entry)} for key, entry in value.items() if entry is not None
            ]
        elif value is not None:
            lines.append({"fact": name, "value": str(value)})
    return pd.DataFrame(lines)


def _links(folder: Path, start: Path, pattern: str) -> dict[str, str]:
    """{stem: path relative to the report}."""
    return {
        path.stem: Path(os.path.relpath(path.absolute(), start)).as_posix() for path in sorted(folder.glob(pattern))
    }


def render(template: Path, values: Mapping) -> str:
    """The report; a name that the template does not know is an error, not a gap."""
    filters = {"table": markdown.table, "number": number, "text": markdown.text, "rst": rst, "anchor": anchor}
    return templates.folder(template.parent, filters).get_template(template.name).render(**values)


def rst(text: str) -> str:
    """Text as reStructuredText shows it: what would be markup is escaped."""
    return re.sub(r"([\\*`|_])", r"\\\1", text)
