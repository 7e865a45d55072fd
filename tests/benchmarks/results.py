"""RESULTS.md, section by section: each command rewrites its own and leaves the others."""

import re
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")


def write_section(heading: str, lines: list[str]) -> None:
    """Put a section, such as ``# Benchmark``, in the place of the one with that heading, or at the end."""
    text = RESULTS.read_text() if RESULTS.is_file() else ""
    sections = [section for section in re.split(r"^(?=#+ )", text, flags=re.MULTILINE) if section.strip()]
    ours = "\n".join([heading, "", *lines]).rstrip() + "\n\n"
    headings = [section.partition("\n")[0] for section in sections]
    if heading in headings:
        sections[headings.index(heading)] = ours
    else:
        sections.append(ours)
    RESULTS.write_text("".join(section.rstrip() + "\n\n" for section in sections).rstrip() + "\n")
