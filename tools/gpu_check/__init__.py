"""Check this package on a machine with a GPU; needs Python's standard library only."""
