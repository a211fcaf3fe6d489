"""Fuzzing of what reads bytes from outside: ``python -m tests.fuzz --help``; docs/fuzzing.md explains it."""
