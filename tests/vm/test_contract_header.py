"""The C header: it compiles strictly, and says what abi.py says, all of it."""

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

import abi

INCLUDE = Path(__file__).parents[2] / "include/uapi"
HEADER = (INCLUDE / "linux/tcp_authopt.h").read_text()

STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{INCLUDE}"]

PROGRAM = """
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <linux/tcp_authopt.h>

int main(void)
{
    %s
    return 0;
}
"""

STRUCTS = {
    "tcp_authopt": (abi.AUTHOPT, dict(zip(abi.Authopt._fields, (0, 4, 5, 6, 7), strict=True))),
    "tcp_authopt_key": (abi.AUTHOPT_KEY, abi.AUTHOPT_KEY_OFFSETS),
    "tcp_repair_authopt": (
        abi.REPAIR_AUTHOPT,
        dict(zip(abi.RepairAuthopt._fields, range(0, 24, 4), strict=True)),
    ),
}


def constants_in_header() -> list[str]:
    """Every constant: macros with a value, and enumerators."""
    macros = re.findall(r"^#define\s+(\w+)[ \t]+\S", HEADER, re.M)
    enumerators = re.findall(r"^\t(\w+)\s*=[^=]", HEADER, re.M)
    return macros + enumerators


def structs_in_header() -> dict[str, list[str]]:
    """Every structure, and its fields in their order."""
    found = re.findall(r"^struct (\w+) \{\n(.*?)^\};", HEADER, re.M | re.S)
    return {name: re.findall(r"(\w+)(?:\[\w+\])?;", body) for name, body in found}


def constants() -> dict[str, int]:
    """What abi.py has for each constant, under a name without the prefix where that tells."""
    short = {
        "TCP_AUTHOPT_MAXKEYLEN": "MAX_KEY_LENGTH",
        "TCP_AUTHOPT_VRFNAMELEN": "VRF_NAME_LENGTH",
    }
    return {
        f"(long long){name}": getattr(
            abi, short.get(name) or re.sub(r"^TCP_AUTHOPT_(?=(FLAG|KEY|ALG)_)", "", name)
        )
        for name in constants_in_header()
    }


def layouts() -> dict[str, int]:
    """What abi.py has for sizes and offsets, and for each integer all of whose bits are set.

    The last tells both its width and its sign.
    """
    expected = {}
    for name, (layout, offsets) in STRUCTS.items():
        expected[f"(long long)sizeof({name})"] = layout.size
        ones = layout.unpack(b"\xff" * layout.size)
        for (field, offset), value in zip(offsets.items(), ones, strict=True):
            expected[f"(long long)offsetof(struct {name}, {field})"] = offset
            if isinstance(value, bytes):
                expected[f"(long long)sizeof({name}.{field})"] = len(value)
            else:
                expected[f"(double){name}.{field}"] = int(float(value))
    return expected


@pytest.mark.parametrize(
    "compiler",
    [
        pytest.param(["cc", "-std=c99", "-x", "c"], id="c99"),
        pytest.param(["g++", "-std=c++11", "-x", "c++"], id="c++11"),
    ],
)
def test_header(compiler, tmp_path):
    """Beside <netinet/tcp.h>, without a warning; nothing of it is left out of the comparison."""
    if not shutil.which(compiler[0]):
        pytest.skip(f"there is no {compiler[0]}")
    assert len(constants_in_header()) == 3 + 5 + 19 + 3 + 2
    assert structs_in_header() == {name: list(fields) for name, (_, fields) in STRUCTS.items()}
    expected = constants() | layouts()
    statements = [
        f"struct {name} {name}; memset(&{name}, 0xff, sizeof({name}));" for name in STRUCTS
    ]
    for expression in expected:
        form = "%.0f" if expression.startswith("(double)") else "%lld"
        statements.append(f'printf("{form}\\n", {expression});')
    source, program = tmp_path / "program", tmp_path / "a.out"
    source.write_text(PROGRAM % "\n    ".join(statements))
    subprocess.run([*compiler, *STRICT, "-o", program, source], check=True)
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    assert dict(zip(expected, map(int, printed), strict=True)) == expected


def test_offsets_are_those_of_the_packed_layouts():
    """abi.py packs by a format and pokes by an offset: they must not differ."""
    for layout, offsets in STRUCTS.values():
        codes = re.findall(r"\d+s|[a-zA-Z]", layout.format)
        sizes = [struct.calcsize("=" + code) for code in codes]
        assert list(offsets.values()) == [sum(sizes[:index]) for index in range(len(sizes))]
