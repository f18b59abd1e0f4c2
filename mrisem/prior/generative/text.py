"""Text that a generator is given: by default made of the contrast and anatomy of the scan."""

from __future__ import annotations

from mrisem.errors import InputError

# fastMRI's name of an acquisition -> words for its contrast and anatomy
WORDS = {
    "AXT1": ("T1", "brain"),
    "AXT1PRE": ("T1", "brain"),
    "AXT1POST": ("T1", "brain"),
    "AXT2": ("T2", "brain"),
    "AXFLAIR": ("FLAIR", "brain"),
    "CORPD_FBK": ("PD", "knee"),
    "CORPDFS_FBK": ("fat-suppressed PD", "knee"),
}
DEFAULT_TEXT = "high-quality {contrast} MRI of the {anatomy}"


def fill(text: str, acquisition: str) -> str:
    """Put the words of a scan in place of ``{contrast}`` and ``{anatomy}``.

    Args:
        text: text with any of the two.
        acquisition: fastMRI's name of the scan's acquisition.

    Raises:
        InputError: when the text has other braces, or the acquisition's words are not known.

    >>> fill(DEFAULT_TEXT, "AXT2")
    'high-quality T2 MRI of the brain'
    """
    unknown = acquisition not in WORDS
    contrast, anatomy = ("", "") if unknown else WORDS[acquisition]
    try:
        filled = text.format(contrast=contrast, anatomy=anatomy)
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"prior.text may hold {{contrast}} and {{anatomy}} and no other braces, got {text!r}; "
            "correct it"
        ) from error
    if unknown and filled != text:
        raise InputError(
            f"the words of a scan are known of {', '.join(WORDS)}, got {acquisition!r}; write "
            "prior.text without {contrast} and {anatomy}"
        )
    return filled
