"""Figures, tables as pages, the report, and the comparison of runs."""
