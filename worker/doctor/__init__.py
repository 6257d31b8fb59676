"""Finds what will hurt before it does. Looks only: nothing is changed, no order sent, no broker called."""

from worker.doctor.exam import CHECKS, examine, findings_table
from worker.doctor.findings import Ailment, Check, Finding, Found, Severity
from worker.doctor.patient import Patient

__all__ = [
    "CHECKS",
    "Ailment",
    "Check",
    "Finding",
    "Found",
    "Patient",
    "Severity",
    "examine",
    "findings_table",
]
