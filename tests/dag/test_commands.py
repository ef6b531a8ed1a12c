"""The command that a report gives runs as it stands; where a run cannot work, one line says so."""

import shlex
from pathlib import Path

import pytest

from tests import studies


@pytest.fixture(scope="module")
def unread(tmp_path_factory) -> studies.Study:
    """A checkout whose path has a space in it."""
    folder = tmp_path_factory.mktemp("commands") / "a checkout"
    studies.checkout(folder)
    (folder / "config" / "mine, here.yaml").write_text((folder / "config" / "config.yaml").read_text())
    (folder / "config" / "more.yaml").write_text("study: mine\n")
    return studies.Study(folder)


def given(text: str) -> list[str]:
    """The words of the command that the report of a dry run would show."""
    shell = next(block for block in text.split("\nrule ") if block.startswith("report:")).partition("python -m")[2]
    words = shlex.split(shell.partition("2> >(")[0].replace("\\\n", " "))
    return shlex.split(words[words.index("--commands") + 1])


def test_the_reports_command_makes_the_same_plan(unread):
    files = ["config/mine, here.yaml", "config/more.yaml"]
    flags = ["--config", "threads=1", "study=a-third"]
    text = unread.snakemake("--dry-run", "--nocolor", "--configfile", *files, *flags, configfile=None).stdout
    words = given(text)
    assert words[:3] == ["snakemake", "--cores", "1"]
    again = unread.snakemake("--dry-run", "--nocolor", *words[3:], configfile=None).stdout
    assert given(again) == words and "--threads 1" in again and "results/a-third/report.md" in again


def test_another_directory_is_one_line(unread, tmp_path):
    flags = ["--dry-run", "--snakefile", str(unread.folder / "Snakefile"), "--directory", str(tmp_path)]
    config = str(unread.folder / "config" / "config.yaml")
    line = studies.only_error(unread.snakemake(*flags, "--configfile", config, configfile=None, check=False))
    assert str(tmp_path) in line and "leave --directory out" in line


def test_results_that_cannot_be_written_are_one_line(unread, tmp_path):
    place = unread.folder / "results"
    kept = place.rename(tmp_path / "kept") if place.exists() else None
    try:
        Path(place).write_text("a file where the folder should be")
        line = studies.only_error(unread.snakemake("--dry-run", configfile=None, check=False))
    finally:
        place.unlink()
        if kept:
            kept.rename(place)
    assert f"{place} is no folder that can be written" in line
