"""Inference libraries behind one protocol, one file each."""
