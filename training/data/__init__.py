"""Texts: collections, passages, negatives, and what a training step draws from them."""
