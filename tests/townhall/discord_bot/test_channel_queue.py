"""Work of channels: in order, bounded, taken back."""

import asyncio

from townhall.discord_bot.channel_queue import ChannelQueues, ChannelWork


def run(story):
    asyncio.run(story())


def test_a_channel_does_one_thing_after_the_other_and_others_do_not_wait():
    async def story():
        order, gate = [], asyncio.Event()

        def work(name, wait=False):
            async def act(_):
                order.append(f"{name} begins")
                if wait:
                    await gate.wait()
                order.append(f"{name} ends")

            return ChannelWork(act)

        queues = ChannelQueues(9, 9, order.append)
        for channel, one in ((1, work("a", wait=True)), (1, work("b")), (2, work("c"))):
            assert queues.put(channel, one)
        for _ in range(5):
            await asyncio.sleep(0)
        assert order == ["a begins", "c begins", "c ends"] and queues.waiting(1) == 1
        gate.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert order[3:] == ["a ends", "b begins", "b ends"] and queues.waiting(1) == 0

    run(story)


def test_bounds_of_a_channel_and_of_a_person_and_what_fails():
    async def story():
        done, failures, gate = [], [], asyncio.Event()

        async def act(work):
            await gate.wait()
            if work.message == 2:
                raise ValueError("broken")
            done.append(work.message)

        queues = ChannelQueues(4, 2, failures.append)
        taken = [queues.put(1, ChannelWork(act, message, user)) for message, user in ((1, 7), (2, 7), (3, 7), (4, 8), (5, 8), (6, 9))]
        assert taken == [True, True, False, True, True, False]
        gate.set()
        while queues.waiting(1):
            await asyncio.sleep(0)
        await queues.close()
        assert done == [1, 4, 5] and [str(error) for error in failures] == ["broken"]

    run(story)


def test_what_is_taken_back_does_not_wait_and_is_stopped_under_way():
    async def story():
        done, stopped, gate = [], [], asyncio.Event()

        async def act(work):
            work.on_stop = gate.set
            await gate.wait()
            (stopped if work.stopped else done).append(work.message)
            gate.clear()

        queues = ChannelQueues(9, 9, done.append)
        for message in (1, 2, 3):
            queues.put(1, ChannelWork(act, message))
        await asyncio.sleep(0)
        queues.cancel(1, 2)
        queues.cancel(1, 1)
        queues.cancel(1, 99)
        while queues.waiting(1):
            await asyncio.sleep(0)
        assert stopped == [1] and not done
        await queues.close()
        assert stopped == [1, 3]

    run(story)


def test_the_end_does_not_wait_for_what_cannot_end():
    async def story():
        queues = ChannelQueues(9, 9, print)
        queues.put(1, ChannelWork(lambda _: asyncio.Event().wait()))
        await asyncio.sleep(0)
        await queues.close(grace=0)
        assert queues.waiting(1) == 0

    run(story)
