"""Prints data-privacy.en.html to the handbook's PDF with Chromium. Only needed after a change of that page.

python examples/hr_assistant/pdf_source/make_pdf.py [CHROMIUM]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    browser = sys.argv[1] if len(sys.argv) > 1 else next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        sys.exit(f"none of {', '.join(NAMES)} is on the PATH; pass the browser's path as the argument")
    target = HERE.parent / "documents" / "data-privacy.en.pdf"
    with tempfile.TemporaryDirectory() as profile:
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-pdf-header-footer",
            f"--user-data-dir={profile}",
        ]
        source = (HERE / "data-privacy.en.html").as_uri()
        subprocess.run([browser, *options, f"--print-to-pdf={target}", source], check=True, timeout=60)
    print(f"{target.name}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
