"""The whole focal plane: what one machine sustains, and all detectors with measured times in place of the pixels."""
