"""Recognition: Speech2Text, and pictures of its results."""
