"""Figures, tables and pages from data frames."""
