"""`sottovoce completion`: scripts that let a shell complete commands, options and file names.

Knows the three shells' ways to say it. What there is to complete is read from the parsers of the commands
installed here, so that nothing is written down twice.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sottovoce.cli import DONE, installed_commands, load_command, make_parser

EXAMPLE = """\
  sottovoce completion bash > ~/.local/share/bash-completion/completions/sottovoce
  sottovoce completion zsh > ~/.zfunc/_sottovoce
  sottovoce completion fish > ~/.config/fish/completions/sottovoce.fish
"""


@dataclass(frozen=True)
class Option:
    """One option: its spellings, what may follow it, and its help."""

    names: tuple[str, ...]
    takes_value: bool
    choices: tuple[str, ...]
    help: str


@dataclass(frozen=True)
class Words:
    """What one command takes; `choices` are those of its arguments, where they are not file names."""

    help: str
    options: tuple[Option, ...]
    choices: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("shell", choices=tuple(SHELLS), help="whose script to print")


def run(args: argparse.Namespace) -> int:
    """Prints the script."""
    print("\n".join(SHELLS[args.shell](collect())))
    return DONE


def collect() -> dict[str, Words]:
    """What can be completed, by command; one that cannot be imported is known by its name alone."""
    found: dict[str, Words] = {}
    for name, line in installed_commands().items():
        try:
            parser: argparse.ArgumentParser = make_parser(name, load_command(name))
        except ImportError:
            parser = argparse.ArgumentParser()
        # argparse keeps no public list of what was added to a parser.
        actions = [action for action in parser._actions if action.help != argparse.SUPPRESS]
        options = tuple(_option(action) for action in actions if action.option_strings)
        positional = [action for action in actions if not action.option_strings]
        found[name] = Words(line, options, tuple(str(c) for action in positional for c in action.choices or ()))
    return found


def _option(action: argparse.Action) -> Option:
    choices = tuple(str(choice) for choice in action.choices or ())
    return Option(tuple(action.option_strings), action.nargs != 0, choices, action.help or "")


def bash(commands: Mapping[str, Words]) -> Iterator[str]:
    """A completion function for bash 3.2 and later."""
    yield "_sottovoce() {"
    yield '    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" words=""'
    yield "    COMPREPLY=()"
    yield '    if [ "$COMP_CWORD" -eq 1 ]; then'
    yield f'        COMPREPLY=($(compgen -W "{" ".join([*commands, "--help", "--version"])}" -- "$current"))'
    yield "        return"
    yield "    fi"
    yield '    case "${COMP_WORDS[1]} $previous" in'
    for command, words in commands.items():
        for option in words.options:
            if option.takes_value:
                pattern = "|".join(f'"{command} {name}"' for name in option.names)
                reply = f'-W "{" ".join(option.choices)}"' if option.choices else "-f"
                yield f'        {pattern}) COMPREPLY=($(compgen {reply} -- "$current")); return ;;'
    yield "    esac"
    yield '    case "${COMP_WORDS[1]}" in'
    for command, words in commands.items():
        names = [name for option in words.options for name in option.names]
        yield f'        {command}) words="{" ".join([*names, *words.choices])}" ;;'
    yield "    esac"
    yield '    COMPREPLY=($(compgen -W "$words" -- "$current"))'
    yield '    if [ "${current#-}" = "$current" ]; then COMPREPLY+=($(compgen -f -- "$current")); fi'
    yield "}"
    yield "complete -o filenames -F _sottovoce sottovoce"


def zsh(commands: Mapping[str, Words]) -> Iterator[str]:
    """A completion function for zsh's own system."""
    yield "#compdef sottovoce"
    yield "if (( CURRENT == 2 )); then"
    yield "    local -a commands"
    yield f"    commands=({' '.join(_quote(f'{name}:{words.help}') for name, words in commands.items())})"
    yield "    _describe command commands"
    yield "    return"
    yield "fi"
    yield "local command=$words[2]"
    yield "shift words"
    yield "(( CURRENT-- ))"
    yield "case $command in"
    for command, words in commands.items():
        specs = [_zsh_spec(name, option) for option in words.options for name in option.names]
        rest = f"*:argument:({' '.join(words.choices)})" if words.choices else "*:file:_files"
        yield f"    {command}) _arguments {' '.join(_quote(spec) for spec in [*specs, rest])} ;;"
    yield "esac"


def fish(commands: Mapping[str, Words]) -> Iterator[str]:
    """`complete` lines for fish."""
    yield "complete -c sottovoce -n __fish_use_subcommand -f"
    for command, words in commands.items():
        yield f"complete -c sottovoce -n __fish_use_subcommand -f -a {command} -d {_quote(words.help)}"
        begin = f"complete -c sottovoce -n '__fish_seen_subcommand_from {command}'"
        if words.choices:
            yield f"{begin} -f -a {_quote(' '.join(words.choices))}"
        for option in words.options:
            names = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in option.names)
            value = (
                f" -x -a {_quote(' '.join(option.choices))}" if option.choices else " -r" if option.takes_value else ""
            )
            yield f"{begin} {names}{value} -d {_quote(_plain(option.help))}"


def _zsh_spec(name: str, option: Option) -> str:
    text = _plain(option.help).replace("[", "(").replace("]", ")").replace(":", "\\:")
    value = f":value:({' '.join(option.choices)})" if option.choices else ":value:_files" if option.takes_value else ""
    return f"{name}[{text}]{value}"


def _plain(help: str) -> str:
    return help.replace("%%", "%").replace("`", "")


def _quote(text: str) -> str:
    """In single quotes, as all three shells read them."""
    return "'" + text.replace("'", "'\\''") + "'"


SHELLS: Mapping[str, Callable[[Mapping[str, Words]], Iterator[str]]] = {
    "bash": bash,
    "zsh": zsh,
    "fish": fish,
}
