"""How far a run is: lines from Snakemake's events, cells, and an expected end."""

import io
import logging
import time

from workflow.tradeoff.run import progress

MEASURE = {"model": "m", "variant": "torch-fp32"}
JOBS = {
    0: progress.job_of("fetch_model", {"model": "m"}),
    1: progress.job_of("measure", MEASURE),
    2: progress.job_of("evaluate", MEASURE),
    3: progress.job_of("measure", {"model": "m", "variant": "onnx-int8"}),
    4: progress.job_of("summarize", {}),
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def record(event, level=logging.INFO, **fields) -> logging.LogRecord:
    made = logging.LogRecord("snakemake", level, "", 0, "words", (), None)
    made.__dict__.update(event=event, **fields)
    return made


def shown(events, stream) -> list[str]:
    """Lines in the log after events: (seconds since the start, record)."""
    now = [0.0]
    log = io.StringIO()
    handler = progress.Handler(progress.Tally(JOBS, {"measure": 100.0}, 0.0), stream, log, clock=lambda: now[0])
    for at, made in events:
        now[0] = at
        handler.emit(made)
    return log.getvalue().splitlines()


def test_each_job_that_ends_is_one_line_with_cells_and_jobs():
    events = [
        (0, record("job_info", jobid=0)),
        (9, record("job_finished", job_id=0)),
        (9, record("job_info", jobid=1)),
        (50, record("job_finished", job_id=1)),
        (50, record("job_info", jobid=2)),
        (50, record("progress", done=2, total=5)),
        (60, record("job_error", logging.ERROR, jobid=2)),
        (60, record("job_info", jobid=2)),
        (245, record("job_finished", job_id=2)),
    ]
    stream = io.StringIO()
    lines = shown(events, stream)
    assert stream.getvalue().splitlines() == lines and len(lines) == 4
    assert "fetch_model m: 9 s [jobs 1 of 5; cells 0 done, 0 running, 2 to come; end about" in lines[0]
    assert "measure m/torch-fp32: 41 s [jobs 2 of 5; cells 0 done, 0 running, 2 to come" in lines[1]
    assert "evaluate m/torch-fp32: FAILED" in lines[2]
    assert "evaluate m/torch-fp32: 3 min 05 s [jobs 3 of 5; cells 1 done, 0 running, 1 to come" in lines[3]


def test_a_terminal_shows_what_runs_in_its_last_line():
    stream = Terminal()
    shown([(0, record("job_info", jobid=3))], stream)
    assert stream.getvalue().endswith("… measure m/onnx-int8") and "\n" not in stream.getvalue()


def test_the_end_is_expected_by_what_jobs_of_the_rule_took():
    tally = progress.Tally(JOBS, {"measure": 100.0}, 0.0)
    assert tally.left_s(0.0) is None
    tally.start(0, 0.0)
    tally.end(0, 10.0)
    # two measurements by the budget, and two jobs as long as those that ended
    assert tally.left_s(10.0) == 2 * 100 + 2 * 10
    tally.start(1, 10.0)
    tally.end(1, 40.0)
    tally.start(3, 40.0)
    # the other measurement as long as the first, of which ten seconds have gone
    assert tally.left_s(50.0) == 20 + 2 * 20
    assert progress.duration(7620) == "2 h 07 min"


def test_work_side_by_side_ends_sooner():
    tally = progress.Tally(JOBS, {}, 0.0)
    for number in (0, 1):
        tally.start(number, 0.0)
    for number in (0, 1):
        tally.end(number, 10.0)
    assert tally.left_s(10.0) == 3 * 10 / 2
    assert time.strftime("%H", tally_clock(3600.0)) == "01" and "end about Thu 01:" in tally.words(3600.0, tally_clock)


def tally_clock(seconds: float) -> time.struct_time:
    return time.gmtime(seconds)


def test_failures_and_warnings_are_told_as_ever_and_a_jobs_account_is_not():
    for event in ("job_info", "shellcmd", "job_finished", "progress", "job_started"):
        assert not progress.untold(record(event))
    assert progress.untold(record("job_error", logging.ERROR))
    assert progress.untold(record("run_info"))
    chatter, words = record(None), record(None)
    chatter.msg, words.msg = "Select jobs to execute...", "Complete log(s): x"
    assert not progress.untold(chatter) and progress.untold(words)


def test_nothing_is_attached_where_another_logger_writes(tmp_path):
    logger = logging.Logger("other", logging.INFO)
    progress.attach(logger, JOBS, tmp_path / "logs" / "progress.log", {})
    assert logger.handlers == [] and not (tmp_path / "logs").exists()
