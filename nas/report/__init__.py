"""The report of a run: one self-contained page with the front, the predictions' errors, the search and the models."""

from nas.report.page import write_report

__all__ = ["write_report"]
