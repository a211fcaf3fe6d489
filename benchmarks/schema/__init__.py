"""The published JSON schema of the report."""
