"""Checks this package on a machine with a GPU; needs Python's library only."""
