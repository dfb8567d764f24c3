"""A kernel's source says that one call may take several tasks, and what these read."""

import pytest

from ext.tinygrad.graph.task_ranges import WHOLE, Stretch, declare, declared


@pytest.mark.parametrize("reads", [(), (Stretch(5, 0, 207360, 0, 39321), Stretch(6, 128, 69120, 39321, WHOLE))])
def test_what_a_source_declares_is_read_again(reads):
    assert declared(f"// compiler\n{declare(reads)}#define ENTRY linear\n") == reads


def test_other_sources_take_one_task_a_call():
    assert declared("void f(int core_id) {}") is None
    assert declared("") is None
    assert declared("// a\n// b\n// task ranges []\n") is None, "only the head of a source is looked at"
