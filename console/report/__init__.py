"""The report.html of a run."""
