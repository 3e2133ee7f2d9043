"""Decoders over fired tokens."""
