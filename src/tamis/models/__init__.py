"""Models that are included in tamis."""
