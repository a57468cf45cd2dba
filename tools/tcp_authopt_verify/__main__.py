"""Command line: judges capture files against a policy file; the exit status is the verdict."""

import argparse
import sys

from .audit import audit
from .capture import CaptureError, read
from .keys import load_policy


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 if every capture obeys the policy, 1 if one does not, 2 if one is unreadable."""
    parser = argparse.ArgumentParser(prog="tcp_authopt_verify", description=__doc__)
    parser.add_argument("--keys", required=True, metavar="POLICY.json", help="keys and policy")
    parser.add_argument("--list", action="store_true", help="print the verdict on every segment")
    parser.add_argument("captures", nargs="+", metavar="CAPTURE.pcap")
    options = parser.parse_args(arguments)
    try:
        policy = load_policy(options.keys)
    except (OSError, ValueError, KeyError) as why:
        print(f"{options.keys}: {why!r}", file=sys.stderr)
        return 2

    status = 0
    for path in options.captures:
        try:
            report = audit(read(path), policy)
        except (OSError, CaptureError) as why:
            print(f"{path}: {why}", file=sys.stderr)
            status = 2
            continue
        if options.list:
            print(*report.segments, sep="\n")
        print(f"{path}: {'ok' if report.ok else 'FAILED'}: {report.summary()}")
        if not report.ok:
            status = max(status, 1)
    return status


if __name__ == "__main__":
    sys.exit(main())
