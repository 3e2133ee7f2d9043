"""Checks before a stage runs, so that errors appear early."""
