"""What can be asked for."""

from typing import Any

import pytest

from nas.errors import UserError
from nas.fidelity.options import FidelityOptions, parse_bands


def test_bands_are_read_from_text_and_sorted() -> None:
    assert FidelityOptions(bands=parse_bands("4,1.5,2")).bands == (1.5, 2.0, 4.0)
    with pytest.raises(UserError, match="bands '1,x' must be numbers of MMACs"):
        parse_bands("1,x")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_architectures": 2}, "num_architectures is 2; it must be 3 or more"),
        ({"repeats": 0}, "repeats is 0; it must be 1 or more"),
        ({"workers": 0}, "workers is 0"),
        ({"draws": "odd"}, "draws is 'odd'; it must be even or families"),
        ({"band_width_pct": 0.0}, "band_width_pct is 0"),
        ({"bands": (0.0, 1.0)}, "bands are at 0 MMACs"),
        ({"bands": (float("nan"),)}, "bands are at nan MMACs"),
        ({"bands": (1.0, 1.05)}, "bands 1 and 1.05 overlap at a width of 5%"),
        ({"bands": (1.0, 2.0, 3.0, 4.0), "num_architectures": 3}, "num_architectures is 3 for 4 bands"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FidelityOptions(**values)
