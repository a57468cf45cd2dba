"""Random option buffers: nothing that is refused changes anything, and nothing breaks."""

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.ours

ROOT = Path(__file__).resolve().parents[2]
CALLS = os.environ.get("TAO_HOSTILE_CALLS", "20000")
SEED = os.environ.get("TAO_HOSTILE_SEED") or str(int.from_bytes(os.urandom(4)))
EXPEDITED = Path("/sys/kernel/rcu_expedited")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The program, built as any program is that uses the module."""
    program = tmp_path_factory.mktemp("hostile") / "hostile"
    warnings = ["-Wall", "-Wextra", "-Werror"]
    source = ROOT / "tests/vm/hostile.c"
    include = ROOT / "include/uapi"
    subprocess.run(["cc", *warnings, "-I", include, "-o", program, source], check=True)
    # Each deletion waits for a grace period, of which a random program makes many.
    before = EXPEDITED.read_text()
    EXPEDITED.write_text("1")
    yield program
    EXPEDITED.write_text(before)


def run(program: Path, seed: str, calls: str, *lie: str) -> subprocess.CompletedProcess[str]:
    """What became of it."""
    command = [program, seed, calls, *lie]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    print(result.stdout, result.stderr)
    return result


def test_random_calls(hostile, record_property):
    """The seed is another one in each run; a failure names it, and so does the summary."""
    result = run(hostile, SEED, CALLS)
    assert result.returncode == 0, result.stdout
    assert f"{CALLS} calls" in result.stdout
    record_property("hostile", result.stdout)


@pytest.mark.parametrize(
    ("lie", "complaint"),
    [
        ("keys", "has changed the keys"),
        ("state", "has changed its state"),
        ("rows", "keys are left"),
        ("reach", "past the flag check"),
    ],
)
def test_wrong_expectation_is_noticed(hostile, lie, complaint):
    """The program made to expect what is not so: it has to fail, and to say by what."""
    result = run(hostile, "1", "1000", lie)
    assert result.returncode == 1
    assert complaint in result.stdout
