"""The bot's slash commands, in simcord."""

import asyncio

from tests.townhall.discord_bot.simulated import on_stage
from tests.townhall.fake import FakeLlama
from tests.townhall.server.test_summaries import FACTS, FILLER, TOLD, summarizer
from townhall.persona import load_persona

GARY = load_persona("gary")


def test_a_persona_is_chosen_and_greets_in_a_new_conversation(service, tmp_path):
    async def story():
        async with on_stage(service(FakeLlama(lambda prompt: "Yes.")), tmp_path) as stage:
            anna = stage.person("anna")
            assert set(anna.available_commands(stage.general)) == {"persona", "reset", "retry", "context", "memory"}
            who = await anna.slash(stage.general, "persona")
            assert who.ephemeral and who.response.content == "Stacy speaks here. There are: stacy, gary"
            choices = await anna.autocomplete(stage.general, "persona", "name", "ga")
            assert [(choice["name"], choice["value"]) for choice in choices] == [("Gary", "gary")]
            await anna.send(stage.general, f"{stage.me} hello")
            before = await stage.chat()
            changed = await anna.slash(stage.general, "persona", name="Gary")
            assert not changed.ephemeral and changed.response.content == GARY.greeting
            await anna.send(stage.general, f"{stage.me} hello")
            log = await stage.chat()
            assert log.path != before.path and log.head["persona"] == "Gary"
            assert [turn.text for turn in log.turns] == [GARY.greeting, "anna: hello", "Yes."]
            unknown = await anna.slash(stage.general, "persona", name="@everyone")
            assert unknown.response.content == "There is no persona '@\u200beveryone'; there are: stacy, gary"

    asyncio.run(story())


def test_a_reset_forgets_and_keeps_the_log(service, tmp_path):
    llama = FakeLlama(lambda prompt: "Yes.")

    async def story():
        async with on_stage(service(llama), tmp_path) as stage:
            anna = stage.person("anna")
            await anna.slash(stage.general, "persona", name="gary")
            await anna.send(stage.general, f"{stage.me} remember the teapot")
            result = await anna.slash(stage.general, "reset")
            assert result.response.content == GARY.greeting and len(list(tmp_path.glob("*.md"))) == 2
            await anna.send(stage.general, f"{stage.me} what was it?")
            assert "teapot" not in llama.tokenizer.show(llama.prompts[-1]) and (await stage.chat()).head["persona"] == "Gary"

    asyncio.run(story())


def test_a_retry_writes_over_the_last_reply_and_keeps_both(service, tmp_path):
    long = "A sentence of some length. " * 90

    async def story():
        async with on_stage(service(FakeLlama([long, "Short.", long]), max_tokens=700), tmp_path) as stage:
            anna = stage.person("anna")
            nothing = await anna.slash(stage.general, "retry")
            assert nothing.ephemeral and "Nothing has been said" in nothing.response.content
            await anna.send(stage.general, f"{stage.me} hello")
            first = stage.general.history()[1].id
            assert len(stage.said()) == 2
            result = await anna.slash(stage.general, "retry")
            await stage.env.settle()
            assert result.ephemeral and stage.said() == ["Short."] and stage.general.history()[1].id == first
            log = await stage.chat()
            assert [len(log.tree.swipes(node)) for node in log.tree.path() if node.turn.role == "assistant"] == [2]
            await stage.general.history()[1].delete()  # as a moderator may
            await anna.slash(stage.general, "retry")
            await stage.env.settle()
            assert len(stage.said()) == 2

    asyncio.run(story())


def test_context_and_memory_say_what_the_prompt_held(service, tmp_path):
    async def story():
        async with on_stage(service(FakeLlama(lambda prompt: "Yes yes yes."), context="slide"), tmp_path) as stage:
            anna = stage.person("anna")
            for name in ("context", "memory"):
                result = await anna.slash(stage.general, name)
                assert result.ephemeral and result.response.content == "Nothing has been answered here yet."
            for n in range(6):
                await anna.send_dm(f"{n} " * 120)
            report = (await anna.user.slash("context")).response.content
            lines = report.strip("`\n").split("\n")
            parts = [int(line.split()[0]) for line in lines[1:-2]]
            assert lines[0].startswith("[#") and lines[0].endswith("] 1024 tokens") and "persona, head" in lines[1]
            assert lines[-2].endswith("tokens in the last prompt") and sum(parts) == int(lines[-2].split()[0])
            assert "oldest messages left the window (slide)" in lines[-1]
            memory = (await anna.user.slash("memory")).response.content
            assert "There are no notes." in memory and "--context summarize" in memory

    asyncio.run(story())


def test_memory_shows_what_was_noted(service, tmp_path):
    running = service(FakeLlama(summarizer, max_context=512), context="summarize", max_tokens=20)

    async def story():
        async with on_stage(running, tmp_path) as stage:
            anna = stage.person("anna")
            for fact in TOLD:
                await anna.send(stage.general, f"{stage.me} {fact} {FILLER}")
                while running.scheduler.active or running.scheduler.waiting:  # notes are written between turns
                    await asyncio.sleep(0.01)
            noted = (await anna.slash(stage.general, "memory")).response.content
            assert noted.startswith("Noted of ") and any(fact in noted for fact in FACTS)

    asyncio.run(story())


def test_a_command_that_fails_is_answered_and_reported(service, tmp_path, monkeypatch):
    async def story():
        async with on_stage(service(), tmp_path) as stage:
            anna = stage.person("anna")

            async def find(channel):
                raise ValueError("the disk is gone")

            monkeypatch.setattr(stage.bot.talk.chats, "find", find)
            result = await anna.slash(stage.general, "context")
            assert result.ephemeral and result.response.content == "That failed; the person who runs me can see why."
            assert stage.notes[-1] == "something was not answered: ValueError: the disk is gone"
            assert [str(error.__cause__) for error in stage.env.errors] == ["the disk is gone"]

    asyncio.run(story())
