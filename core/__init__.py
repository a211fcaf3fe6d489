"""Pure image-to-alert processing: arrays in, catalogs out; no I/O, environment, wall clock or logging."""
