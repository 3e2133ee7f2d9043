"""Recognition: Speech2Text and what is drawn from its results."""
