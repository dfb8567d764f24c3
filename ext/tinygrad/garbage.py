"""Collects tensors, graphs and buffers that nothing refers to any more, with what tinygrad leaves behind of them."""

import gc
import sys


def collect() -> None:
    """A garbage collection; then tinygrad's tables lose their entries for what is gone.

    Tensors and graphs point at each other. Of a tensor that goes in such a cycle, tinygrad 0.14 keeps the weak reference: Tensor.__del__
    looks for it after Python has cleared it. And LRUAllocator.alloc leaves an empty list for each size and address that it was ever asked
    for. A process that exchanges models would grow by a thousand objects each time, and so would the time of each collection.
    """
    gc.collect()
    if not (tensor := sys.modules.get("tinygrad.tensor")):
        return
    for reference in list(tensor.all_tensors):
        if reference() is None:
            tensor.all_tensors.pop(reference, None)
    from tinygrad import Device

    for name in list(Device._opened_devices):
        cached = getattr(Device[name].allocator, "cache", {})
        for key in list(cached):
            if not cached[key] and key[1] is not None and key[1].external_ptr is not None:
                del cached[key]
