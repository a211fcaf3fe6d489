"""``python -m benchmarks.reliability``."""

from benchmarks.reliability.command import command

if __name__ == "__main__":
    command()
