"""Checks before a stage runs: what would fail after hours fails now."""
