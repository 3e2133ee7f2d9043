"""Search over decoders."""
