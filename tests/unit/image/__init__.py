"""The image's files, read as data."""
