"""A year of one field in fast forward: DIASources drawn from truth, everything after the pixels as in production."""
