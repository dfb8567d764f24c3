"""What the models without weights say, and a character that does not ship with the house."""

import yaml

NUMBERS = "one two three four five six seven eight nine ten".split()
COUNTING = " ".join([*NUMBERS, *(f"{ten} {n}" for ten in "twenty thirty forty fifty sixty seventy eighty ninety".split() for n in NUMBERS)])
# the whole count takes far longer than any deadline here: what ends sooner was stopped
SLOWLY = f'pause: 0.5\nreplies: ["{COUNTING}"]\n'

TALK = [
    (
        "Hi Stacy! How far is the moon?",
        "Yo! The moon is about 384,000 km away. Light needs a second and a bit, so when you look up, you see it as it just was.",
    ),
    (
        "And what makes the tides?",
        "The moon does, mostly. Its pull is stronger on the near side of the earth than on the far side, "
        "and so the water rises twice a day:\n\n"
        "- **spring tides** when sun and moon pull together,\n"
        "- **neap tides** when they pull at right angles.\n\n"
        "Mercury has no part in it, in retrograde or not!",
    ),
    ("Can you put that into a rhyme?", "The moon goes round, the oceans sway,\nit lifts the water twice a day."),
]
TALKATIVE = yaml.safe_dump({"replies": [reply for _, reply in TALK]}, allow_unicode=True)

JUERGEN = """name: Jürgen Größe
description: Jürgen Größe ist höflich und übt Umlaute.
greeting: Grüß Gott, schöne Grüße aus Köln!
"""
