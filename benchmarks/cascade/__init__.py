"""What a cascade gives and costs: `python -m benchmarks.cascade`."""
