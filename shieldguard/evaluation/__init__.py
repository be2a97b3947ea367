"""Measuring judges on labelled traces."""
