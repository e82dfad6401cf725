"""`python -m tests.chaos`: what `make chaos` runs. Exit status 0 = nothing was lost."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from .report import Run
from .run import run_chaos
from .schedule import plan

CLIENTS = 32
EVERY_S = 4.0


def main() -> int:
    options = _options()
    run = Run(options.seed, options.duration, options.clients, options.cluster, options.crowds)
    faults = plan(run.seed, run.duration_s, cluster=run.cluster, every_s=options.every)
    if options.schedule:
        print(*faults, sep="\n")
        return 0
    # Settings of whoever runs this must not change what is tested.
    for name in [name for name in os.environ if name.startswith(("BATON_", "OTEL_"))]:
        del os.environ[name]
    # Ctrl-C and a plain kill end alike, also where a shell has switched Ctrl-C off: all that was started is stopped.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    folder = Path(options.keep or tempfile.mkdtemp(prefix="baton-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    passed = False
    try:
        verdict = run_chaos(run, faults, folder, _say, delay_ms=options.delay_ms)
        passed = verdict.passed
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        passed = True  # nothing to look at
        return 130
    finally:
        if passed and not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"the logs of all processes are in {folder}")
    print(f"{'PASSED' if passed else 'FAILED'} after {time.monotonic() - began:.0f} s")
    return 0 if passed else 1


def _say(line: str) -> None:
    print(line, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="Hurt a running Baton and count the losses."
    )
    parser.add_argument("--duration", type=float, default=600.0, help="seconds for which clients ask [600]")
    parser.add_argument("--seed", type=int, default=1, help="of faults and clients' habits [1]")
    parser.add_argument("--cluster", action="store_true", help="three nats-servers, of which one is lost at a time")
    parser.add_argument("--clients", type=int, default=CLIENTS, help=f"that ask at once [{CLIENTS}]")
    parser.add_argument("--crowds", type=int, default=1, help="slow clients with many requests at once [1]")
    parser.add_argument("--every", type=float, default=EVERY_S, help=f"mean seconds between two faults [{EVERY_S:g}]")
    parser.add_argument("--delay-ms", type=int, default=25, help="between the pieces of an answer [25]")
    parser.add_argument("--keep", metavar="FOLDER", default="", help="keep logs and data there, also of a good run")
    parser.add_argument("--schedule", action="store_true", help="only print the schedule")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
