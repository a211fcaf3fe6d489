"""Quality of the results against a simulation's truth, computed without any of the stages it judges."""
