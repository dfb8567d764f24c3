"""Sizes of work-groups: a table by kind of device, cut to what the device can do."""

from dataclasses import dataclass

from ext.tinygrad.opencl import CLDeviceInfo

ROW_ITEMS = {"gpu": 16, "accelerator": 16, "cpu": 4}  # items that share a row of a decode product: times 16 rows they are a work-group
PLAIN_ITEMS = {"gpu": 128, "accelerator": 128, "cpu": 16}  # of a work-group that goes over a row
MOST_SPLITS = 32
SPLIT_POSITIONS = 64  # of the window that a split should have at least


@dataclass(frozen=True)
class Tuning:
    """What suits one device. Any numbers give the same results, but for the order of sums."""

    kind: str  # "gpu", "accelerator" or "cpu"
    units: int  # compute units
    most_items: int  # of a work-group
    local_bytes: int

    @classmethod
    def of(cls, device: CLDeviceInfo) -> "Tuning":
        return cls(device.kind, device.units, device.most_items, device.local_bytes)

    @property
    def plain_items(self) -> int:
        return min(PLAIN_ITEMS[self.kind], self.most_items)

    def row_items(self, cols: int, groups: int) -> int:
        """A power of two, with as many groups of 16 rows in a work-group; none is left without a block of 32 columns."""
        most = min(ROW_ITEMS[self.kind], self.most_items // (16 * groups), max(1, cols // 32))
        return 1 << (most.bit_length() - 1)

    def attend_items(self, head_dim: int) -> int:
        """Whole positions, of head_dim / 4 items each."""
        width = head_dim // 4
        return width * max(1, min(128, self.most_items) // width)

    def attend_splits(self, rows: int, groups: int) -> int:
        """Enough work-groups for every compute unit, where the window is long enough to be split."""
        return max(1, min(-(-2 * self.units // groups), rows // SPLIT_POSITIONS, MOST_SPLITS))

    def attend_chunk(self, head_dim: int) -> int:
        """Positions of a prefill's attention tile: keys and queries share the local memory."""
        rows = self.local_bytes // 4 // (head_dim + 1)  # of floats that fit
        return next((chunk for chunk in (32, 16, 8) if 16 + chunk + 4 <= rows), 8)
