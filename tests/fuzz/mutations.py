"""Owns the damage that fuzzing does: to bytes, to trees of settings, to archives and to arrays."""

from __future__ import annotations

import copy
import datetime
import io
import os
import zipfile
from random import Random
from typing import Any

import numpy as np
import yaml
from hypothesis import HealthCheck, settings

# `make fuzz` sets 2,000; hypothesis counts what it calls examples.
ROUNDS = int(os.environ.get("PODIUM_FUZZ_ROUNDS", "40"))
IS_LONG = ROUNDS > 100
HANG_SECONDS = 10
fuzzed = settings(
    max_examples=ROUNDS,
    deadline=datetime.timedelta(seconds=HANG_SECONDS),
    # A long round looks elsewhere each time; a short one is the same on every machine.
    derandomize=not IS_LONG,
    database=None,
    suppress_health_check=list(HealthCheck),
)

WORDS: tuple[bytes, ...] = (
    *(b"&a ", b"*a ", b"<<: ", b"? ", b"- ", b": ", b"{", b"}", b"[", b"]", b"|\n", b">\n", b"'", b'"', b"#"),
    *(b"---\n", b"...\n", b"%YAML 9.9\n", b"!!binary ", b"!!set ", b"!!omap ", b"!!timestamp ", b"!x "),
    *(b"!!python/object/apply:os.system [true] ", b"!!float ", b"!!int ", b"!!null ", b"!!str ", b"!!pairs "),
    *(b"\t", b"\r", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3\x28", b"\xe2\x80\xa8", b"\xf0\x9f\x98\x80"),
    *(
        b"1e999",
        b"-.inf",
        b".nan",
        b"0x7fffffffffffffff",
        b"0o17",
        b"1_000",
        b"190:20:30",
        b"12e03",
        b"9" * 400,
    ),
    *(
        b"2001-13-45",
        b"2001-01-01 25:61:61",
        b"null",
        b"~",
        b"yes",
        b"PK\x01\x02",
        b"PK\x03\x04",
        b"PK\x05\x06",
    ),
)
NUMBERS = (0, -1, 1, 2, 3, 255, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.0, -0.0, 1e-320, 1e308, 0.1, 1e-3)
VALUES: tuple[Any, ...] = (
    *NUMBERS,
    *(
        None,
        True,
        False,
        float("nan"),
        float("inf"),
        float("-inf"),
        "",
        " ",
        "none",
        "1",
        "1e-3",
        "\u2028",
        "\x85",
    ),
    *(
        "a" * 5000,
        "../..",
        "/dev/zero",
        "/",
        ".",
        "a.b.c",
        "model.depth",
        "training.seed",
        "data.reference",
        "~",
    ),
    *([], {}, [[]], {"": 1}, {"a": {"b": {}}}, [None], list(range(300)), {"type": "int"}, {"name": "optuna"}),
    *(
        datetime.date(2001, 1, 1),
        datetime.datetime(1, 1, 1),
        b"\x00\xff",
        {1: 2},
        {None: 1},
        {True: 1},
        {1.5: []},
    ),
    *(
        "digits:",
        "npz:",
        "folder:",
        "cifar10",
        "x.zip",
        "a:b",
        "module:function",
        "tpe",
        "gp",
        "grid",
        "hyperband",
    ),
)
KEYS: tuple[Any, ...] = (
    *(
        "",
        ".",
        "..",
        "a.",
        ".a",
        "a..b",
        "model",
        "model.",
        "model.depth",
        "model.parameters.x",
        "model.parameters",
    ),
    *(
        "space",
        "type",
        "low",
        "high",
        "choices",
        "when",
        "step",
        "scale",
        "name",
        "seed",
        "__class__",
        "model_config",
    ),
    *(
        "data.reference",
        "optimizer.schedule",
        "optimizer.schedule.name",
        "callbacks.early_stopping",
        "training.epochs",
    ),
    *(1, 0, -1, 1.5, None, True, datetime.date(2001, 1, 1)),
)


def damaged_bytes(content: bytes, random: Random) -> bytes:
    """One to four places changed: a bit, some bytes gone, twice, swapped, or a word put in."""
    data = bytearray(content)
    for _ in range(random.randint(1, 4)):
        place = random.randint(0, len(data))
        length = random.choice((1, 1, 2, 4, 16, 200))
        kind = random.randint(0, 6)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << random.randint(0, 7)
        elif kind == 1:
            del data[place : place + length]
        elif kind == 2:
            data[place:place] = data[place : place + length]
        elif kind == 3:
            data[place:place] = random.choice(WORDS)
        elif kind == 4:
            data[place : place + length] = bytes(random.randint(0, 255) for _ in range(min(length, 8)))
        elif kind == 5:
            del data[place:]
        else:
            data[place : place + 4] = random.choice(
                (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\1\0\0\0")
            )
    return bytes(data)


def damaged_tree(tree: Any, random: Random) -> Any:
    """One to three nodes of nested dicts and lists replaced, moved, renamed, wrapped or gone."""
    tree = copy.deepcopy(tree)
    for _ in range(random.randint(1, 3)):
        places = list(_places(tree))
        if not places:
            return random.choice(VALUES)
        holder, key = random.choice(places)
        kind = random.randint(0, 6)
        if kind <= 2:
            holder[key] = copy.deepcopy(random.choice(VALUES))
        elif kind == 3:
            del holder[key]
        elif kind == 4 and isinstance(holder, dict):
            new = random.choice((*KEYS, f"{key}x", str(key).upper()))
            holder[new] = holder.pop(key)
        elif kind == 5:
            other, place = random.choice(places)
            holder[key] = copy.deepcopy(other[place]) if place in _keys(other) else None
        else:
            holder[key] = random.choice(
                ([holder[key]], {"a": holder[key]}, {key: holder[key]}, [holder[key]] * 3)
            )
    return tree


def damaged_yaml(text: str, random: Random) -> bytes:
    """The text of a YAML file with damage to its bytes, its tree, or both."""
    content = text.encode()
    kind = random.randint(0, 3)
    if kind:
        tree = damaged_tree(yaml.safe_load(text), random)
        content = yaml.dump(tree, allow_unicode=True, default_flow_style=random.choice((None, True))).encode()
    return damaged_bytes(content, random) if kind in (0, 3) else content


NAMES = (
    *(
        "../../out.png",
        "/etc/out.png",
        "C:\\out.png",
        "train/../../out.png",
        "train\\cat\\a.png",
        "train/cat/a\x00.png",
    ),
    *(
        "train/cat/",
        "train/cat/a/b.png",
        "train/a.png",
        "test/bird/a.png",
        "train/cat/\udcff.png",
        "",
        "/",
        "train",
    ),
    *(
        ".hidden",
        "train/.x/a.png",
        "__MACOSX/train/cat/a.png",
        "train/dog/000.png",
        "a" * 60_000,
        "train//a.png",
    ),
)


def damaged_zip(members: dict[str, bytes], random: Random) -> bytes:
    """An archive with foreign names, contents, kinds of entry or lengths, or with damage to its bytes."""
    entries = [(zipfile.ZipInfo(name), content) for name, content in members.items()]
    for _ in range(random.randint(0, 3)):
        place = random.randrange(len(entries))
        info, content = entries[place]
        kind = random.randint(0, 5)
        if kind == 0:
            info = zipfile.ZipInfo(
                random.choice(NAMES).encode(errors="surrogateescape").decode("latin-1") or "x"
            )
        elif kind == 1:
            content = damaged_bytes(content, random) if content else b"x"
        elif kind == 2:
            info.external_attr = random.choice((0o120777, 0o040755, 0o060644, 0o010644, 0o177777)) << 16
        elif kind == 3:
            info.compress_type = random.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        elif kind == 4:
            content = random.choice((b"", b"GIF89a", b"\0" * 20_000_000, content * 3))
            info.compress_type = zipfile.ZIP_DEFLATED
        else:
            entries.append((copy.copy(info), content))
        entries[place] = (info, content)
    packed = _packed(entries)
    return damaged_bytes(packed, random) if random.random() < 0.6 else packed


def damaged_npz(arrays: dict[str, Any], random: Random) -> bytes:
    """Arrays of foreign kinds and shapes, headers that promise something else, or damage to the bytes."""
    arrays = dict(arrays)
    for _ in range(random.randint(0, 2)):
        key = random.choice(list(arrays))
        arrays[key] = _foreign_array(arrays[key], random)
    if random.random() < 0.2:
        arrays[random.choice(("x_train", "y_test", "arr_0", "x", "../x"))] = arrays.pop(
            random.choice(list(arrays))
        )
    members: dict[str, bytes] = {}
    for name, array in arrays.items():
        file = io.BytesIO()
        np.lib.format.write_array(
            file, array, allow_pickle=True, version=random.choice((None, (2, 0), (3, 0)))
        )
        members[f"{name}.npy"] = file.getvalue()
    if random.random() < 0.4:
        name = random.choice(list(members))
        members[name] = _foreign_header(members[name], random)
    return (
        damaged_zip(members, random)
        if random.random() < 0.6
        else _packed([(zipfile.ZipInfo(name), content) for name, content in members.items()])
    )


def _foreign_array(array: Any, random: Random) -> Any:
    kinds = (
        "float32",
        "float64",
        "int64",
        "uint64",
        "bool",
        "complex64",
        "U3",
        "S3",
        "object",
        "datetime64[s]",
        "V4",
    )
    kind = random.randint(0, 4)
    if kind == 0:
        return np.zeros(array.shape, dtype=random.choice(kinds))
    if kind == 1:
        return array.reshape(random.choice(((-1,), (1, -1), (-1, 1), (*array.shape, 1), (1, *array.shape))))
    if kind == 2:
        return np.zeros(
            random.choice(((), (0,), (3, 0, 0, 3), (0, 8, 8, 3), (2, 1, 1, 3), (2, 8, 8, 4), (1,) * 20))
        )
    if kind == 3 and array.dtype.kind in "iu":
        return array.astype("int64") + random.choice((-1, 250, 2**40, -(2**62)))
    return np.array([{"a": 1}, print], dtype=object)


def _foreign_header(member: bytes, random: Random) -> bytes:
    texts = (
        "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 9999999), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '|u1', 'fortran_order': True, 'shape': (-1, 8, 8, 3), }",
        "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 2.5), }",
        "{'descr': '|u1', 'fortran_order': 3, 'shape': 5, }",
        "{'descr': 'x', 'fortran_order': False, 'shape': (), }",
        "(" * 200,
        "{" + "'a': " * 50,
        "__import__('os').system('true')",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (10,), }",
    )
    header = random.choice(texts).encode() + b"\n"
    return (
        b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + member[random.randint(10, 200) :]
    )


def _packed(entries: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        written = set()
        for info, content in entries:
            if info.filename in written:
                archive.NameToInfo.pop(info.filename)  # so that zipfile does not warn
            written.add(info.filename)
            archive.writestr(info, content, compress_type=info.compress_type)
    return file.getvalue()


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    for key in _keys(tree):
        found += [(tree, key), *_places(tree[key])]
    return found


def _keys(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return list(tree)
    return list(range(len(tree))) if isinstance(tree, list) and len(tree) < 50 else []
