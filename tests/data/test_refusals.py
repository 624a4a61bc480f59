"""Files that cannot be used are refused in one sentence, which says what to do."""

import gzip

import numpy as np
import pandas as pd
import pytest

from widthwise.data import DataError, load


def write(path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "area": rng.normal(100, 20, 60),
            "rooms": rng.integers(1, 7, 60),
            "town": rng.choice(["Ulm", "Bonn"], 60),
            "price": rng.normal(300, 50, 60),
        }
    )
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".npz":
        np.savez(path, area=frame["area"], rooms=frame["rooms"], price=frame["price"])
    else:
        frame.to_csv(path, index=False)


GOOD = "a,b,y\n" + "".join(f"{i},{i * i % 7},{i * 1.5}\n" for i in range(12))
BAD_TEXTS = {
    "empty": ("", {}, "is empty"),
    "header only": ("a,b,y\n", {}, "at least two rows"),
    "one row": ("a,b,y\n1,2,3\n", {}, "at least 2 are needed"),
    "cut off": (GOOD + "5,6", {}, "row 13 of the data.*fetch the file again"),
    "a longer row": (GOOD + "5,6,7,8\n", {}, "4 cells in row 13"),
    "cut off in quotes": (GOOD + '5,6,"7\n', {}, "fetch it again"),
    "names twice": (GOOD.replace("a,b", "a,a"), {}, "rename one"),
    "no names": (GOOD.removeprefix("a,b,y\n").replace("0,0,", "3,9,"), {}, "names of the columns"),
    "wrong target": (GOOD, {"target": "yy"}, "did you mean y"),
    "far target": (GOOD, {"target": "temperature"}, "its columns are 'a', 'b', 'y'"),
    "text in numbers": (GOOD.replace("\n3,", "\nthree,"), {}, "'a' has 'three' in row 4"),
    "text in target": (GOOD.replace(",4.5", ",n.b."), {}, "'y' has 'n.b.' in row 4"),
    "infinite": (GOOD.replace("\n3,", "\ninf,"), {}, "'a' is infinite in row"),
    "infinite target": (GOOD.replace(",4.5", ",inf"), {}, "'y' is infinite in row 4"),
    "constant target": ("a,y\n1,2.5\n2,2.5\n3,2.5\n", {}, "choose another column"),
    "one class": ("a,y\n1,u\n2,u\n3,u\n", {}, "at least 2 classes"),
    "no target values": ("a,y\n1,\n2,?\n", {}, "choose another column"),
    "text for regression": ("a,y\n1,u\n2,v\n", {"task": "regression"}, "leave task out"),
    "names for classes": (
        "a,y\n" + "".join(f"{i},n{i}\n" for i in range(30)), {}, "choose another column"),
    "many levels": (
        "a,t,y\n" + "".join(f"{i},t{i // 2},{i}.5\n" for i in range(300)), {}, "'t' is text with"),
    "only a target": ("y\n1.5\n2.5\n3.5\n", {}, "besides the target"),
    "nothing varies": ("a,y\n1,1.5\n1,2.5\n1,3.5\n", {}, "at least one such column"),
    "unknown task": (GOOD, {"task": "ranking"}, "choose 'classification' or"),
    "too many rows": (GOOD, {"train": 13}, "at most 12"),
    "no rows": (GOOD, {"test": 0}, "positive"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_TEXTS)
def test_bad_tables_are_refused_in_one_sentence(tmp_path, what):
    text, settings, fix = BAD_TEXTS[what]
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=fix) as caught:
        load(path, **settings)
    assert "\n" not in str(caught.value)


ARFF = "@relation r\n@attribute a real\n@attribute c {x,y}\n@data\n1,x\n2,y\n"
BAD_BYTES = {
    "latin.csv": ("a,b\nü,1\n".encode("latin-1"), "save it as UTF-8"),
    "cut.csv.gz": (gzip.compress(GOOD.encode() * 50)[:-20], "pack it again"),
    "no.csv.gz": (b"a,b\n1,2\n", "pack it again"),
    "no.parquet": (b"PAR1 and no more", "write it again"),
    "empty.parquet": (b"", "write it again"),
    "no.npz": (b"PK and no more", "numpy.savez"),
    "empty.npz": (b"", "numpy.savez"),
    "rows.xlsx": (b"PK", "give a file in .csv"),
    "cut.arff": (ARFF[:40].encode(), "fetch it again"),
    "short.arff": ((ARFF + "3\n").encode(), "row 3 of the data"),
    "long.arff": ((ARFF + "3,x,4\n").encode(), "3 cells in row 3"),
    "level.arff": ((ARFF + "3,z\n").encode(), "add the level"),
    "rows.arff": (ARFF[:-8].encode(), "at least two rows"),
    "names.arff": (ARFF.replace("c {", "a {").encode(), "rename one"),
    "none.arff": (b"@relation r\n@data\n1\n", "describe each column"),
    "line.arff": (ARFF.replace("a real", "a").encode(), "a name and a type"),
    "sparse.arff": ((ARFF + "{0 3}\n").encode(), "dense"),
    "text.arff": (ARFF.replace("a real", "a real\n@attribute b real").replace(
        "1,x", "1,one,x").replace("2,y", "\n".join(f"{i},{i},y" for i in range(9))).encode(),
        "'b' has 'one' in row 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_BYTES)
def test_bad_files_are_refused_in_one_sentence(tmp_path, name):
    content, fix = BAD_BYTES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=fix) as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.npz", "rows.csv.gz"])
def test_files_cut_anywhere_are_refused(tmp_path, name):
    write(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        (tmp_path / name).write_bytes(content[: int(len(content) * share)])
        with pytest.raises(DataError, match="cut off|cells in row") as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_odd_parquet_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    pd.DataFrame({"a": [[1, 2], [3]], "y": [1.5, 2]}).to_parquet(path)
    with pytest.raises(DataError, match="one column for each number"):
        load(path)
    pd.DataFrame({"a": [], "y": []}).to_parquet(path)
    with pytest.raises(DataError, match="at least two rows"):
        load(path)


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="No file or folder has the path"):
        load(tmp_path / "none.csv")
    write(tmp_path / "h.csv")
    data = load(tmp_path / "h.csv")
    with pytest.raises(DataError, match="give the path"):
        data.encoder.transform(tmp_path / "none.csv")
    (tmp_path / "new.csv").write_text("area,room,town\n1,2,Ulm\n")
    with pytest.raises(DataError, match="is 'room' meant"):
        data.encoder.transform(tmp_path / "new.csv")
    (tmp_path / "new.csv").write_text("area,rooms,town\n1,two,Ulm\n")
    with pytest.raises(DataError, match="'rooms' has 'two' in row 1"):
        data.encoder.transform(tmp_path / "new.csv")
    (tmp_path / "new.csv").write_text("area,rooms,town\n1,inf,Ulm\n")
    with pytest.raises(DataError, match="'rooms' is infinite in row 1"):
        data.encoder.transform(tmp_path / "new.csv")


@pytest.mark.parametrize(
    "arrays, settings, fix",
    [
        (dict(X=np.ones((3, 2))), {}, "looked for are x_train"),
        (dict(X=np.ones((3, 2)), y=np.ones(2)), {}, "one for each"),
        (dict(X=np.eye(3), y=np.arange(3)), {"target": "z"}, "leave target out"),
        (dict(x_train=np.eye(3), y_train=np.arange(3), x_test=np.eye(3)), {}, "both or neither"),
        (dict(x_train=np.eye(3), y_train=np.arange(3), x_test=np.eye(2), y_test=np.arange(2)),
         {}, "give the same ones"),
        (dict(x_train=np.eye(3), y_train=np.arange(3), x_test=np.eye(3), y_test=np.arange(3)),
         {"train": 4}, "at most these"),
        (dict(X=np.array([[1, "a"], [2, None]], dtype=object), y=np.arange(2)), {}, "objects"),
        (dict(X=np.array([[1, np.inf], [2, 3]]), y=np.array([0.5, 1])), {"test": 1}, "infinite"),
        (dict(a=np.array([]), b=np.array([])), {}, "at least two rows"),
    ],
)  # fmt: skip
def test_odd_npz_is_refused(tmp_path, arrays, settings, fix):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=fix) as caught:
        load(tmp_path / "a.npz", **settings)
    assert "\n" not in str(caught.value)
