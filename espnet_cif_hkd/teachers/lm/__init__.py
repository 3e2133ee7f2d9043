"""Language models of any unit as teachers of probabilities."""
