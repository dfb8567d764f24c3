"""A document's bytes into blocks, whatever its format. Runs in the reading process: what is read is untrusted."""

from dataclasses import replace

from townhall.library import document_formats
from townhall.library.blocks import TextBlock
from townhall.library.chat_reader import chat_blocks, is_log, log_blocks
from townhall.library.code_reader import code_blocks
from townhall.library.errors import UnreadableFile
from townhall.library.html_reader import html_blocks
from townhall.library.office_reader import docx_blocks, pdf_blocks
from townhall.library.text_reader import decoded, markdown_blocks, plain_blocks

MAX_TEXT = 16 << 20  # characters of one document


def blocks_of(data: bytes, format: str) -> list[TextBlock]:
    """What `data` says, read as `format`. UnreadableFile, or whatever a damaged file makes a parser raise."""
    if format == document_formats.PDF:
        return pdf_blocks(data)
    if format == document_formats.DOCX:
        return docx_blocks(data)
    text = decoded(data)
    if format == document_formats.HTML:
        return html_blocks(text)
    if format == document_formats.CODE:
        return code_blocks(text)
    if format in (document_formats.CHAT, document_formats.MARKDOWN, document_formats.TEXT) and is_log(text):
        return log_blocks(text)
    if format == document_formats.CHAT:
        return chat_blocks(text)
    return markdown_blocks(text) if format == document_formats.MARKDOWN else plain_blocks(text)


def checked(blocks: list[TextBlock], most: int = MAX_TEXT) -> list[TextBlock]:
    """The blocks with text that can be stored: no NUL, no half of a surrogate pair. UnreadableFile where it is too much."""
    if sum(len(block.text) for block in blocks) > most:
        raise UnreadableFile(f"it holds more than {most >> 20} million characters")
    return [replace(block, text=text) for block in blocks if (text := storable(block.text)).strip()]


def storable(text: str) -> str:
    return text.replace("\0", "").encode(errors="replace").decode()
