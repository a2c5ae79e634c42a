"""Models that tamis carries."""
