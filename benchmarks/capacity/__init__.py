"""The capacity model: from measured times to cores, workers, memory, and the fraction of alerts inside the clock."""
