"""The outputs in docs/own_data.md are what its commands print, on the files that the page's test makes."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from fastamr.cli import main

from .pages import Block, blocks, commands
from .workshop import prepare_page

PAGE = "docs/own_data.md"
# Training is run by test_blocks, made small; its numbers are not on the page.
SAID = ("import", "split")


def pairs() -> list[tuple[Block, Block]]:
    """Blocks of commands with the output below them."""
    found = blocks(PAGE)
    return [
        (one, other)
        for one, other in itertools.pairwise(found)
        if (one.language, other.language) == ("sh", "text")
    ]


def test_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    prepare_page(PAGE, tmp_path)
    compared = 0
    for block, output in pairs():
        said = ""
        for command in commands(block):
            if command.words[0] == "fastamr" and command.words[1] in SAID:
                assert main(list(command.words[1:])) == 0
                captured = capfd.readouterr()
                said += captured.err + captured.out
        lines = [line.rstrip() for line in said.replace("\r", "\n").splitlines()]
        missing = [line for line in output.text.splitlines() if said and line not in lines]
        assert not missing, f"{PAGE}:{output.line}: not printed: {missing}\nprinted:\n{said}"
        compared += bool(said)
    assert compared >= 5
