"""`tamis bench`: what a model costs on this machine."""

from typing import Literal

WorkloadName = Literal["short", "rag-mix", "long"]

RANDOM_LARGE = "random-large"
"""Stands for an XLM-RoBERTa-large of random weights, written to the cache once (2.3 GB)."""
