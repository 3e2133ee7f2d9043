"""Pretrained language models that give a vector for each token."""
