"""Encoders whose output does not depend on the rest of the batch."""
