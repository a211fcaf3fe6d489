"""The streaming service around ``core`` and ``alerts``: roles, log, storage, HTTP, command line."""
