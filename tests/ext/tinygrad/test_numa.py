"""Memory nodes are read from a folder laid out as the kernel's; the calls are the real ones, over the nodes that this machine has."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from ext.tinygrad import numa, pages, system_files
from ext.tinygrad.kernels.packed import memory

FIRST_NODE = numa.numbers(system_files.read(Path("/sys/devices/system/node/has_memory")))[:1]


def refusal() -> str:
    """Why the calls cannot be tried here; nothing where they can."""
    try:
        numa.policy()
        numa._mbind(np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.uint8), FIRST_NODE)
    except OSError as error:
        return str(error)
    return "" if FIRST_NODE else "the system tells of no memory nodes"


real = pytest.mark.skipif(bool(refusal()), reason=refusal() or "-")


@pytest.fixture
def machine(tmp_path: Path):
    """A machine by its nodes' processors and those of them that have memory."""

    def make(cpus: dict[int, str], has_memory: str, allowed: str | None = None) -> Path:
        folder = tmp_path / "sys/devices/system/node"
        for node, listed in cpus.items():
            (folder / f"node{node}").mkdir(parents=True)
            (folder / f"node{node}/cpulist").write_text(listed + "\n")
        (folder / "online").write_text(",".join(map(str, cpus)) + "\n")
        (folder / "has_memory").write_text(has_memory + "\n")
        if allowed is not None:
            (tmp_path / "proc/self").mkdir(parents=True)
            (tmp_path / "proc/self/status").write_text(f"Name:\tpython\nMems_allowed:\tff\nMems_allowed_list:\t{allowed}\n")
        return tmp_path

    return make


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """The calls that would be made, none of which the system sees."""
    made: list[tuple] = []
    monkeypatch.setattr(numa, "_call", lambda which, *arguments: made.append((which, *arguments)))
    return made


@pytest.mark.parametrize("text, numbers", [("0", [0]), ("0-2,8\n", [0, 1, 2, 8]), ("", []), ("\n", []), ("none", [])])
def test_lists_of_the_kernel(text, numbers):
    assert numa.numbers(text) == numbers


def test_two_nodes_are_interleaved(machine, calls):
    here = numa.find_placement(machine({0: "0-3,8-11", 1: "4-7,12-15"}, "0-1", "0-1"), {2, 5})
    assert here == numa.Placement((0, 1), interleaved=True)
    assert here.describe() == "memory of nodes 0, 1: weights interleaved over them, KV caches by first touch"
    assert here.to_json() == {"nodes": [0, 1], "weights": "interleaved", "kv_caches": "first touch", "reason": None}


@pytest.mark.parametrize(
    "cpus, has_memory, allowed, mine, nodes, why",
    [
        ({0: "0-3"}, "0", "0", {0, 1}, (0,), ""),
        ({0: "0-3", 1: "4-7"}, "0", None, {0, 4}, (0,), ""),  # all memory is on one node
        ({0: "0-3", 1: "4-7"}, "0-1", None, {0, 3}, (0, 1), "this process runs on node 0 alone"),
        ({0: "0-3", 1: "4-7"}, "0-1", "1", {0, 4}, (1,), "this process may take memory of no other"),
        ({0: "0-3", 1: "4-7", 2: ""}, "0-2", "0,2", {0, 1}, (0, 2), "this process runs on node 0 alone"),
    ],
)
def test_elsewhere_nothing_is_asked_of_the_system(machine, calls, cpus, has_memory, allowed, mine, nodes, why):
    here = numa.find_placement(machine(cpus, has_memory, allowed), mine)
    assert here == numa.Placement(nodes, reason=why)
    assert why in here.describe() and "weights and KV caches by first touch" in here.describe()
    assert not calls


def test_memory_without_processors_is_taken_too(machine, calls):
    assert numa.find_placement(machine({0: "0-3", 1: "4-7", 2: ""}, "0-2"), {0, 4}) == numa.Placement((0, 1, 2), interleaved=True)


def test_a_system_without_nodes_says_nothing(tmp_path):
    assert numa.find_placement(tmp_path, {0}) == numa.Placement(())
    assert numa.find_placement(tmp_path, {0}).describe() == ""


def test_a_refusal_is_said_and_changes_nothing(machine, monkeypatch):
    def refuse(which: int, *arguments: object) -> None:
        if which == 0:
            raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(numa, "_call", refuse)
    here = numa.find_placement(machine({0: "0", 1: "1"}, "0-1"), {0, 1})
    assert not here.interleaved and here.reason == "interleaving is refused: Operation not permitted"
    monkeypatch.setattr(numa, "placement", lambda: numa.Placement((0, 1), interleaved=True))
    arena = memory.Arena(1 << 20, spread=True)  # allowed when it was tried, refused now
    assert not arena.take(100).any()


def test_a_policy_from_outside_is_kept(machine, monkeypatch):
    monkeypatch.setattr(numa, "policy", lambda: (numa.MPOL_INTERLEAVE, [0, 1]))
    monkeypatch.setattr(numa, "_mbind", lambda *_: pytest.fail("it has a policy"))
    assert "policy of its own" in numa.find_placement(machine({0: "0", 1: "1"}, "0-1"), {0, 1}).reason


def test_an_unknown_machine_is_refused_here_already(monkeypatch):
    monkeypatch.setattr(numa.platform, "machine", lambda: "sparc64")
    with pytest.raises(OSError, match="sparc64"):
        numa.policy()


@real
def test_weights_are_interleaved_and_caches_are_not(monkeypatch):
    nodes = tuple(numa.numbers(system_files.read(Path("/sys/devices/system/node/has_memory"))))
    monkeypatch.setattr(numa, "placement", lambda: numa.Placement(nodes, interleaved=True))
    monkeypatch.setattr(memory, "_current", None)
    for weights in (memory.Arena(3 << 20, spread=True).take(3 << 20), memory.allocate(5 << 20)):
        assert numa.policy(weights) == numa.policy(weights[-1:]) == (numa.MPOL_INTERLEAVE, list(nodes))
        weights[:] = 7
        assert weights.min() == 7
    assert numa.policy(memory.Arena(1 << 20).take(1 << 20))[0] == numa.MPOL_DEFAULT


@real
def test_files_are_read_onto_the_nodes_in_turn(monkeypatch, tmp_path):
    during = []
    monkeypatch.setattr(numa, "placement", lambda: numa.Placement(tuple(FIRST_NODE), interleaved=True))
    monkeypatch.setattr(pages, "_advise", lambda view, advice: during.append((advice, numa.policy())))
    pages.populate(np.zeros(100, np.uint8))
    assert during[-1] == (pages.MADV_POPULATE_READ, (numa.MPOL_INTERLEAVE, FIRST_NODE))
    assert numa.policy() == (numa.MPOL_DEFAULT, [])


@real
def test_a_machine_of_one_node_makes_no_call(monkeypatch):
    monkeypatch.setattr(numa, "placement", lambda: numa.Placement((0,)))
    monkeypatch.setattr(numa, "_call", lambda *_: pytest.fail("there is nothing to place"))
    memory.Arena(1 << 20, spread=True)
    pages.populate(np.zeros(100, np.uint8))
