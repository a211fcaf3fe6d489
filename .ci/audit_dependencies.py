"""The locked dependencies against a database of known vulnerabilities (pip-audit), with an honest end.

Exit status: 0 every package was looked up and none is known to be vulnerable; 1 at least one is; 3 the service could
not be asked about some or all of them, which says nothing about them. pip-audit itself ends with 0 there.
"""

import json
import subprocess
import sys
from pathlib import Path

LOCK = Path("requirements/runtime.lock")
CLEAN, VULNERABLE, NOT_AUDITED = 0, 1, 3
SHOWN = 10
TIMEOUT_S = 300


def audit(lock: Path) -> tuple[list[dict[str, object]], str]:
    """Every dependency as pip-audit reports it, and what it said beside."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(lock), "--require-hashes", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "15"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return [], f"no end within {TIMEOUT_S} s"
    try:
        return json.loads(done.stdout)["dependencies"], done.stderr
    except (ValueError, KeyError):
        return [], done.stderr


def judge(dependencies: list[dict[str, object]], said: str) -> tuple[int, list[str]]:
    """Exit status and lines for the reader."""
    vulnerable = [found for found in dependencies if found.get("vulns")]
    skipped = [str(found["name"]) for found in dependencies if "skip_reason" in found]
    lines = [
        f"VULNERABLE {found['name']} {found['version']}: {bug['id']}, fixed in {', '.join(bug['fix_versions']) or '-'}"
        for found in vulnerable
        for bug in found["vulns"]  # type: ignore[attr-defined]
    ]
    n_audited = len(dependencies) - len(skipped)
    lines.append(f"{n_audited} of {len(dependencies)} packages of {LOCK} audited, {len(vulnerable)} vulnerable")
    if vulnerable:
        return VULNERABLE, lines
    if skipped or not dependencies:
        names = ", ".join(skipped[:SHOWN]) + (", …" if len(skipped) > SHOWN else "")
        lines.append(f"NOT AUDITED: the vulnerability service could not be asked. {names or said[-500:]}")
        return NOT_AUDITED, lines
    return CLEAN, lines


def main() -> int:
    """Audit and tell."""
    status, lines = judge(*audit(LOCK))
    sys.stdout.write("\n".join(lines) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
