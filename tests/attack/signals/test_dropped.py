"""A signal that meets a destructor, where Python drops exceptions, still ends the command, without a traceback."""

import subprocess
import sys

CODE = """
import os, signal, time
from edgepack import interrupts

class Object:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)

interrupts.raise_interrupted()
try:
    Object()
    for _ in range(100):
        time.sleep(0.01)
    print("not interrupted")
except interrupts.Interrupted:
    print("interrupted", interrupts.exit_code())
"""


def test_a_signal_in_a_destructor_is_not_lost():
    """The exception is raised outside of the destructor, and nothing is printed about the first one."""
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout.split(), result.stderr) == (["interrupted", "143"], "")
