"""What `import mrisem` offers."""

import re
from pathlib import Path

import pytest

import mrisem

ROOT = Path(mrisem.__file__).parent


def test_stub_names_what_is_offered():
    stub = (ROOT / "__init__.pyi").read_text()
    assert set(re.findall(r"import \w+ as (\w+)", stub)) == set(mrisem._EXPORTED)
    assert (ROOT / "py.typed").exists()


@pytest.mark.parametrize("name", mrisem._EXPORTED)
def test_every_name_is_there_and_documented(name):
    assert name in dir(mrisem)
    assert getattr(mrisem, name).__doc__


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        mrisem.laod  # noqa: B018
