"""Fuzzing of the readers with mutated files.

    python -m tests.fuzz --reader pictures --seconds 600 --seed 0

A file may be refused with one of our errors that names it, or accepted, unless Pillow or FFmpeg calls it broken and nothing is
reported. Anything else is a finding, and makes the exit code 1. ``--only N`` reads file N of a seed again; ``--keep DIR`` keeps
one file of each kind of finding.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.readers import readers
from tests.fuzz.run import fuzz


def main() -> int:
    """Fuzz a reader, print its findings, one of each kind in full, and return 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", required=True, choices=list(readers()))
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="N", help="read file N alone")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where to keep files of findings")
    args = parser.parse_args()
    numbers = range(args.only, args.only + 1) if args.only is not None else range(sys.maxsize)
    counts: Counter[str] = Counter()
    findings: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="fuzz_") as folder:
        reader = readers()[args.reader](Path(folder))
        for found in fuzz(reader, args.seed, numbers, time.monotonic() + args.seconds):
            counts[found.kind] += 1
            if args.only is not None or (found.is_finding and found.group not in findings):
                print(f"file {found.number}, {found.name}: {found.kind}: {found.detail}", flush=True)
            files = reader.folder / str(found.number)
            if not found.is_finding:
                shutil.rmtree(files, ignore_errors=True)
                continue
            if args.keep and found.group not in findings:
                shutil.copytree(files, args.keep / f"{args.reader}_{args.seed}_{found.number}", dirs_exist_ok=True)
            shutil.rmtree(files)
            findings[found.group] += 1
    print(f"{args.reader}, seed {args.seed}: {dict(counts.most_common())}")
    for group, count in findings.most_common():
        print(f"{count:6d} x {group}")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
