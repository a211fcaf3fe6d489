"""Whether the service could run here as configured: the checks of ``sub60 check`` and of every start."""

from service.checks.finding import Finding, Level
from service.checks.run import ROLE_CHECKS, run_checks

__all__ = ["ROLE_CHECKS", "Finding", "Level", "run_checks"]
