"""Says which requirements of Documentation/requirements.toml a test is for."""

import pytest


def requirement(*numbers: int) -> pytest.MarkDecorator:
    """Puts them into the name of the test: R12, or R1+R2; `make rfc` finds them by this call."""
    name = "+".join(f"R{number}" for number in numbers)
    return pytest.mark.parametrize("_requirement", [None], ids=[name], indirect=True)
