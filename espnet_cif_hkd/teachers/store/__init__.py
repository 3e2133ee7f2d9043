"""Targets on disk: computed once, read many times."""
