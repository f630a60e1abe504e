"""Captions to tokens, as the Stanford Penn Treebank tokenizer of the COCO caption tools splits them.

A lexer: at each position the rule with the longest match wins, the first among equals. What must follow a token counts towards
that length. The rules describe what version 3.4.1 does with the options ``-preserveLines -lowerCase``. Only what remains visible
in a caption's tokens is modelled: quotes, dashes, and most punctuation are dropped, whatever their token is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import regex

DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
"""Tokens that the COCO tools drop. They also list brackets, but in upper case, so that those stay as ``-lrb-`` and ``-rrb-``."""


def _any_of(words: str) -> str:
    return f"(?:{'|'.join(words.split())})"


# Characters. Letters beyond the Basic Multilingual Plane, emoji among them, are no part of any token.
_SPACE = r"[ \t\u00A0\u2000-\u200A\u3000]"
_D = r"\p{Nd}"
_L = (
    r"(?:(?![\uFE00-\uFE2F\U00010000-\U0010FFFF])"
    r"[\p{L}\p{M}\u00AD\u02C2-\u02C5\u02D2-\u02DF\u02E5-\u02ED\u02EF-\u02FF\u0384\u0385]"
    r"|&[aeiouAEIOU](?:acute|grave|uml);)"
)
_LD = rf"(?:{_L}|{_D})"
_APOS = r"(?:['\u0092\u2019]|&apos;)"
_QUOTE = r"(?:['\u0092\u2019`\u0091\u2018\u201B]|&apos;)"
# Parts of words, and words.
_AUX = rf"{_APOS}(?:[msdMSD]|[rR][eE]|[vV][eE]|[lL][lL])"
_NOT = rf"[nN]{_APOS}[tT]"
_NUMBER = rf"(?:{_D}+|{_D}*(?:[.:,\u00AD\u066B\u066C]{_D}+)+)"
_PART = rf"(?:[dDoOlL]{_QUOTE}[\p{{L}}{_D}])?[\p{{L}}{_D}]+"
_COMPOUND = rf"{_PART}(?:[-_\u058A\u2010\u2011]{_PART})*"
_WORD = rf"{_L}{_LD}*(?:[.!?]{_L}{_LD}*)*"
_HYPHENATED = r"[A-Za-z0-9][A-Za-z0-9.,\u00AD]*(?:-(?:[A-Za-z0-9\u00AD]+|[A-Za-z](?:\.[A-Za-z])+\.))+"
_ACRONYM = r"(?:[A-Za-z](?:\.[A-Za-z])+|(?:Canada|Sino|Korean|EU|Japan|non)-U\.S|U\.S\.-(?:U\.K|U\.S\.S\.R))"

# Tags, addresses and numbers.
_NAME = r"[A-Za-z][A-Za-z0-9_:.-]*"
_ATTRIBUTE = rf" +{_NAME}(?: *= *(?:'[^']*'|\"[^\"]*\"|{_NAME}))?"
_TAG = rf"<(?:[!?][A-Za-z-][^>\r\n]*|/?{_NAME} */?|{_NAME}(?:{_ATTRIBUTE})* */?)>"
_ADDRESS = r"[^\s\"<>|(){}]"
_ADDRESS_END = r"[^\s\"<>|.!?(){},-]"
_HOST = r"(?:www\.(?:[^\s\"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}|(?:[^\s\"`'<>|.!?(){}\[\],_$:;/@=-]+\.)+(?:com|net|org|edu))"
_MAIL = rf"(?:&lt;|<)?[a-zA-Z0-9]{_ADDRESS}*@(?:[^\s\"<>|(){{}}.]+\.)*(?:[^\s\"<>|(){{}}.]+)(?:&gt;|>)?"
_PHONE = (
    r"(?:\([0-9]{2,3}\)[ \u00A0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \u00A0])?[0-9]{2,4}[- \u00A0])[0-9]{3,4}[- \u00A0]?[0-9]{3,5}"
    r"|(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}"
)
_SENTENCE_STARTS = _any_of(
    "A A(?i:bout|ccording|dditionally|fter|n|s|t) B(?i:ut) E(?i:arlier) H(?i:er?|ere|owever) I(?i:[fnt]) L(?i:ast) "
    "M(?i:any|ore|[rs]\\.) N(?i:ow) O(?i:nce|ne|ther|ur) S(?i:he|ince|o|ome|uch) T(?i:hat|he|heir|hen|here|hese|hey|his) "
    "W(?i:e|hen|hile|hat) Y(?i:et|ou)"
)
"""Words before which the full stop of a single letter ends a sentence."""

_FILE_ENDINGS = _any_of(
    "bat bmp c class cgi cpp dll docx? exe gif gz h html? jar java jpe?g mov mp3 pdf php pl png ppt ps py sql tar txt wav "
    "x xml zip"
)
_FACE = "[-x^=~<>']"

_ABBREVIATED = _any_of(
    "(?i:jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tues?|wed|thu|thurs|fri) "
    "(?i:ala|al|alex|ariz|calif|colo|conn|ct|dak|fla|ga|ind|kans?|ky|la|md|mich|minn|mo|mont|neb|nev|okla|penn|tenn) "
    "(?i:va|vt|wisc?|wyo) Az|AZ|Ill|ILL|Ark|ARK|Del|DEL|Mass|MASS|Miss|MISS|Ore|ORE|Pa|PA|Tex|TEX|Wash|WASH "
    "(?i:jr|sr|bros|blvd|rd|rt|esq|inc|cos|corp|ltd|plc|bancorp|bhd|assn|univ|intl|sys|tel|est|ext|sq|etc|seq|bldg) "
    "(?i:ed\\.d|ph\\.d) [Pp]p?t[ye]s?"
)
"""Abbreviations that can end a sentence."""

_TITLES = _any_of(
    "(?i:mr|mrs|ms|drs?|profs?|sens?|reps?|attys?|lt|col|gen|messrs|govs?|adm|rev|maj|sgt|cpl|pvt|mt|capt|ste?|ave|pres) "
    "(?i:lieut|hon|brig|co?mdr|pfc|spc|sfc|supts?|det|ens|insp|asst|assoc|treas|msgr|mme|mlle|wm|jos|co|dept|cie|invt) "
    "(?i:elec|natl|ft|vs|v|cf|adj|adv|ph) [Mm][ft]g"
)
"""Titles, and abbreviations that are followed by something."""

_ABBREVIATED_BEFORE_NUMBERS = _any_of("(?i:ca|figs?|prop|nos?|art|bldg|pp|op)")
_CONTRACTED = (
    _any_of(
        "O{A}o {A}[nN]{A}? [lLdDjJ]{A} [dD]unkin{A} (?i:somethin|ol){A} {A}(?i:em) {A}[2-9]0s {A}[tT]ill? {A}[cC]ause "
        "(?i:cont'd\\.|nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l) [cC]ap{A}n [cC]{A}est "
        "[A-HJ-XZn]{Q}{L}{L}+ {L}+[aeiouyAEIOUY]{A}[aeiouA-Z]{L}*"
    )
    .replace("{A}", _APOS)
    .replace("{Q}", _QUOTE)
    .replace("{L}", _L)
)
_SYMBOLS = (
    r"$%&*+<=>\\^|~\u00A1\u00A5-\u00A9\u00AC\u00AE-\u00B4\u00B6-\u00B9\u00BF\u00D7\u00F7\u037E\u0387\u0589\u05BE\u05C0"
    r"\u05C3\u05C6\u05F3\u05F4\u0600-\u0603\u0606-\u060C\u0614\u061B\u061E\u061F\u066A\u066D\u06D4\u0700-\u070D"
    r"\u07F6-\u07F8\u0964\u0965\u0E3F\u0E4F\u1FBD\u2016\u2017\u201A\u201E\u2020-\u2023\u2030-\u2038\u203B\u203E-\u2042\u2044"
    r"\u2070\u2074-\u207E\u2080-\u208E\u20A4\u2100\u2101\u2103-\u2106\u2108\u2109\u2114\u2116-\u2118\u211E-\u2123\u2125\u2127"
    r"\u2129\u212E\u213A\u213B\u2140-\u2144\u214A-\u214D\u214F\u2155-\u215E\u2190-\u2BFF\u3001\u3002\u3012\u30FB"
    r"\uFF01-\uFF0F\uFF1A-\uFF20\uFF3B-\uFF40\uFF5B-\uFF65\uFFE0\uFFE1\uFFE5\uFFE6/@#"
)


@dataclass(frozen=True)
class _Rule:
    """A kind of token."""

    token: str
    """Pattern of the token."""
    then: str = ""
    """Pattern of what must follow it."""
    written: Callable[[str], str] = str
    """The token for the text that was matched."""

    def compiled(self) -> regex.Pattern[str]:
        return regex.compile(rf"(?p)(?P<token>{self.token}){self.then}")


def _dropped(text: str) -> str:
    return ""


def _brackets(text: str) -> str:
    return text.replace("(", "-LRB-").replace(")", "-RRB-")


def _with_ascii_apostrophe(text: str) -> str:
    return regex.sub(_APOS, "'", text)


def _unbroken(text: str) -> str:
    return regex.sub(_SPACE, "\u00a0", text)


_SIGNS = {
    **dict.fromkeys("€¤\u20a0\u0080", "$"),
    "£": "#",
    "¢": "cents",
    "¼": "1/4",
    "½": "1/2",
    "¾": "3/4",
    "⅓": "1/3",
    "⅔": "2/3",
    "(": "-LRB-",
    ")": "-RRB-",
    "[": "-LSB-",
    "]": "-RSB-",
    "{": "-LCB-",
    "}": "-RCB-",
    "&lt;": "<",
    "&gt;": ">",
    "&amp;": "&",
    "&quot;": "",
    "&apos;": "",
    "&nbsp;": "",
}
"""Characters and entities that are written in another way."""

_RULES = [
    _Rule("(?i:can)", "(?i:not)"),  # each is the first half of two words written as one
    _Rule("(?i:gon|wan)", "(?i:na)"),
    _Rule("(?i:got)", "(?i:ta)"),
    _Rule("(?i:gim|lem)", "(?i:me)"),
    _Rule("'[tT]", "(?:[iI][sS]|[wW][aA][sS])"),
    _Rule(_TAG, written=_unbroken),
    _Rule(_WORD, _AUX),
    _Rule(rf"{_L}{_LD}*?", _NOT),
    _Rule(_WORD),
    _Rule(rf"{_ABBREVIATED}\.", "(?s:.{0,2})"),
    _Rule(_CONTRACTED),
    _Rule("[yY]'", _L),
    _Rule(f"{_APOS}[0-9][0-9]", r"\s"),
    _Rule(f"https?://{_ADDRESS}+{_ADDRESS_END}"),
    _Rule(f"{_HOST}(?:/{_ADDRESS}+{_ADDRESS_END})?"),
    _Rule(_MAIL),
    _Rule("@[A-Za-z_][A-Za-z_0-9]*|#[A-Za-z]+"),
    _Rule(_AUX, "[^A-Za-z]", _with_ascii_apostrophe),
    _Rule(f"{_APOS}[msdMSD]|{_NOT}", written=_with_ascii_apostrophe),
    _Rule(rf"{_D}{{1,2}}[-/]{_D}{{1,2}}[-/]{_D}{{2,4}}"),
    _Rule(rf"[-+]?{_NUMBER}"),
    _Rule(r"[\u207A\u207B\u208A\u208B]?(?:[\u2070\u00B9\u00B2\u00B3\u2074-\u2079]+|[\u2080-\u2089]+)"),
    _Rule(rf"(?:{_D}{{1,4}}[- \u00A0])?{_D}{{1,4}}(?:\\?/|\u2044){_D}{{1,4}}", written=_unbroken),
    _Rule("-[RL][RCS]B-|pro-|anti-|[A-Z]&[A-Z]-500|S&Ls|[Cc]\\+\\+|[CcFf]#|C\\.D\\.s"),
    _Rule(r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}"),
    _Rule("[A-Z]*\\$|#"),
    _Rule(r"[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+", written=lambda text: text.replace("&amp;", "&")),
    _Rule(_PHONE, written=lambda text: _brackets(_unbroken(text))),
    _Rule(rf"{_TITLES}\."),
    _Rule(rf"{_ABBREVIATED_BEFORE_NUMBERS}\.", rf"\s?{_D}"),
    _Rule("[A-Za-z]", rf"\.\s+{_SENTENCE_STARTS}\s"),
    _Rule(rf"[A-Za-z]\.|{_ACRONYM}\.?"),
    _Rule(rf"{_LD}+(?:\.{_LD}+)*\.(?i:{_FILE_ENDINGS})", r"[\s.,?!]"),
    _Rule(r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]]", "[^A-Za-z0-9]", _brackets),
    _Rule(rf"{_FACE}_{_FACE}|\({_FACE}[_.]?{_FACE}\)|\([x^=~<>']-[x^=~<>'`]\)", written=_brackets),
    _Rule(_COMPOUND),
    _Rule(rf"(?:{_WORD}|{_COMPOUND}|{_HYPHENATED})\.", r"[,;:\u3001]"),
    _Rule(_HYPHENATED),
    _Rule(r"\.{3,}|\.(?:[ \u00A0]\.){2,}|-{2,4}|&(?:MD|mdash|ndash);", written=_dropped),
    _Rule(r"[?!]+|(?:\\\*){1,3}|\*+|#+|@+|_+|<<|>>|-{5,}"),
    _Rule("&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);"),
    _Rule("|".join(map(regex.escape, _SIGNS)), written=_SIGNS.__getitem__),
    _Rule("'", r"[A-Za-z][^ \t\n\r\u00A0]", _dropped),
    _Rule(f"[{_SYMBOLS}]"),
    _Rule(r"(?s:.)", written=_dropped),
]
_PATTERNS = [(rule.compiled(), rule.written) for rule in _RULES]
_BREAKS = regex.compile(r"[\n\r\v\f\u0085\u2028\u2029]")
_BLANKS = regex.compile(rf"{_SPACE}+")
_WHOLE = regex.compile(rf"(?!{_ABBREVIATED_BEFORE_NUMBERS}\.)(?:[A-Za-z]{{2,}}\.|[A-Za-z][A-Za-z',!?;\"-]*)(?=[ \n])")
"""What lies between spaces and has the same tokens wherever it stands."""


def ptb_tokenize(captions: Iterable[str]) -> list[str]:
    """Return each caption's tokens in lower case, with spaces between them and without most punctuation.

    As in the COCO tools, the captions are lines of one text: a few abbreviations depend on how the next line starts.
    """
    lines: list[list[str]] = [[]]
    for token in _tokens("\n".join(_BREAKS.sub(" ", caption) for caption in captions)):
        if token == "\n":
            lines.append([])
        elif token and token not in DROPPED:
            lines[-1].append(token)
    return [" ".join(line) for line in lines]


def _tokens(text: str) -> Iterator[str]:
    place = 0
    while place < len(text):
        if text[place] == "\n":
            yield "\n"
            place += 1
        elif blank := _BLANKS.match(text, place):
            place = blank.end()
        elif whole := _WHOLE.match(text, place):
            yield from _tokens_of_whole(whole[0])
            place = whole.end()
        else:
            token, place = _next_token(text, place)
            yield token


@lru_cache(maxsize=1 << 16)
def _tokens_of_whole(text: str) -> tuple[str, ...]:
    tokens, place, followed = [], 0, f"{text} "
    while place < len(text):
        token, place = _next_token(followed, place)
        tokens.append(token)
    return tuple(tokens)


def _next_token(text: str, place: int) -> tuple[str, int]:
    """Return the token at a place, and where it ends."""
    found = [(match, written) for pattern, written in _PATTERNS if (match := pattern.match(text, place))]
    match, written = max(found, key=lambda pair: pair[0].end())
    return written(match["token"]).replace("\u00ad", "").lower(), match.end("token")
