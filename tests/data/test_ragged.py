"""Arrays that lie one after another: what goes in comes out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metalr.data.ragged import Ragged, Writer

LISTS = st.lists(st.lists(st.integers(0, 3), max_size=4), max_size=6)


@settings(deadline=None)
@given(st.lists(st.tuples(LISTS, st.booleans()), max_size=4))
def test_arrays_come_out_as_they_went_in(parts):
    writer, expected = Writer(np.int32), []
    for lists, zeros in parts:
        writer.extend(None if zeros else lists, lists)
        expected += [[0] * len(values) if zeros else values for values in lists]
    found = writer.finish()
    assert [array.tolist() for array in found] == expected
    assert found.lengths.tolist() == [len(values) for values in expected]
    assert found == Ragged.of([np.array(values, np.int32) for values in expected])
    assert all(array.dtype == np.int32 for array in found)


def test_zeros_alone_take_no_memory():
    writer = Writer(np.int8)
    writer.extend(None, [[1] * 1000] * 1000)
    assert writer.finish().flat.base.nbytes < 1000


def test_places_count_from_both_ends():
    found = Ragged.of([[1], [2, 3]])
    assert found[-1].tolist() == [2, 3] and [a.tolist() for a in found[:1]] == [[1]]
    with pytest.raises(IndexError):
        found[2]
