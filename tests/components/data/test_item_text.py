import pytest

from components.data.item_text import MAX_FIELD, clean_field, item_text


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Tom &amp; Jerry", "Tom & Jerry."),
        ("It ends...", "It ends."),
        ('A "quoted"\nword\r\n', "A quoted word."),
        ("<b>bold</b> claim", "bold claim."),
        (["Toys", "Cats &amp; Dogs"], "Toys Cats & Dogs."),
        (["Toys", None], "Toys."),
        (1995, "1995."),
        ("日本語", "日本語."),
        ("", ""),
        (None, ""),
        ("...", ""),
        ("x" * MAX_FIELD, ""),
    ],
)
def test_clean_field(raw: object, clean: str) -> None:
    assert clean_field(raw) == clean  # type: ignore[arg-type]


def test_fields_are_joined_in_order_and_gaps_leave_no_trace() -> None:
    assert item_text(["Title.", None, "Brand"]) == "Title. Brand."
    assert item_text([None, ""]) == ""
    assert item_text(["x" * MAX_FIELD, "kept"]) == "kept."
