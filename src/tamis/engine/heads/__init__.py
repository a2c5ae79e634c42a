"""Encoder outputs -> logits: a file a head, in numpy, the same for every library."""
