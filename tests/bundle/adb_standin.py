#!/usr/bin/env python3
"""A stand-in for Android's adb that speaks its recorded protocol; nothing is connected to it.

Sources of the protocol: adb 1.0.41's `devices -l`, `install` and `getprop`; `am instrument -r` as Android's own test
runners parse it (results and statuses as KEY=VALUE lines that may go on, `INSTRUMENTATION_CODE`, a crash as
`shortMsg`).

The folder in ADB_STANDIN holds what there is, one file each:

    devices      lines after `List of devices attached`
    properties   what `getprop` prints
    installed    one component per line that `am instrument` finds
    answer       what `am instrument` prints for one of these
    refusal      what `install` prints when it refuses; without it the .apk's text is a component that it installs
    hang         name of a command that never ends
    calls        written: one line per call
"""

import os
import sys
import time
from pathlib import Path

DEVICE = "emulator-5554          device product:husky model:Pixel_8_Pro device:husky transport_id:1\n"
PROPERTIES = """[ro.build.version.release]: [14]
[ro.build.version.sdk]: [34]
[ro.hardware]: [husky]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 8 Pro]
[ro.soc.manufacturer]: [Google]
[ro.soc.model]: [Tensor G3]
"""


def install(folder: Path) -> Path:
    """Write `adb` and an empty state into `folder`: this file, run by the tests' own Python; return its path."""
    program = folder / "adb"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" "$@"\n')
    program.chmod(0o755)
    (folder / "devices").write_text(DEVICE)
    (folder / "properties").write_text(PROPERTIES)
    return program


def _not_found(component: str) -> int:
    print("INSTRUMENTATION_STATUS: id=ActivityManagerService")
    print(f"INSTRUMENTATION_STATUS: Error=Unable to find instrumentation info for: ComponentInfo{{{component}}}")
    print("INSTRUMENTATION_STATUS_CODE: -1")
    print(f"android.util.AndroidException: INSTRUMENTATION_FAILED: {component}", file=sys.stderr)
    return 1


def main() -> int:
    state = Path(os.environ["ADB_STANDIN"])

    def text(name: str) -> str:
        return (state / name).read_text() if (state / name).is_file() else ""

    words = sys.argv[1:]
    with (state / "calls").open("a") as stream:
        stream.write(" ".join(words) + "\n")
    serial = ""
    if words[:1] == ["-s"]:
        serial, words = words[1], words[2:]
    if text("hang").strip() in words:
        time.sleep(600)
    if words == ["version"]:
        print("Android Debug Bridge version 1.0.41\nVersion 34.0.5-11580240\nInstalled as /usr/bin/adb")
        return 0
    if words == ["devices", "-l"]:
        print("* daemon not running; starting now at tcp:5037\n* daemon started successfully", file=sys.stderr)
        print(f"List of devices attached\n{text('devices')}")
        return 0
    if serial not in {line.split()[0] for line in text("devices").splitlines() if line.strip()}:
        print(f"adb: device '{serial}' not found", file=sys.stderr)
        return 1
    if words == ["shell", "getprop"]:
        print(text("properties"), end="")
        return 0
    if words[:3] == ["install", "-r", "-t"]:
        print("Performing Streamed Install")
        if refusal := text("refusal"):
            print(refusal, file=sys.stderr)
            return 1
        (state / "installed").write_text(text("installed") + Path(words[3]).read_text())
        print("Success")
        return 0
    if words[:6] == ["shell", "am", "instrument", "-w", "-r", "-e"]:
        component = words[-1]
        if component not in text("installed").split():
            return _not_found(component)
        print(text("answer"), end="")
        return 0
    print(f"adb: unknown command {words[0] if words else ''}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
