"""Re-verifies captured TCP-AO traffic, knowing nothing but the RFCs and the keys.

An oracle that shares code with what it judges proves nothing: this package has its own parser,
its own sequence number arithmetic and Python's own cryptography, and not a line in common with
the kernel module. `audit` judges frames in memory, `python3 -m tcp_authopt_verify` capture files.
"""

from .audit import Audit, Policy, Record, Report, Status, audit
from .keys import Key, load_policy

__all__ = ["Audit", "Key", "Policy", "Record", "Report", "Status", "audit", "load_policy"]
