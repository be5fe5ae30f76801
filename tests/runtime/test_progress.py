"""What is said where somebody has stopped listening."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.fast

SAYS = """
import os, sys
from metalr.runtime import progress
here, there = os.pipe()
os.close(here)
os.dup2(there, {deaf}.fileno())
print("before", file={other}, flush=True)
progress.say("lost", {deaf})
print("after", file={other}, flush=True)
"""


@pytest.mark.parametrize(
    ("deaf", "other"), [("stderr", "stdout"), ("stdout", "stderr")]
)
def test_a_stream_that_nobody_reads_silences_no_other(deaf, other):
    code = SAYS.format(deaf=f"sys.{deaf}", other=f"sys.{other}")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert getattr(done, other) == "before\nafter\n"
