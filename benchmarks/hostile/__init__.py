"""Honest callers while others attack the same server, one attack after another."""
