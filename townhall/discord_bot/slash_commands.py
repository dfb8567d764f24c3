"""The bot's slash commands."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import discord
from discord import app_commands

from ext.tinygrad.errors import TownhallError
from townhall.chats.served_chat import ServedChat
from townhall.discord_bot.channel_queue import ChannelWork
from townhall.discord_bot.channel_talk import title_of
from townhall.discord_bot.message_parts import LIMIT, neutral

if TYPE_CHECKING:
    from townhall.discord_bot.persona_bot import PersonaBot

MOST_CHOICES = 25  # that Discord shows for an option
BAR = 48  # characters


class CommandList(app_commands.CommandTree["PersonaBot"]):
    """/persona, /reset, /retry, /context, /memory; refused to those whom the bot does not answer."""

    def __init__(self, bot: "PersonaBot"):
        super().__init__(
            bot,
            allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=False),
            allowed_installs=app_commands.AppInstallationType(guild=True, user=False),
        )
        for command in _commands(bot):
            self.add_command(command)

    async def interaction_check(self, interaction: discord.Interaction["PersonaBot"], /) -> bool:
        if interaction.client.allows(interaction.user.id):
            return True
        if interaction.type is discord.InteractionType.application_command:
            await interaction.response.send_message("I do not answer you here.", ephemeral=True)
        return False

    async def on_error(self, interaction: discord.Interaction["PersonaBot"], error: app_commands.AppCommandError, /) -> None:
        cause = error.__cause__ or error
        if not isinstance(cause, TownhallError):
            interaction.client.failed(cause)
        with suppress(discord.DiscordException, OSError):  # the command may be older than Discord waits for
            said = str(cause) if isinstance(cause, TownhallError) else "That failed; the person who runs me can see why."
            await _answer(interaction, said, ephemeral=True)


def _commands(bot: "PersonaBot") -> list[app_commands.Command[Any, ..., Any]]:
    async def complete(interaction: discord.Interaction["PersonaBot"], current: str) -> list[app_commands.Choice[str]]:
        names = [(served.persona.name, served.id) for served in bot.service.served_models if not served.bare]
        fitting = [(name, id) for name, id in names if current.casefold() in f"{name} {id}".casefold()]
        return [app_commands.Choice(name=name[:100], value=id[:100]) for name, id in fitting[:MOST_CHOICES]]

    @app_commands.command(description="Say who speaks here, or begin a new conversation with another persona")
    @app_commands.describe(name="who is to speak in this channel")
    @app_commands.autocomplete(name=complete)
    async def persona(interaction: discord.Interaction["PersonaBot"], name: str | None = None) -> None:
        await interaction.response.defer(ephemeral=name is None)
        channel = _channel(interaction)
        if name is None:
            chat = await bot.talk.chat(channel.id, title_of(channel, interaction.user))
            others = ", ".join(served.id for served in bot.service.served_models if not served.bare)
            return await _answer(interaction, f"{bot.talk.persona(chat)} speaks here. There are: {others}", ephemeral=True)
        known = {key: one.id for one in bot.service.served_models if not one.bare for key in (one.id, one.persona.name.casefold())}
        if (model := known.get(name.strip().casefold())) is None:
            others = ", ".join(dict.fromkeys(known.values()))
            return await _answer(interaction, f"There is no persona {name[:60]!r}; there are: {others}")
        await _begin(bot, interaction, model)

    @app_commands.command(description="Begin a new conversation in this channel; the former one stays in the log")
    async def reset(interaction: discord.Interaction["PersonaBot"]) -> None:
        await interaction.response.defer()
        await _begin(bot, interaction, None)

    @app_commands.command(description="Have the last reply written again, otherwise")
    async def retry(interaction: discord.Interaction["PersonaBot"]) -> None:
        await interaction.response.defer(ephemeral=True)
        channel = _channel(interaction)
        chat = await bot.talk.chats.find(channel.id)
        if chat is None or not any(node.turn.role == "user" for node in chat.tree.path()):
            return await _answer(interaction, "Nothing has been said here yet that could be answered again.", ephemeral=True)
        nonce = f"{interaction.id:x}"
        work = ChannelWork(lambda work: bot.talk.again(channel, channel.id, nonce, work), user=interaction.user.id)
        taken = bot.queues.put(channel.id, work)
        await _answer(
            interaction, "Another reply is on its way." if taken else "Too much waits here; ask again in a moment.", ephemeral=True
        )

    @app_commands.command(description="Show what the last prompt held, and what it had no room for")
    async def context(interaction: discord.Interaction["PersonaBot"]) -> None:
        await interaction.response.defer(ephemeral=True)
        await _answer(interaction, context_report(await bot.talk.chats.find(_channel(interaction).id)), ephemeral=True)

    @app_commands.command(description="Show what was noted of what no longer fits into the window")
    async def memory(interaction: discord.Interaction["PersonaBot"]) -> None:
        await interaction.response.defer(ephemeral=True)
        await _answer(interaction, memory_report(await bot.talk.chats.find(_channel(interaction).id)), ephemeral=True)

    return [persona, reset, retry, context, memory]


async def _begin(bot: "PersonaBot", interaction: discord.Interaction["PersonaBot"], model: str | None) -> None:
    """A new conversation, which the persona greets."""
    channel = _channel(interaction)
    bot.queues.clear(channel.id)
    chat = await bot.talk.begin(channel.id, model, title_of(channel, interaction.user))
    greeting = chat.tree.path()[0].turn.text if chat.tree.path() else f"{bot.talk.persona(chat)} is here, and has forgotten what was said."
    await _answer(interaction, greeting)


async def _answer(interaction: discord.Interaction["PersonaBot"], text: str, ephemeral: bool = False) -> None:
    text = neutral(text)
    text = text if len(text) <= LIMIT // 2 else f"{text[: LIMIT // 2 - 1]}…"
    if interaction.response.is_done():
        await interaction.followup.send(text, ephemeral=ephemeral)
    else:
        await interaction.response.send_message(text, ephemeral=ephemeral)


def _channel(interaction: discord.Interaction["PersonaBot"]) -> Any:
    """Where the command was given."""
    assert interaction.channel is not None
    return interaction.channel


def context_report(chat: ServedChat | None) -> str:
    """What the prompt of the last reply held, as the terminal's /context says it."""
    facts = _last_facts(chat)
    receipt = facts.get("receipt")
    if not isinstance(receipt, dict):
        return "Nothing has been answered here yet."
    window, prompt = int(receipt.get("window") or 0), int(facts.get("prompt_tokens") or 0)
    filled = min(BAR, round(BAR * prompt / window)) if window else 0
    lines = [f"[{'#' * filled}{'.' * (BAR - filled)}] {window} tokens"]
    lines += [f"{part.get('tokens', 0):>6} {part.get('name')}, {part.get('place')}" for part in receipt.get("parts") or ()]
    lines.append(f"{prompt:>6} tokens in the last prompt")
    if gone := receipt.get("dropped_messages"):
        lines.append(f"{receipt.get('dropped_tokens', 0):>6} of the {gone} oldest messages left the window ({receipt.get('strategy')})")
    return "```\n" + "\n".join(lines).replace("```", "'''") + "\n```"


def memory_report(chat: ServedChat | None) -> str:
    """What the model wrote down about messages that left the window."""
    receipt = _last_facts(chat).get("receipt")
    if not isinstance(receipt, dict):
        return "Nothing has been answered here yet."
    if memory := receipt.get("memory"):
        return f"Noted of {len(receipt.get('memory_of') or ())} messages that no longer fit: {memory}"
    gone = receipt.get("dropped_messages") or 0
    how = "" if receipt.get("strategy") == "summarize" else "; `townhall discord --context summarize` writes notes of what leaves"
    return f"There are no notes. {gone} messages have left the window{how}."


def _last_facts(chat: ServedChat | None) -> dict[str, Any]:
    replies = [node.facts for node in chat.tree.path() if node.turn.role == "assistant" and "receipt" in node.facts] if chat else []
    return replies[-1] if replies else {}
