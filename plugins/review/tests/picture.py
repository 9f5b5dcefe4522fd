"""Takes the picture of docs/review.md: ``python plugins/review/tests/picture.py ANNOTATIONS DATASET PICTURE``."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from browser import browse


async def take(address: str, out: Path) -> None:
    """Decide on some episodes and look."""
    with tempfile.TemporaryDirectory() as profile:
        async with browse(address, Path(profile)) as page:
            await page.until("document.querySelectorAll('.tile img').length > 8")
            for number, key in enumerate("krkk", 1):
                await page.press(key)
                await page.until(f"document.getElementById('count').textContent.startsWith('{number} of')")
            await page.until("[...document.querySelectorAll('.tile img')].every((image) => image.naturalWidth)")
            await asyncio.sleep(2.5)  # until the last message has faded
            await page.screenshot(out)


def main(annotations: str, dataset: str, out: str) -> None:
    command = ["pixelvla", "review", annotations, dataset, "--no-browser", "--as", "ana"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = next(filter(None, (re.search(r"http://\S+", line) for line in process.stdout)))
    try:
        asyncio.run(take(found[0], Path(out)))
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
