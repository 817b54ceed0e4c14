"""Injects faults of every kind into a whole installation, and prints what they came to.

The exit code is 1 if a promise was broken.
"""

import argparse
import secrets
import signal
import sys
import tempfile
from pathlib import Path

from tests.faults import campaign

BROKEN = 1


def main() -> int:
    """Run one campaign; returns the exit code."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(BROKEN))  # all that was started is stopped again
    folder = options.keep or Path(tempfile.mkdtemp(prefix="dampe-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    result = campaign.run(options.seed, options.minutes * 60, folder)
    print("\n".join(campaign.table(result)))
    return BROKEN if result.violations else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="how long faults are injected (default: 20)")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10**6), help="plan of the faults (default: another each time)"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="an empty folder for all files (default: one in /tmp)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
