"""The classic chain of tools on the same frame in the same run, beside our pipeline (docs/peers.md)."""
