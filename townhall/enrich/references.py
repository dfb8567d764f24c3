"""Words that point at what was said before, and those that rules can resolve: members of a list, and "and of Italy?"."""

import re
from collections.abc import Sequence

PRONOUNS = (
    "it its itself he him his himself she her hers herself they them their theirs this that these those there one ones former latter same"
)
REFERENCE = re.compile(rf"\b(?:{'|'.join(PRONOUNS.split())})\b", re.IGNORECASE)
_OPENERS = "and|or|but|so|what about|how about|why|why not|who else|what else|which one|where else|since when"
_ELLIPSIS = re.compile(rf"^\s*(?:{_OPENERS})\b", re.IGNORECASE)
_THAT_JOINS = re.compile(r"(?<=\w)\s+that\s+(?=\w)", re.IGNORECASE)  # "the book that I read" points at nothing before
_EXPLETIVE = re.compile(
    r"\bwhat (?:time|day) is it\b|\bit\s+(?:rains?|snows?)\b|\bis it (?:raining|snowing)\b"
    r"|\b(?:is|are|was|were)\s+there\b|\b(?:you|anyone|everyone) there\b",
    re.IGNORECASE,
)
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_NTH = "|".join((*ORDINALS, "last", *(f"{n}(?:st|nd|rd|th)" for n in range(1, 11))))
_VERBS = "is|was|are|were|has|have|had|do|does|did|can|could|will|would|end|ends|come|comes|live|lives|of (?:them|these|those|the two|all)"
_OF_THEM = "of (?:them|these|those|the two|all)"
# "the second one", "the latter", "the second?", and not "the second world war"
_MEMBER = re.compile(
    rf"\b(?:the|your|that)\s+(?:(?P<nth>{_NTH})(?:\s+one\b|(?=\s*[?.!,;]|\s*$|\s+(?:{_VERBS})\b))(?:\s+{_OF_THEM}\b)?"
    r"|(?P<former>former|latter)(?:\s+one\b)?)",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"^\s*(?:[-*•]|\(?\d{1,2}[.):])\s+(.+)$", re.MULTILINE)
_LISTING = "is|are|was|were|has|have|had|got|bought|plant|grow|includes?|named|called|like|love|know|visited|read|saw|means?|be"
_AFTER = re.compile(rf"^.*?(?:\b(?:{_LISTING})\b|:)\s+", re.IGNORECASE)
_TELLS = re.compile(r"\b(?:i|you|we|would|will|can|could|should|come|know|want|think)\b", re.IGNORECASE)  # a clause, and no thing
_AND = re.compile(r",?\s+(?:and|or|as well as)\s+|,\s+", re.IGNORECASE)
_PREPOSITIONS = "of|in|for|to|from|on|at|by|with"
_PREPOSITION = re.compile(rf"\b({_PREPOSITIONS})\s+([^?.!,]+?)(?=\s*[?.!,]|$)", re.IGNORECASE)
_AND_OF = re.compile(rf"^\s*(?:and|or|but|what about|how about)\s+(?:what about\s+)?({_PREPOSITIONS})\s+(.+?)\s*[?.!]*\s*$", re.IGNORECASE)
_NAME = re.compile(r"(?:\b[Tt]he )?\b[A-Z][\w’'-]+(?: (?:of |da |de |van |von |the )?[A-Z][\w’'-]+)*")
_NO_NAMES = (
    "i you we he she it they yes no who what when where which why how name tell about thanks do does did is are was were in on my our "
    "your their his her a an the and but or so then that this there poor ask take now both hi hello"
)
_SHORT = re.compile(rf"^(?:the\s+)?(?:{_NO_NAMES.replace(' ', '|')})$", re.IGNORECASE)
_DOES = re.compile(r"\s+(?:\w+ed|wrote|made|built|was (?:the first|a (?:man|woman)|born)|said|sang|drew|led|won)\b")
_IS = re.compile(r"\s+(?:is|was|are|were|has|have|had|can|will)\b")
_DO_IT = re.compile(r"\b(?:do|does|did|done|doing)\s+(?:it|so|that|this)\b", re.IGNORECASE)
_PLACED = re.compile(r"\b(?:in|from|to|at|of|near)\s+$", re.IGNORECASE)
_KINDS = {"it": "thing", "its": "thing", "he": "person", "him": "person", "his": "person", "she": "person", "there": "place"}
LONGEST = 80  # characters of a member of a list


def refers(question: str) -> bool:
    """May it need what was said before it?"""
    return bool(_ELLIPSIS.search(question)) or bool(pointing(question)) or bool(_MEMBER.search(question))


def pointing(text: str, inside: bool = True) -> list[str]:
    """The words in it that point at something that it does not name. With `inside`, what comes behind a name may point at that."""
    text = _EXPLETIVE.sub(" ", _THAT_JOINS.sub(" ", text))
    names = [found.start() for found in _NAME.finditer(text) if found.start() and not _SHORT.match(found[0])]
    end = names[0] if names and inside else len(text)
    return [found[0].lower() for found in REFERENCE.finditer(text) if found.start() < end]


def members(text: str) -> list[str]:
    """The things that a message lists: its numbered lines, else those of its longest "a, b and c"."""
    lines = [_member(found[1]) for found in _NUMBERED.finditer(text)]
    if len(lines) > 1:
        return lines
    best: list[str] = []
    for sentence in re.split(r"(?<=[.!?])\s+|\n", text):
        listed = _AFTER.sub("", sentence.strip(), count=1)
        for candidate in (listed, sentence.strip()):
            parts = [_member(part) for part in _AND.split(candidate.rstrip(".!?"))]
            parts = [part for part in parts if part]
            if any(map(_TELLS.search, parts)) or sentence.rstrip().endswith("?"):
                continue
            if len(parts) > max(1, len(best)) and all(len(part.split()) <= 8 for part in parts):
                best = parts
                break
    return best


def with_members(question: str, said: Sequence[str]) -> str:
    """The question with "the second one" and the like replaced by what the newest of the messages `said` that lists anything has there."""
    if not _MEMBER.search(question):
        return question
    listed = next((found for text in reversed(said) if len(found := members(text)) > 1), [])

    def named(found: re.Match[str]) -> str:
        word = (found["nth"] or found["former"]).lower()
        at = {"former": 0, "latter": len(listed) - 1, "last": len(listed) - 1}.get(word)
        if at is None:
            at = ORDINALS.index(word) if word in ORDINALS else int(re.sub(r"\D", "", word)) - 1
        return listed[at] if 0 <= at < len(listed) else found[0]

    return _MEMBER.sub(named, question)


def carried_over(question: str, before: str) -> str | None:
    """ "And of Italy?" after "What is the capital of Spain?": the same asked of Italy. None where that is no such question."""
    asked = _AND_OF.match(question)
    if asked is None:
        return None
    slots = [found for found in _PREPOSITION.finditer(before) if found[1].lower() == asked[1].lower()]
    if not slots or not before.rstrip().endswith("?"):
        return None
    slot = slots[-1]
    return f"{before[: slot.start(2)]}{asked[2]}{before[slot.end(2) :]}"


def with_salient(question: str, said: Sequence[str]) -> str:
    """The question with its pronouns replaced by the names that most of the messages `said` have; as it is where none suits."""
    if _DO_IT.search(question):  # it is no thing that was done
        return question
    for pronoun in dict.fromkeys(word for word in pointing(question) if word in _KINDS):
        if thing := _salient(_KINDS[pronoun], said):
            thing = f"{thing}'s" if pronoun in ("its", "his") else f"in {thing}" if pronoun == "there" else thing
            question = re.sub(rf"\b{pronoun}\b", thing.replace("\\", ""), question, flags=re.IGNORECASE)
    return question


def _salient(kind: str, said: Sequence[str]) -> str:
    """The name of that kind that most messages have, the newest of several."""
    places: dict[str, int] = {}
    for at, text in enumerate(said):
        for found in _NAME.finditer(text):
            before, behind = text[: found.start()].rstrip(), text[found.end() :]
            begins = " " not in found[0] and (not before or before[-1] in ".!?:\n")
            if _SHORT.match(name := found[0].strip()) or (begins and not _DOES.match(behind) and not _IS.match(behind)):
                continue  # any word has a capital where a sentence begins
            acts, placed = bool(_DOES.match(behind)), bool(_PLACED.search(text[: found.start()]))
            if kind == ("person" if acts else "place" if placed else "thing") or (kind == "thing" and placed and not acts):
                places[name[0].lower() + name[1:] if name.startswith("The ") else name] = at
    counted = {name: sum(name.casefold() in text.casefold() for text in said) for name in places}
    return max(places, key=lambda name: (counted[name], places[name]), default="")


def _member(text: str) -> str:
    """A member of a list without what is said about it."""
    text = re.split(r"\s[-–—:]\s|:\s|\s\(|\. ", text.strip(" *_\t"))[0].strip(" *_.;")
    return text if len(text) <= LONGEST else ""
