"""The audit trail: sealed so that nothing in it can be changed unseen, and read again as stories and reports."""
