"""Reconciliation of what the log, the APDB and the alert files say about the same readouts."""

from service.audit.report import AuditReport, Discrepancy, Kind, SourceRange
from service.audit.run import audit

__all__ = ["AuditReport", "Discrepancy", "Kind", "SourceRange", "audit"]
