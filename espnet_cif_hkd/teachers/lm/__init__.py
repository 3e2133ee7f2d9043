"""Language models as teachers of probabilities: units, labels and alignments."""
