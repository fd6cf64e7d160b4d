"""XML from outside as data: limited in size and depth, no DTD, no entities; one error type."""

import xml.etree.ElementTree as ET
from typing import NoReturn

MAX_CHARACTERS = 4 * 1024 * 1024
MAX_DEPTH = 64
MAX_ELEMENTS = 200_000


class DomainXmlError(ValueError):
    """The XML of a domain could not be read; the message says what is wrong with it."""


class _Guarded:
    """A tree builder that refuses a DTD (and with it every entity), too deep and too many elements."""

    def __init__(self) -> None:
        self._builder = ET.TreeBuilder()
        self._depth = 0
        self._count = 0

    def doctype(self, name: str, _public: str | None, _system: str | None) -> NoReturn:
        raise DomainXmlError(f"has a DOCTYPE ({name[:40]!r}), which libvirt never writes")

    def start(self, tag: str, attributes: dict[str, str]) -> ET.Element:
        self._depth += 1
        self._count += 1
        if self._depth > MAX_DEPTH:
            raise DomainXmlError(f"is nested more than {MAX_DEPTH} deep")
        if self._count > MAX_ELEMENTS:
            raise DomainXmlError(f"has more than {MAX_ELEMENTS} elements")
        return self._builder.start(tag, attributes)

    def end(self, tag: str) -> ET.Element:
        self._depth -= 1
        return self._builder.end(tag)

    def data(self, text: str) -> None:
        self._builder.data(text)

    def close(self) -> ET.Element:
        return self._builder.close()


def parse(xml: str, root_tag: str | None = None) -> ET.Element:
    """The root element. Raises DomainXmlError, and nothing else, for whatever is not XML that libvirt could write."""
    if len(xml) > MAX_CHARACTERS:
        raise DomainXmlError(f"has {len(xml)} characters, more than {MAX_CHARACTERS}")
    try:
        # the target refuses any DTD before an entity can be declared; expat fetches nothing
        parser = ET.XMLParser(target=_Guarded())  # noqa: S314
        parser.feed(xml)
        root: ET.Element = parser.close()
    except DomainXmlError:
        raise
    except (ET.ParseError, ValueError, AssertionError, LookupError) as error:
        raise DomainXmlError(f"is not well-formed XML: {str(error)[:200]}") from error
    if root_tag is not None and root.tag != root_tag:
        raise DomainXmlError(f"has the root <{str(root.tag)[:40]}>, not <{root_tag}>")
    return root
