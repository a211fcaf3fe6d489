"""Designations: packed as the Minor Planet Center's examples are, numbered as Rubin does."""

import pytest

from core.designations import pack_designation, ss_object_id


@pytest.mark.parametrize(
    ("designation", "packed"),
    [
        ("1995 XA", "J95X00A"),
        ("1995 XL1", "J95X01L"),
        ("1995 FB13", "J95F13B"),
        ("1998 SQ108", "J98SA8Q"),
        ("1998 SV127", "J98SC7V"),
        ("1998 SS162", "J98SG2S"),
        ("2099 AZ193", "K99AJ3Z"),
        ("2008 AA360", "K08Aa0A"),
        ("2007 TA418", "K07Tf8A"),
        ("2026 CA619", "K26Cz9A"),
        ("1898 DQ", "I98D00Q"),
        ("2040 P-L", "PLS2040"),
        ("3138 T-1", "T1S3138"),
        ("2026 CA620", None),
        ("1995 IA", None),
        ("1995 XI", None),
        ("1995 ZA", None),
        ("1995 XL01", None),
        ("C/2012 S1", None),
        ("99 Dike", None),
        ("433", None),
        ("", None),
    ],
)
def test_packing(designation: str, packed: str | None) -> None:
    assert pack_designation(designation) == packed


def test_a_number_is_the_characters_bytes() -> None:
    assert (
        ss_object_id("J95X00A")
        == int.from_bytes(b"J95X00A", "big")
        == sum(ord(c) << 8 * (6 - i) for i, c in enumerate("J95X00A"))
    )
    assert ss_object_id("1995 XA") == ss_object_id("J95X00A")
    assert ss_object_id("CK12S010") == int.from_bytes(b"CK12S010", "big") > 1 << 62


@pytest.mark.parametrize("name", ["", "J95X00", "J95X00A12", "433", "1234567", "99 Dike", "Ł95X00A", "\xff\xff95X00A"])
def test_what_has_no_number(name: str) -> None:
    assert ss_object_id(name) is None
