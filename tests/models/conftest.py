"""A folder as transformers has it, for tests that read it or hurt it."""

import pytest

from metalr.models import huggingface
from tests.models.exported_models import LABELS, make_model


@pytest.fixture
def folder(tmp_path):
    """Return the folder of a small BERT with a classifier for three labels."""
    huggingface.export(
        tmp_path,
        make_model("classification"),
        "classification",
        LABELS["classification"],
    )
    return tmp_path
