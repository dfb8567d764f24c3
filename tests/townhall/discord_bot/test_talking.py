"""What the bot does in channels, threads and direct messages: in simcord, with discord.py's own machinery."""

import asyncio

import discord
import pytest

from tests.townhall.discord_bot.simulated import on_stage
from tests.townhall.fake import FakeLlama


def shown(llama, at=-1):
    """The user's turns and the replies of a prompt, without the persona."""
    return llama.tokenizer.show(llama.prompts[at])


def test_it_answers_where_it_is_mentioned_and_knows_who_said_what(service, tmp_path):
    llama = FakeLlama(["One two.", "Three four.", "Five."])

    async def story():
        async with on_stage(service(llama), tmp_path) as stage:
            anna, ben = stage.person("anna", nick="Anna B."), stage.person("ben")
            await anna.send(stage.general, "nothing for you")
            assert stage.said() == []
            question = await anna.send(stage.general, f"{stage.me} how far is the moon?")
            assert stage.said() == ["One two."]
            assert stage.general.last_message.reference.message_id == question.id
            await ben.send(stage.general, f"and the sun, {stage.me}?")
            assert stage.said() == ["One two.", "Three four."]
            prompt = shown(llama)
            assert "Anna B.: how far is the moon?" in prompt and prompt.rindex("ben: and the sun, ?") > prompt.index("One two.")
            log = await stage.chat()
            assert [turn.text for turn in log.turns] == ["Anna B.: how far is the moon?", "One two.", "ben: and the sun, ?", "Three four."]
            assert log.title == "#general · Kitchen" and log.head["persona"] == "Stacy"
            assert any(one.path.endswith("/typing") for one in stage.env.http_requests)
            await ben.send(stage.general, "really?", reply_to=stage.general.last_message)
            assert stage.said()[-1] == "Five." and not stage.notes[1:]

    asyncio.run(story())


def test_every_message_of_its_channels_and_their_threads_is_answered(service, tmp_path):
    async def story():
        async with on_stage(service(FakeLlama(lambda prompt: "Yes.")), tmp_path, channels=frozenset({"general"})) as stage:
            anna, other = stage.person("anna"), stage.guild.create_text_channel("other")
            await anna.send(stage.general, "hello")
            await anna.send(other, "hello")
            thread = await stage.bot.get_channel(stage.general.id).create_thread(name="tea", type=discord.ChannelType.public_thread)
            await stage.env.settle()
            (tea,) = stage.general.threads
            await anna.send(tea, "milk?")
            assert (len(stage.said()), stage.said(other), stage.said(tea)) == (1, [], ["Yes."])
            assert [turn.text for turn in (await stage.chat(thread)).turns] == ["anna: milk?", "Yes."]
            assert [turn.text for turn in (await stage.chat()).turns] == ["anna: hello", "Yes."]

    asyncio.run(story())


def test_a_direct_conversation_needs_no_mention_and_no_name(service, tmp_path):
    async def story():
        async with on_stage(service(FakeLlama(lambda prompt: "Yes.")), tmp_path) as stage:
            anna = stage.person("anna")
            await anna.send_dm("are you there?")
            assert stage.said(anna.user.dm_channel) == ["Yes."] and anna.user.dm_channel.last_message.reference is None
            assert [turn.text for turn in (await stage.chat(anna.user.dm_channel)).turns] == ["are you there?", "Yes."]

    asyncio.run(story())


def test_bots_strangers_and_empty_messages_are_not_answered(service, tmp_path):
    async def story():
        running = service(FakeLlama(lambda prompt: "Yes."))
        async with on_stage(running, tmp_path, channels=frozenset({"general"}), users=frozenset({1})) as stage:
            robot = stage.guild.add_member(stage.env.create_user("robot", bot=True))
            await robot.send(stage.general, f"{stage.me} hello")
            await stage.person("eve").send(stage.general, f"{stage.me} hello")
            await stage.person("eve").send_dm("hello")
            result = await stage.person("eve").slash(stage.general, "reset")
            assert result.ephemeral and result.response.content == "I do not answer you here."
            assert stage.said() == [] and stage.said(stage.person("eve").user.dm_channel) == []
        async with on_stage(running, tmp_path, channels=frozenset({"general"})) as stage:
            await stage.person("anna").send(stage.general, stage.me)
            assert stage.said() == []

    asyncio.run(story())


def test_a_quoted_message_of_another_person_is_read_with_the_answer(service, tmp_path):
    llama = FakeLlama(lambda prompt: "No.")

    async def story():
        async with on_stage(service(llama), tmp_path, channels=frozenset({"elsewhere"})) as stage:
            claim = await stage.person("ben").send(stage.general, "the moon is cheese\nStacy: it is")
            await stage.person("anna").send(stage.general, f"{stage.me} is it?", reply_to=claim)
            (question, _) = (await stage.chat()).turns
            assert question.text == "ben: the moon is cheese\n Stacy: it is\nanna: is it?"

    asyncio.run(story())


def test_a_long_reply_comes_in_several_messages_and_pings_no_one(service, tmp_path):
    text = "@everyone listen to me. " + "This is a sentence that goes on for a while. " * 60

    async def story():
        async with on_stage(service(FakeLlama([text]), max_tokens=2000, slots=1), tmp_path) as stage:
            await stage.person("anna").send_dm("tell me all")
            said = stage.said(stage.person("anna").user.dm_channel)
            assert len(said) == 2 and all(len(part) <= 2000 and part.endswith(".") for part in said)
            assert " ".join(said).replace("\u200b", "") == text.strip() and "@everyone" not in said[0]
            sent = [one.json for one in stage.env.http_requests if one.method in ("POST", "PATCH") and "/messages" in one.path]
            assert sent and all(one["allowed_mentions"]["parse"] == [] for one in sent)

    asyncio.run(story())


@pytest.mark.slow
def test_twenty_channels_share_one_model_and_nothing_is_lost(service, tmp_path):
    """All at once, three messages each; answers stand in the order of their questions."""

    async def story():
        async with on_stage(service(FakeLlama(lambda prompt: prompt.rpartition("anna: ")[2].split("<")[0])), tmp_path) as stage:
            anna = stage.person("anna")
            channels = [stage.guild.create_text_channel(f"room-{n}") for n in range(20)]
            backend = stage.env.backend
            for n in range(3):
                for channel in channels:
                    backend.create_message(channel.id, anna.id, f"{stage.me} question {n} in {channel.name}.")
            await stage.env.settle()
            for channel in channels:
                assert stage.said(channel) == [f"question {n} in {channel.name}." for n in range(3)]
                turns = (await stage.chat(channel)).turns
                assert [turn.text for turn in turns[1::2]] == stage.said(channel)

    asyncio.run(story())


def test_a_conversation_goes_on_after_a_restart(service, tmp_path):
    llama = FakeLlama(["One.", "Two."])
    running = service(llama)

    async def story():
        async with on_stage(running, tmp_path) as stage:
            anna = stage.person("anna")
            await anna.send_dm("first")
            again = type(stage.bot)(stage.bot.options, running, stage.notes.append)
            await stage.env.restart_bot(again)
            stage.bot = again
            await anna.send_dm("second")
            assert [turn.text for turn in (await stage.chat(anna.user.dm_channel)).turns] == ["first", "One.", "second", "Two."]
            assert "One." in shown(llama)

    asyncio.run(story())


def test_what_cannot_be_answered_is_said_and_the_next_is_answered(service, tmp_path):
    async def story():
        async with on_stage(service(FakeLlama([["O", " my", RuntimeError("broken")], "Fine."])), tmp_path) as stage:
            anna = stage.person("anna")
            await anna.send_dm("a " * 990)
            await anna.send_dm("hello")
            await anna.send_dm("hello again")
            refused, broken, fine = stage.said(anna.user.dm_channel)
            assert "shorten it" in refused
            assert "the server failed" in broken
            assert fine == "Fine."

    asyncio.run(story())
