#!/usr/bin/env python3
"""docs/vnodectl.md has a section for every command of vnodectl, with every flag, and no other."""

import re
import subprocess
import sys


def help_of(program, words):
    return subprocess.run([program, *words, "--help"], stdout=subprocess.PIPE, check=True, text=True).stdout


def commands(program, words=()):
    """Yields the words of every command that does something, with its help."""
    text = help_of(program, words)
    below = re.findall(r"^  (\w+)", text.partition("\nSubcommands:\n")[2], re.MULTILINE)
    for word in below:
        yield from commands(program, (*words, word))
    if not below:
        yield words, text


def flags(text):
    return set(re.findall(r"^  (?:-\w,)?(--[\w-]+)", text, re.MULTILINE))


def misfits(program, document):
    head, *parts = re.split(r"^## ", document, flags=re.MULTILINE)
    sections = dict(part.split("\n", 1) for part in parts)
    everywhere = flags(help_of(program, ()))
    for flag in sorted(everywhere):
        if f"`{flag}" not in head:
            yield f"the beginning does not have {flag}"
    titles = set()
    for words, text in commands(program):
        title = " ".join(words) + (" NAME" if "Positionals:" in text else "")
        titles.add(title)
        if title not in sections:
            yield f"there is no section '{title}'"
            continue
        section = sections[title]
        documented = set(re.findall(r"^\| `(--[\w-]+)", section, re.MULTILINE))
        for flag in sorted((flags(text) - everywhere) ^ documented):
            yield f"{title}: {flag} is on one side only"
        used = re.findall(r"(?:^|\s)(--[\w-]+)", "\n".join(re.findall(r"```\n(.*?)```", section, re.DOTALL)))
        for flag in sorted(set(used) - flags(text) - everywhere):
            yield f"{title}: its example has {flag}, which does not exist"
        if f"vnodectl {' '.join(words)}" not in section:
            yield f"{title}: there is no example"
    for title in sorted(sections.keys() - titles):
        yield f"'{title}' is no command"


def main():
    with open(sys.argv[2], encoding="utf-8") as file:
        found = list(misfits(sys.argv[1], file.read()))
    print("\n".join(found) or "every command and flag is documented")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
