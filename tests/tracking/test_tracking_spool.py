from __future__ import annotations

from pathlib import Path

from podium.tracking.spool import LARGE_BYTES, Spool


def numbers(spool: Spool) -> list[object]:
    return [record.content["n"] for record in spool.head(1000)]


def test_what_is_not_acknowledged_is_there_for_the_next_process(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for n in range(5):
        spool.append({"n": n})
    spool.acknowledge(2)
    spool.close()
    later = Spool(tmp_path)
    assert numbers(later) == [2, 3, 4]
    assert all(record.left_over for record in later.head(10))
    later.append({"n": 5})
    assert later.head(10)[-1].sequence == 6
    assert not later.head(10)[-1].left_over
    later.close()


def test_half_a_line_is_dropped_and_the_next_record_is_whole(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append({"n": 0})
    spool.close()
    with (tmp_path / "spool.jsonl").open("ab") as lines:
        lines.write(b'{"sequence":2,"n"')
    torn = Spool(tmp_path)
    assert numbers(torn) == [0]
    torn.append({"n": 1})
    torn.close()
    whole = Spool(tmp_path)
    assert numbers(whole) == [0, 1]
    assert whole.damaged_lines == 0
    whole.close()


def test_a_damaged_line_costs_itself_alone_and_is_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for n in range(3):
        spool.append({"n": n})
    spool.close()
    lines = (tmp_path / "spool.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "spool.jsonl").write_bytes(lines[0] + b"\x00\x00garbage\n" + lines[2])
    damaged = Spool(tmp_path)
    assert numbers(damaged) == [0, 2]
    assert damaged.damaged_lines == 1
    damaged.close()


def test_an_acknowledged_spool_does_not_grow_for_ever(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append({"n": "x" * LARGE_BYTES})
    spool.append({"n": 1})
    spool.acknowledge(1)
    assert (tmp_path / "spool.jsonl").stat().st_size > LARGE_BYTES
    spool.acknowledge(2)
    assert (tmp_path / "spool.jsonl").stat().st_size == 0
    spool.append({"n": 2})
    spool.close()
    later = Spool(tmp_path)
    assert numbers(later) == [2]
    assert later.head(1)[0].sequence == 3
    later.close()
