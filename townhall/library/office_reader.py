"""PDF and DOCX into blocks, by pypdf and mammoth, which the extra `library` brings. Both run in the reading process only."""

import io
import re
import zipfile
from bisect import bisect_left
from typing import Any

from townhall.library.blocks import TextBlock
from townhall.library.errors import UnreadableFile
from townhall.library.html_reader import html_blocks
from townhall.library.text_reader import plain_blocks

MAX_UNPACKED = 256 << 20  # bytes of a DOCX file's members together
_MISSING = "{} is not installed; pip install 'townhall[library]' brings it"
_HYPHEN = re.compile(r"(?<=[a-zß-ÿ])-\n(?=[a-zß-ÿ])")


def pdf_blocks(data: bytes) -> list[TextBlock]:
    """Paragraphs by page, below the bookmarks that lead there; lines count from the top of a page."""
    try:
        from pypdf import PdfReader
    except ImportError:
        raise UnreadableFile(_MISSING.format("pypdf")) from None
    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise UnreadableFile("it is encrypted with a password")
    marks = _bookmarks(reader)
    blocks = []
    for number, page in enumerate(reader.pages, 1):
        # the first bookmark of a page, else the last before it
        at = bisect_left(marks, number, key=lambda mark: mark[0])
        begins = at < len(marks) and marks[at][0] == number
        heading = marks[at][1] if begins else marks[at - 1][1] if at else ()
        for block in plain_blocks(_HYPHEN.sub("", page.extract_text() or "")):
            blocks.append(TextBlock(block.text, block.first, block.last, heading or block.heading, number))
    if not blocks:
        raise UnreadableFile("it holds no text, perhaps pictures of pages only")
    return blocks


def _bookmarks(reader: Any) -> list[tuple[int, tuple[str, ...]]]:
    """(page, titles from the outermost), in the order of pages; none where the outline is damaged."""
    marks: list[tuple[int, tuple[str, ...]]] = []

    def walk(entries: list[Any], above: tuple[str, ...]) -> None:
        last = above
        for entry in entries:
            if isinstance(entry, list):
                walk(entry, last)
            elif (number := reader.get_destination_page_number(entry)) is not None and number >= 0:
                last = (*above, " ".join(str(entry.title).split()))
                marks.append((number + 1, last))

    try:
        walk(reader.outline, ())
    except Exception:  # pypdf raises whatever a damaged outline leads it to; the text is there all the same
        return []
    return sorted(marks, key=lambda mark: mark[0])


def docx_blocks(data: bytes) -> list[TextBlock]:
    """Paragraphs below headings, by way of HTML; a line is a paragraph."""
    try:
        import mammoth
    except ImportError:
        raise UnreadableFile(_MISSING.format("mammoth")) from None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_UNPACKED:
                raise UnreadableFile(f"it unpacks to more than {MAX_UNPACKED >> 20} MB")
    except zipfile.BadZipFile:
        raise UnreadableFile("it is not a DOCX file, or a damaged one") from None
    no_picture = mammoth.images.img_element(lambda image: {})
    safe: dict[str, Any] = {"convert_image": no_picture, "include_embedded_style_map": False, "external_file_access": False}
    html = mammoth.convert_to_html(io.BytesIO(data), **safe).value
    # a line of its own for each paragraph, so that line numbers count paragraphs
    return html_blocks(re.sub(r"(?=<(?:p|h[1-6]|li|tr)[ >])", "\n", html).lstrip("\n"))
