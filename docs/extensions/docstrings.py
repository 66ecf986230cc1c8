"""Puts the docstrings, which are written as Keras writes them, into Markdown."""

import re

import griffe

# What Keras has and the Google style has not: "Output shape: Same as input."
_HEAD = re.compile(r"(Call arguments|Input shape|Output shape|Source): ?")
_CODE_OR_TAG = re.compile(r"`[^`]*`|<(?=\w+>)")
_EXAMPLE = re.compile(r"^Example:\n\n((?:>>>|\.\.\.).*(?:\n.+)*)", re.MULTILINE)


def to_markdown(docstring):
    """Returns `docstring` with the sections of Keras as paragraphs and lists."""
    # "hoyer/<layer>" is no tag of HTML.
    docstring = _CODE_OR_TAG.sub(
        lambda found: "&lt;" if found[0] == "<" else found[0], docstring
    )
    paragraphs = re.split(r"\n\n(?=\S)", docstring)
    text = "\n\n".join(_paragraph(paragraph) for paragraph in paragraphs)
    return _EXAMPLE.sub(lambda found: "Examples:\n" + _indented(found[1]), text)


def _paragraph(text):
    head = _HEAD.match(text)
    if not head:
        return text
    name, body = head[1], text[head.end() :]
    if not body.startswith("\n"):
        return f"**{name}:** " + re.sub(r"\n +", "\n", body)
    # One entry for each argument, its further lines below it.
    body = re.sub(r"^    ", "", body.strip("\n"), flags=re.MULTILINE)
    entries = re.sub(r"^(\w+): ", r"- `\1`: ", body, flags=re.MULTILINE)
    return f"**{name}:**\n\n{entries}"


def _indented(text):
    return re.sub(r"^(?=.)", "    ", text, flags=re.MULTILINE)


class KerasDocstrings(griffe.Extension):
    """Applies `to_markdown` to every docstring of the package."""

    def on_object(self, *, obj, **kwargs):
        """Changes the docstring of a class, function or attribute."""
        if not obj.is_alias and obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)
