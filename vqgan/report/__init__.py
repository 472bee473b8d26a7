"""`report.html`: one page that shows a run, or several over each other, without a network or anything beside it."""

from vqgan.report.curves import speed
from vqgan.report.writing import LiveReport, is_run, page, write_report

__all__ = ["LiveReport", "is_run", "page", "speed", "write_report"]
