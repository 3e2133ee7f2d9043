"""Stages 14 and 15: packing and uploading a trained model."""
