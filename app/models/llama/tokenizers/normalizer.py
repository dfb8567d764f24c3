"""What a tokenizer does to a text before it cuts it: Unicode's normal forms, and SentencePiece's rules of the same kind.

A SentencePiece model carries its rule as a table, too. Only the rule's name is taken from a file: a crafted table would be walked by
C++ that trusts it.
"""

from collections.abc import Callable

UNICODE = ("NFC", "NFD", "NFKC", "NFKD")
SENTENCEPIECE = ("nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf")  # its built-in rules besides identity, which is none
RULES = (*UNICODE, *SENTENCEPIECE)


def normalizer(rule: str | None, strip: bool = False) -> Callable[[str], str]:
    """From a text to its normal form by one of RULES. `strip`, of SentencePiece: runs of spaces become one, and those at both ends vanish.

    SentencePiece's rules spell spaces as ▁.
    """
    if rule in UNICODE:
        from tokenizers import normalizers

        normalise: Callable[[str], str] = getattr(normalizers, rule)().normalize_str
        return normalise
    if not rule and not strip:
        return lambda text: text
    from sentencepiece import SentencePieceNormalizer

    spm = SentencePieceNormalizer(
        rule_name=rule or "identity", add_dummy_prefix=False, escape_whitespaces=True, remove_extra_whitespaces=strip
    )
    return lambda text: str(spm.Normalize(text))
