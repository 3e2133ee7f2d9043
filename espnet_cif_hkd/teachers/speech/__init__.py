"""Speech foundation models as teachers: a vector for each frame of a recording."""
