"""Dialects at the border: bytes -> RerankRequest, RerankResult -> bytes, one file each."""
