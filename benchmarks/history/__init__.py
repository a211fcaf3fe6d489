"""How long a detector-visit takes after its pixels, against the depth of the history."""
