"""Models in worker processes, which are supervised: one that exits or hangs is restarted."""
