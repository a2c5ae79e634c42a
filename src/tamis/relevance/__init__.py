"""The ranking itself, watched: its scores, its order, its drift, and what callers made of it."""
