"""Pairs of many callers become batches."""
