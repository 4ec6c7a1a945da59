"""Sound files made unsound: bytes, words, numbers, JSON trees, arrays with their headers, members of archives."""

from __future__ import annotations

import copy
import io
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

Mutator = Callable[[bytes, Random], bytes]

_WORDS = (
    *(
        "",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "-1",
        "0",
        "1e-320",
        "9" * 25,
        "9" * 5000,
        "0x10",
        "1_0",
        "1,5",
        "1.5.5",
    ),
    *(
        "true",
        "null",
        "None",
        "\x1b[31m",
        "\u202e",
        "\ud800",
        "\x00",
        '"',
        "'",
        "{",
        "[[[[",
        "<script>",
        "=1+1",
        "#",
    ),
    *(
        "2147483648",
        "-9223372036854775809",
        "18446744073709551616",
        "4294967295",
        "1e308",
        "é",
        "\ufeff",
        "\r",
        "\u2028",
    ),
)
_INTEGERS = (
    0,
    1,
    -1,
    127,
    255,
    256,
    32767,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**53,
    2**62,
    2**63 - 1,
)
_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        0.5,
        -0.0,
        1e308,
        float("nan"),
        float("inf"),
        10**30,
        -(10**30),
        2**31,
        2**63,
    ),
    *(
        "",
        "x",
        "1",
        "\x1b]0;x\x07",
        "a\nb",
        "\ud800",
        "x" * 3000,
        [],
        {},
        [[]],
        [1, [2, [3]]],
        {"x": 1},
        [None],
        [{}] * 5,
    ),
    *([0] * 40, [[0, 0, 0]] * 30, [["a"]] * 3, {str(number): number for number in range(30)}),
)
_CODES = (
    "<f4",
    "<f8",
    ">f4",
    "<i8",
    "<i4",
    "|b1",
    "|u1",
    "<U3",
    "|S5",
    "<c8",
    "<f2",
    "<m8[s]",
    "|V4",
    "|O",
    "<U0",
)


def flip_bytes(content: bytes, random: Random) -> bytes:
    """Change bytes where they are, or write a number of 1 to 8 bytes over some."""
    data = bytearray(content or b"\0")
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        place = random.randrange(len(data))
        if random.random() < 0.5:
            data[place] ^= 1 << random.randrange(8)
        else:
            size, order = random.choice((1, 2, 4, 8)), random.choice(("little", "big"))
            number = random.choice(_INTEGERS) % (1 << 8 * size)
            data[place : place + size] = number.to_bytes(size, order)  # type: ignore[arg-type]
    return bytes(data)


def cut_bytes(content: bytes, random: Random) -> bytes:
    """Cut the end off, take a piece out, or put one in twice."""
    if not content:
        return b"\0"
    one, other = sorted(random.randrange(len(content) + 1) for _ in range(2))
    kind = random.randrange(4)
    if kind == 0:
        return content[:one]
    if kind == 1:
        return content[:one] + content[other:]
    if kind == 2:
        return content[:other] + content[one:other] * random.choice((1, 2, 30)) + content[other:]
    return content[:one] + bytes(random.randrange(256) for _ in range(random.randrange(20))) + content[one:]


def change_words(content: bytes, random: Random) -> bytes:
    """Replace words and numbers of a text."""
    text = content.decode("utf-8", "replace")
    spots = [found.span() for found in re.finditer(r"[-+.\w]+", text)]
    for _ in range(random.choice((1, 1, 2, 6))):
        if not spots:
            break
        begin, end = random.choice(spots)
        word = random.choice(_WORDS)
        if random.random() < 0.2:
            other = random.choice(spots)
            word = text[slice(*other)]
        text = text[:begin] + word + text[end:]
        spots = [found.span() for found in re.finditer(r"[-+.\w]+", text)]
    return text.encode("utf-8", "surrogatepass")


def change_lines(content: bytes, random: Random) -> bytes:
    """Drop, repeat and exchange lines, or change what parts them and the words of each."""
    lines = content.decode("utf-8", "replace").split("\n")
    for _ in range(random.choice((1, 2, 5))):
        place, other = random.randrange(len(lines)), random.randrange(len(lines))
        kind = random.randrange(6)
        if kind == 0 and len(lines) > 1:
            del lines[place]
        elif kind == 1:
            lines.insert(place, lines[other])
        elif kind == 2:
            lines[place], lines[other] = lines[other], lines[place]
        elif kind == 3:
            lines[place] = lines[place].replace(
                random.choice((",", " ", ":", "\t", ";")), random.choice((";", "\t", "", ",,"))
            )
        elif kind == 4:
            lines[place] += random.choice((",", " ", "  - x", ": {", " &a [*a]", " 1 2 3", "\r"))
        else:
            lines[place] = random.choice(_WORDS) + lines[place]
    return random.choice(("\n", "\n", "\n", "\r\n", "\r")).join(lines).encode("utf-8", "surrogatepass")


def change_tree(value: Any, random: Random) -> Any:
    """Change lists and mappings within one another: values, keys, lengths, depths."""
    tree = copy.deepcopy(value)
    for _ in range(random.choice((1, 1, 2, 4))):
        tree = _change_node(tree, random)
    return tree


def _change_node(tree: Any, random: Random) -> Any:
    parents: list[Any] = []
    waiting = [tree]
    while waiting and len(parents) < 10_000:  # lists may share their parts many times over
        node = waiting.pop()
        if isinstance(node, (list, dict)) and node:
            parents.append(node)
            waiting.extend(node.values() if isinstance(node, dict) else node[:6])
    if not parents or random.random() < 0.02:
        return copy.deepcopy(random.choice(_VALUES))
    node = random.choice(parents)
    key = random.choice(list(node)) if isinstance(node, dict) else random.randrange(len(node))
    kind = random.randrange(8)
    if kind < 3:
        node[key] = copy.deepcopy(random.choice(_VALUES))
    elif kind == 3:
        del node[key]
    elif kind == 4 and isinstance(node, dict):
        node[random.choice(_WORDS[:20])] = node.pop(key)
    elif kind == 4:
        node.extend(copy.deepcopy(node[:50]))
    elif kind == 5:
        node[key] = [node[key]] * random.choice((0, 1, 2, 40))
    elif kind == 6:
        deep: Any = node[key]
        for _ in range(random.choice((1, 3, 200))):
            deep = [deep] if random.random() < 0.7 else {"x": deep}
        node[key] = deep
    else:
        other = random.choice(parents)
        node[key] = copy.deepcopy(other)
    return tree


def change_json(content: bytes, random: Random) -> bytes:
    """Change the tree of a JSON text."""
    try:
        tree = json.loads(content)
    except ValueError:
        return change_words(content, random)
    return json.dumps(change_tree(tree, random), ensure_ascii=random.random() < 0.7).encode(
        "utf-8", "surrogatepass"
    )


def change_pickle(content: bytes, random: Random) -> bytes:
    """Change the tree of a pickle, or share one part of it many times."""
    tree = change_tree(pickle.loads(content), random)
    if random.random() < 0.1:
        for _ in range(random.choice((5, 12, 40))):
            tree = [tree] * random.choice((2, 10))
    if random.random() < 0.1 and isinstance(tree, dict):
        tree |= {((2**61 - 1) * number): number for number in range(random.choice((5, 3000)))}
    return pickle.dumps(tree, protocol=random.choice((0, 2, 3, 4, 5)))


def change_array(content: bytes, random: Random) -> bytes:
    """Change the header or the values of a ``.npy`` file."""
    kind = random.randrange(4)
    if kind == 0:
        return flip_bytes(content, random) if random.random() < 0.5 else cut_bytes(content, random)
    if kind == 1:
        return _header(random) + content[128:]
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.size > 1 << 20:
        # A header spoiled before may claim 2**62 texts of no length; writing them never ends.
        return cut_bytes(content, random)
    return _saved(_other_values(array, random), random)


def _header(random: Random) -> bytes:
    shape: Any = tuple(random.choice((*_INTEGERS, 2, 3, 25)) for _ in range(random.randrange(6)))
    shape = random.choice((shape, shape, shape, (0,) * 40, [1], "x", None, (1.5,), (True,)))
    fields: dict[str, Any] = {
        "descr": random.choice(_CODES),
        "fortran_order": random.random() < 0.3,
        "shape": shape,
    }
    if random.random() < 0.2:
        fields["descr"] = random.choice(
            ([("a", "<f4")], "x", 5, "<U999999999", "<f4" * 300, [("a", "<f4", (10**9,))])
        )
    text = repr(fields)
    if random.random() < 0.2:
        text = random.choice(
            ("{", "{'descr': (", "[" * 300, "1" * 5000, text + "\n" * 3, "(" * 60 + ")" * 60, "-" * 9000)
        )
    body = text.encode().ljust(118) + b"\n"
    version = random.choice((b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\t\0"))
    size = struct.pack(
        "<H" if version[0] == 1 else "<I", len(body) if random.random() < 0.9 else random.choice((0, 65535))
    )
    return b"\x93NUMPY" + version + size + body


def _other_values(array: np.ndarray, random: Random) -> np.ndarray:
    kind = random.randrange(7)
    with np.errstate(all="ignore"):
        if kind == 0 and array.dtype.kind in "biuf":
            return array.astype(
                random.choice(("f2", "f4", "f8", "i1", "i8", "u8", "?", "c8", "U3", "S3", ">f4"))
            )
        if kind == 1:
            shape = list(array.shape)
            random.shuffle(shape)
            return array.reshape(
                random.choice((shape, [-1], [1, *shape], [*shape, 1], [array.size, 1, 1, 1]))
            )
        if kind == 2:
            return array[: random.choice((0, 1, 2))] if array.ndim else array
        if kind == 3 and array.dtype.kind in "iuf" and array.size:
            changed = array.copy()
            for _ in range(random.choice((1, 3, 40))):
                place = random.randrange(array.size)
                value = random.choice((*_INTEGERS, -5, float("nan"), float("inf"), 1e300))
                if array.dtype.kind in "iu":
                    value = int(np.nan_to_num(value, posinf=7)) % 256 - (
                        array.dtype.kind == "i"
                    ) * random.choice((0, 128))
                changed.reshape(-1)[place] = value
            return changed
        if kind == 4 and array.ndim:
            return np.concatenate([array, array], axis=random.randrange(array.ndim))
        if kind == 5:
            return np.asfortranarray(array.T if random.random() < 0.5 else array)
    return np.array(
        random.choice(
            ("x", b"\xff", 5, 1.5, ["a", "b"], [[]], np.zeros((0, 3)), np.ones((9, 1)), ["\x1b[2J"] * 25)
        )
    )


def _saved(array: np.ndarray, random: Random) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def change_npz(content: bytes, random: Random) -> bytes:
    """Change the arrays of an ``.npz`` archive, their names, or the archive around them."""

    def change(name: str, member: bytes) -> bytes:
        return change_array(member, random)

    return _change_zip(content, random, change)


def change_zip(content: bytes, random: Random) -> bytes:
    """Change the members of an archive, their names, or the archive itself."""

    def change(name: str, member: bytes) -> bytes:
        return random.choice((flip_bytes, cut_bytes, change_words, change_lines))(member, random)

    return _change_zip(content, random, change)


def _change_zip(content: bytes, random: Random, change: Callable[[str, bytes], bytes]) -> bytes:
    if random.random() < 0.2:
        return random.choice((flip_bytes, cut_bytes))(content, random)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = list(members)
    chosen = random.choice(names)
    kind = random.randrange(8)
    if kind < 4:
        members[chosen] = change(chosen, members[chosen])
    elif kind == 4:
        del members[chosen]
    elif kind == 5:
        other = random.choice(
            (*names, "../x.npy", "x" * 300, "label.npy", "a/b.json", "\x1b.npy", "parents.npy", "fps.npy")
        )
        members[other] = members.pop(chosen)
    elif kind == 6:
        members[chosen] = members[random.choice(names)]
    else:
        members[chosen] = bytes(random.choice((0, 1 << 16, 1 << 20)))
    file = io.BytesIO()
    method = random.choice(
        (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)
    )
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    done = file.getvalue()
    return flip_bytes(done, random) if random.random() < 0.3 else done


def change_tensors(content: bytes, random: Random) -> bytes:
    """Change the header of a safetensors file, the JSON texts in it, or the tensors behind."""
    if random.random() < 0.3:
        return random.choice((flip_bytes, cut_bytes))(content, random)
    size = int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    if random.random() < 0.8:
        header.get("__metadata__", {}).pop("checksums", None)  # else every change is found by them alone
    kind = random.randrange(4)
    texts = [key for key, value in header.get("__metadata__", {}).items() if value.startswith("{")]
    if kind < 2 and texts:
        key = random.choice(texts)
        header["__metadata__"][key] = json.dumps(change_tree(json.loads(header["__metadata__"][key]), random))
    elif kind == 2:
        header = change_tree(header, random)
    else:
        # Whole numbers where the tensors of counts and labels lie.
        names = [name for name in header if name != "__metadata__" and header[name]["dtype"] == "I64"]
        if names:
            begin, end = header[random.choice(names)]["data_offsets"]
            place = random.randrange(begin, max(begin + 1, end - 7), 8) if end - begin > 8 else begin
            number = random.choice((*_INTEGERS, -(2**63), 2**40, 10**9))
            body = body[:place] + number.to_bytes(8, "little", signed=True) + body[place + 8 :]
        else:
            body = flip_bytes(body, random)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


TEXT: tuple[Mutator, ...] = (change_words, change_words, change_lines, flip_bytes, cut_bytes)
JSON: tuple[Mutator, ...] = (change_json, change_json, change_json, change_words, flip_bytes, cut_bytes)
ARRAY: tuple[Mutator, ...] = (change_array,)
NPZ: tuple[Mutator, ...] = (change_npz,)
ZIP: tuple[Mutator, ...] = (change_zip,)
PICKLE: tuple[Mutator, ...] = (change_pickle, change_pickle, flip_bytes, cut_bytes)
TENSORS: tuple[Mutator, ...] = (change_tensors,)
BINARY: tuple[Mutator, ...] = (flip_bytes, flip_bytes, cut_bytes)
