"""Language models as teachers: units, labels and alignments."""
