"""Which cache a prompt continues."""

from pathlib import Path

from tests.townhall.fake import FakeCache
from townhall.server.slots import SlotRequest, Slots, common_prefix

HEAD = list(range(100, 150))


def pool(most=2):
    slots = Slots(lambda adapters: FakeCache(1000), most)
    slots.pin(FakeCache(1000, list(HEAD)))
    return slots


def hold(slots, ids, lane="chat", before=(), once=False):
    """Take a slot for a prompt, fill it as the engine would, and give it back; → the slot and what of the prompt was there."""
    slot = slots.take(wanted := SlotRequest(ids, len(HEAD), lane, before, once))
    slots.settle(slot, wanted)
    cached = common_prefix(slot.cache.tokens, ids)
    slot.cache.tokens = list(ids)
    slots.give_back(slot)
    return slot, cached


def test_a_new_conversation_begins_with_a_copy_of_the_head():
    slots = pool()
    assert hold(slots, [*HEAD, 1, 2])[1] == len(HEAD)


def test_the_longest_common_prefix_wins():
    slots = pool()
    first, _ = hold(slots, [*HEAD, *range(1, 40)])
    second, _ = hold(slots, [*HEAD, *range(41, 80)])
    assert first is not second
    assert hold(slots, [*HEAD, *range(41, 80), 7, 8]) == (second, len(HEAD) + 39)
    assert hold(slots, [*HEAD, *range(1, 40), 7, 8]) == (first, len(HEAD) + 39)


def test_a_new_conversation_takes_the_least_recently_used_slot():
    slots = pool()
    first, _ = hold(slots, [*HEAD, *range(1, 40)])
    second, _ = hold(slots, [*HEAD, *range(41, 80)])
    hold(slots, [*HEAD, *range(1, 40), 9])
    assert slots.evicted == 0
    assert hold(slots, [*HEAD, 99, 98]) == (second, len(HEAD))
    assert slots.evicted == 1


def test_an_edited_message_goes_on_in_its_own_slot():
    slots = pool()
    first, _ = hold(slots, [*HEAD, *range(1, 60)])
    assert hold(slots, [*HEAD, *range(1, 50), 99]) == (first, len(HEAD) + 49)


def test_a_branch_that_shares_little_copies_it_and_leaves_the_other_be():
    slots = pool()
    first, _ = hold(slots, [*HEAD, *range(1, 200)])
    branch, cached = hold(slots, [*HEAD, *range(1, 60), 99])
    assert branch is not first and cached == len(HEAD) + 59
    assert first.cache.tokens == [*HEAD, *range(1, 200)]


def test_a_busy_slot_lends_its_prefix_and_nothing_else():
    slots = pool()
    busy = slots.take(SlotRequest([*HEAD, *range(1, 40)], len(HEAD)))
    busy.cache.tokens = [*HEAD, *range(1, 40)]
    other, cached = hold(slots, [*HEAD, *range(1, 40), 5])
    assert other is not busy and cached == len(HEAD) + 39
    other.busy = True
    assert slots.take(SlotRequest([*HEAD, 3], len(HEAD))) is None


def test_the_background_lane_has_a_slot_of_its_own():
    slots = pool(most=1)
    chat, _ = hold(slots, [*HEAD, *range(1, 40)])
    background, _ = hold(slots, [*HEAD, 77, 78], lane="background")
    assert background is not chat and hold(slots, [*HEAD, 55], lane="background")[0] is background
    assert hold(slots, [*HEAD, *range(1, 40), 6]) == (chat, len(HEAD) + 39)


def test_what_is_asked_once_puts_no_conversation_out():
    slots = pool(most=1)
    chat, _ = hold(slots, [*HEAD, *range(1, 40)])
    for title in ([*HEAD, 77, 78], [*HEAD, 87, 88]):
        assert hold(slots, title, once=True)[0] is not chat
    assert hold(slots, [*HEAD, *range(1, 40), 6]) == (chat, len(HEAD) + 39)
    # that one did go on after all: its beginning is copied
    aside, _ = hold(slots, [*HEAD, *range(200, 240)], once=True)
    assert hold(slots, [*HEAD, *range(200, 240), 5]) == (chat, len(HEAD) + 40)


def test_what_is_asked_once_waits_for_a_slot_as_everybody_does():
    slots = pool(most=1)
    hold(slots, [*HEAD, *range(1, 40)])
    slots.take(SlotRequest([*HEAD, *range(1, 40), 6], len(HEAD)))
    assert slots.take(SlotRequest([*HEAD, 77], len(HEAD), once=True)) is None


def test_what_is_asked_once_takes_a_slot_that_nobody_has():
    slots = pool(most=2)
    first, _ = hold(slots, [*HEAD, *range(1, 40)])
    second, _ = hold(slots, [*HEAD, 77, 78], once=True)
    assert (first.lane, second.lane) == ("chat", "chat")


def test_a_prompt_whose_middle_was_let_go_finds_the_slot_that_had_it():
    slots = pool()
    info = [*HEAD, *range(1, 90)]
    first, _ = hold(slots, info)
    hold(slots, [*HEAD, *range(200, 220)])
    slot = slots.take(SlotRequest([*HEAD, *range(30, 90), 99], len(HEAD), before=[*info, 99]))
    assert slot is first


def test_what_one_set_of_adapters_filled_is_of_no_use_to_another():
    """llama.cpp's issue 26207: adapters that share a prefix of the KV cache contaminate each other's answers."""
    made = []

    def new_cache(adapters):
        made.append(adapters)
        return FakeCache(1000)

    slots, pirate = Slots(new_cache, 2), ((Path("pirate"), 1.0),)
    slots.pin(FakeCache(1000, list(HEAD)), pirate)
    ids = [*HEAD, *range(1, 40)]

    def take(adapters):
        slot = slots.take(wanted := SlotRequest(ids, len(HEAD), adapters=adapters))
        slots.settle(slot, wanted)
        cached = common_prefix(slot.cache.tokens, ids)
        slot.cache.tokens = list(ids)
        slots.give_back(slot)
        return slot, cached

    plain, cached = take(())
    assert cached == 0
    other, cached = take(pirate)
    assert other is not plain and cached == len(HEAD)  # the head that was read with this adapter, and no more
    assert take(pirate) == (other, len(ids)) and take(()) == (plain, len(ids))
    half, cached = take(((Path("pirate"), 0.5),))
    assert (half, cached) == (other, 0) and slots.evicted == 1  # the oldest slot, its cache made anew
    assert made == [(), pirate, ((Path("pirate"), 0.5),)]


def test_a_slot_knows_where_what_it_holds_of_a_prompt_came_from():
    slots = pool()

    def source(ids):
        slot, _ = hold(slots, ids)
        return slot.source

    assert source([*HEAD, *range(1, 60)]) == "persona"
    assert source([*HEAD, *range(1, 70)]) == "conversation"
    assert source([*HEAD, *range(1, 25), 99]) == "other"
    assert source([*HEAD, 500, 501]) == "persona"  # the head that another conversation left behind
