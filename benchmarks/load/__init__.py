"""The load test: a dataset's events against a running service, open-loop, every outcome and alert collected."""
