"""Lists of work are checked as lists; pictures are not opened for it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ldm.batch.manifest import bench_backgrounds, read_manifest
from ldm.batch.work_item import MaskedBackground, WorkItem
from ldm.insertion.object_source import ObjectSource

LIKE = WorkItem(MaskedBackground(Path()), ObjectSource(Path("own.safetensors"), Path("own.png"), 0.7), (5, 6))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_csv_and_jsonl_say_the_same(tmp_path: Path) -> None:
    head = "name,background,mask,box,seed,object,reference\n"
    table = head + ",a.png,m.png,,,,\nb,b.png,,1 2 3 4.5,9,o.safetensors,\n"
    rows = [
        {"background": "a.png", "mask": "m.png"},
        {"name": "b", "background": "b.png", "box": [1, 2, 3, 4.5], "seed": 9, "object": "o.safetensors"},
    ]
    first = read_manifest(write(tmp_path / "w.csv", table), LIKE)
    second = read_manifest(write(tmp_path / "w.jsonl", "\n\n".join(map(json.dumps, rows))), LIKE)
    assert first == second
    assert first[0] == WorkItem(MaskedBackground(tmp_path / "a.png", tmp_path / "m.png"), LIKE.source, (5, 6))
    assert first[1].masked == MaskedBackground(tmp_path / "b.png", box=(1, 2, 3, 4.5))
    assert first[1].seeds == (9, 10) and first[1].stem == "b"
    assert first[1].source == ObjectSource(tmp_path / "o.safetensors", None, 0.7), (
        "an object has its own reference"
    )


def test_a_reference_alone_replaces_only_the_reference(tmp_path: Path) -> None:
    file = write(tmp_path / "w.csv", "background,box,reference\na.png,1 1 2 2,r.png\n")
    [item] = read_manifest(file, LIKE)
    assert item.source == ObjectSource(LIKE.source.object, tmp_path / "r.png", 0.7)


def test_columns_may_be_separated_by_semicolons(tmp_path: Path) -> None:
    file = write(tmp_path / "w.csv", "\ufeffbackground;box\na.png;1 1 2 2\n")
    [item] = read_manifest(file, LIKE)
    assert item.masked == MaskedBackground(tmp_path / "a.png", box=(1, 1, 2, 2))
    with pytest.raises(
        ValueError, match="line 2: more values than columns; put quotes around what holds a ;"
    ):
        read_manifest(write(tmp_path / "v.csv", "background;box\na.png;1 1 2 2;3\n"), LIKE)


@pytest.mark.parametrize(
    "text",
    [
        "background;box;seed\nimg/a.png;1,5 1 2,5 2;3\n",
        "sep=;\nbackground;box;seed\nimg/a.png;1,5 1 2,5 2;3\n",
        "background\tbox\tseed\nimg/a.png\t1.5 1 2.5 2\t3.0\n",
        ' Background , BOX , seed\nimg\\a.png,"1.5, 1, 2.5, 2", 3 \n',
        "background;box;seed\r\nimg/a.png;[1.5 1 2.5 2];3.0\r\n",
        'background, box, seed\n"img/a.png", "1.5, 1, 2.5, 2", "3"\n',
        "\nbackground,box,seed,,\nimg/a.png,1.5 1 2.5 2,3,,\n,,,,\n\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_as_spreadsheets_write_them(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "w.csv").write_text(text, encoding, newline="")
    [item] = read_manifest(tmp_path / "w.csv", LIKE)
    assert item.masked == MaskedBackground(tmp_path / "img/a.png", box=(1.5, 1, 2.5, 2)) and item.seeds == (
        3,
        4,
    )


def test_a_table_in_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text("background,box,name\na.png,1 1 9 9,caf\xe9\n", "cp1252")
    with pytest.raises(ValueError, match=r"w\.csv: not readable as UTF-8 text: line 2, 'a\.png,1 1 9 9,café"):
        read_manifest(tmp_path / "w.csv", LIKE)


def test_paths_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    file = write(tmp_path / "w.csv", "background,mask\n~/a.png,~/m.png\n")
    assert read_manifest(file, LIKE)[0].masked == MaskedBackground(
        tmp_path / "home/a.png", tmp_path / "home/m.png"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("background,maks\na,b\n", "line 1: unknown 'maks'; did you mean mask"),
        ("background,mask,box\na,b,1 2 3 4\n", "line 2: expected one of mask and box"),
        ("background,mask\na,b\nc,\n", "line 3: expected one of mask and box"),
        ("background,mask\n,b\n", "line 2: no background"),
        ("background,box\na,1 2 3\n", "line 2: box '1 2 3'; expected four numbers"),
        ("background,box\na,1,2,3,4\n", "line 2: more values than columns"),
        ("background,mask,seed\na,b,x\n", "line 2: seed 'x'; expected a whole number"),
        ("background,mask,seed\na,b,1.5\n", "line 2: seed '1.5'; expected a whole number"),
        ("background,mask,seed\na,b,-1\n", "line 2: seed -1: expected 0 to 9223372036854775807"),
        (
            "background,mask,seed\na,b,9223372036854775807\n",
            "seed 9223372036854775808: expected 0 to",
        ),
        ("background,mask,name\na,b,../c\n", "line 2: name '../c'; expected a name without folders"),
        ("background,mask\n", "lists nothing"),
        ("background,mask,mask\na,b,c\n", "line 1: the column mask stands there twice"),
        (
            'background,mask,name\na,b,"x\nc,d,y\ne,f,"z"\n',
            "line 4: name holds a line break; close the quote",
        ),
        ('background,mask\na,"b\n' + "c" * 200_000, "line 3: not readable as a table (field larger than"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        read_manifest(write(tmp_path / "w.csv", text), LIKE)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_json_lines_may_end_with_a_comma(tmp_path: Path) -> None:
    file = write(tmp_path / "w.jsonl", '{"background": "a.png", "box": [1, 1, 2, 2]},\n')
    [item] = read_manifest(file, LIKE)
    assert item.masked == MaskedBackground(tmp_path / "a.png", box=(1, 1, 2, 2))


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        "{",
        '{"background": "a", "box": [1, 2, 3, "x"]}',
        "[" * 100_000,
        '{"background": "a", "mask": "m", "mask": "n"}',
        '{"background": "a", "mask": "m", "name": "x\\ny"}',
    ],
)
def test_a_wrong_json_line_is_named(tmp_path: Path, text: str) -> None:
    good = '{"background": "a", "box": [1, 2, 3, 4]}\n'
    with pytest.raises(ValueError, match=r"w\.jsonl: line 2"):
        read_manifest(write(tmp_path / "w.jsonl", good + text), LIKE)


def test_an_object_of_a_line_has_the_pictures_of_the_command(tmp_path: Path) -> None:
    like = replace(LIKE, source=replace(LIKE.source, pictures=tmp_path, pick="bee"))
    [item] = read_manifest(write(tmp_path / "w.csv", "background,mask,object\na,m,o.ckpt\n"), like)
    source = item.source
    assert (source.object, source.pictures, source.pick) == (tmp_path / "o.ckpt", tmp_path, "")


def test_other_files_are_refused_and_transparent_backgrounds_need_no_mask(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such manifest"):
        read_manifest(tmp_path / "w.csv", LIKE)
    with pytest.raises(ValueError, match=r"\.csv or \.jsonl"):
        read_manifest(write(tmp_path / "w.txt", "a"), LIKE)
    file = write(tmp_path / "w.csv", "background\na.png\n")
    assert read_manifest(file, LIKE, transparent=True)[0].masked == MaskedBackground(tmp_path / "a.png")
    with pytest.raises(ValueError, match="mask and box"):
        read_manifest(file, LIKE)


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    for name in ("0001", "0002", "0010"):
        write(tmp_path / "image" / f"{name}_img.png", "")
        write(tmp_path / "mask" / f"{name}_mask.png", "")
    return tmp_path


def names(found: list[MaskedBackground]) -> list[tuple[str, str]]:
    return [(masked.background.name, masked.mask.name) for masked in found if masked.mask]


def test_a_test_bench_with_and_without_a_list(bench: Path) -> None:
    assert [masked.name for masked in bench_backgrounds(bench)] == ["0001", "0002", "0010"]
    write(bench / "id_list.txt", "0010\n0001\n")
    expected = [("0010_img.png", "0010_mask.png"), ("0001_img.png", "0001_mask.png")]
    assert names(bench_backgrounds(bench)) == expected
    assert names(bench_backgrounds(bench, write(bench / "other.txt", "0002\n"))) == [
        ("0002_img.png", "0002_mask.png")
    ]


def test_a_line_begins_with_an_id_whose_zeros_may_be_left_out(bench: Path) -> None:
    expected = [("0001_img.png", "0001_mask.png"), ("0010_img.png", "0010_mask.png")]
    for lines in ("1\n10\n", "0001 cat\n\n0010\tdog 2\n", "\ufeff1, cat\r\n010;dog\r\n"):
        assert names(bench_backgrounds(bench, write(bench / "id_list.txt", lines))) == expected
    write(bench / "image" / "1_img.png", "")
    with pytest.raises(ValueError, match="no image for 01 "):  # 1 or 0001
        bench_backgrounds(bench, write(bench / "id_list.txt", "01\n"))
    with pytest.raises(ValueError, match="line 2 has the ids 0002 and 0010; write one id a line"):
        bench_backgrounds(bench, write(bench / "id_list.txt", "0001\n0002 0010\n"))


def test_hidden_files_and_two_of_one_id(bench: Path) -> None:
    for name in ("._ids.txt", "image/._0001_img.png", "mask/.DS_Store"):
        write(bench / name, "9999\n")
    write(bench / "ids.txt", "0002\n")
    assert [masked.name for masked in bench_backgrounds(bench)] == ["0002"]
    write(bench / "image/0002_img.jpg", "")
    with pytest.raises(ValueError, match=r"0002_img\.jpg and 0002_img\.png go by the same name, '0002'"):
        bench_backgrounds(bench)


def test_several_list_files_ask_which(bench: Path) -> None:
    chosen = write(bench / "test.txt", "0002\n")
    write(bench / "all.txt", "0001\n0002\n")
    with pytest.raises(ValueError, match=r"2 list files, all\.txt, test\.txt; choose one, like --list "):
        bench_backgrounds(bench)
    assert [masked.name for masked in bench_backgrounds(bench, chosen)] == ["0002"]


def test_ids_without_pictures_and_missing_folders_are_named(bench: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no image for 0003, 0004, 0005 \\(4 of 5 ids\\)"):
        bench_backgrounds(bench, write(bench / "a.txt", "0001\n0003\n0004\n0005\n0006\n"))
    (bench / "mask" / "0002_mask.png").unlink()
    with pytest.raises(ValueError, match=r"no mask for 0002 .*add mask/0002_mask\.png"):
        bench_backgrounds(bench, write(bench / "b.txt", "0002\n"))
    with pytest.raises(ValueError, match="lists nothing"):
        bench_backgrounds(bench, write(bench / "c.txt", "\n"))
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        bench_backgrounds(bench, bench / "none.txt")
    with pytest.raises(FileNotFoundError, match="expected a test bench"):
        bench_backgrounds(tmp_path / "image")
