"""Writes the fingerprints of what the evaluation asks: `python -m model.demo.reserve`."""

from __future__ import annotations

from model.demo.data import heldout
from model.demo.data.reserved import FILE, fingerprint, plain


def fingerprints() -> str:
    """Return what `reserved.txt` must hold."""
    wordings = {
        plain(text)
        for texts in (
            heldout.FORWARD, heldout.BACKWARD, heldout.ADD, heldout.SUB, heldout.MUL,
            heldout.ADD_MORE, heldout.SUB_MORE, heldout.NAME_GIVEN, heldout.NAME_ASKED,
            heldout.PLACE_FOLLOW_UPS, heldout.OUTSIDE, heldout.OUTSIDE_PLACES,
            tuple(text for text, _ in heldout.MUL_MORE), tuple(text for text, _ in heldout.TALK),
        )
        for text in texts
    }  # fmt: skip
    return "\n".join(sorted(map(fingerprint, wordings - {""}))) + "\n"


if __name__ == "__main__":
    FILE.write_text(fingerprints(), encoding="ascii")
