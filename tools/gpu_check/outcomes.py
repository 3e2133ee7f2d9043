"""A plug-in of pytest that writes the outcome of each test immediately.

``GPU_CHECK_OUTCOMES`` names the file. If pytest is stopped during a test, the last row
of this test has the outcome ``running``.
"""

import json
import os
from typing import Any

import pytest


def _write(name: str, outcome: str, seconds: float, message: str = "") -> None:
    row = {"name": name, "outcome": outcome, "seconds": seconds, "message": message}
    with open(os.environ["GPU_CHECK_OUTCOMES"], "a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def pytest_runtest_logstart(nodeid: str) -> None:
    _write(nodeid, "running", 0.0)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    name, seconds = report.nodeid, report.duration
    if report.when == "call":
        _write(name, report.outcome, seconds, _last_line(report))
    elif report.skipped:
        _write(name, "skipped", seconds, _last_line(report))
    elif report.failed:
        _write(name, "error", seconds, _last_line(report))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _write(report.nodeid, "error", 0.0, _last_line(report))


def _last_line(report: Any) -> str:
    if report.passed:
        return ""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message if crash is not None else report.longrepr)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:300] if lines else ""
