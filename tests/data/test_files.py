"""Files of rows: what is read, how it is coded, and the refusals in words."""

import numpy as np
import pandas as pd
import pytest

from widthwise.data import DataError, load

ROWS = 60


def houses(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "area": rng.normal(100, 20, ROWS).round(3),
            "rooms": rng.integers(1, 7, ROWS),
            "town": rng.choice(["Ulm", "Köln", "Bonn, old"], ROWS),
            "garden": rng.choice([True, False], ROWS),
            "price": rng.normal(300, 50, ROWS).round(3),
        }
    )


def write_arff(frame: pd.DataFrame, path) -> None:
    lines = ["% made up", "@RELATION houses", ""]
    for name in frame:
        text = name in ("town", "garden")
        levels = ",".join(repr(str(x)) for x in sorted(set(frame[name]), key=str))
        lines.append(f"@attribute '{name}' {f'{{{levels}}}' if text else 'numeric'}")
    lines.append("@data")
    for row in frame.itertuples(index=False):
        lines.append(", ".join(repr(x) if isinstance(x, str) else str(x) for x in row))
    path.write_text("\n".join(lines), encoding="utf-8")


WRITERS = {
    "houses.csv": lambda f, p: f.to_csv(p, index=False),
    "semicolons.csv": lambda f, p: f.to_csv(p, index=False, sep=";"),
    "numbered.csv": lambda f, p: f.to_csv(p),
    "bom.csv": lambda f, p: f.to_csv(p, index=False, encoding="utf-8-sig"),
    "houses.tsv": lambda f, p: f.to_csv(p, index=False, sep="\t"),
    "houses.csv.gz": lambda f, p: f.to_csv(p, index=False),
    "houses.tsv.gz": lambda f, p: f.to_csv(p, index=False, sep="\t"),
    "houses.parquet": lambda f, p: f.to_parquet(p),
    "columns.npz": lambda f, p: np.savez(
        p, **{c: f[c].to_numpy(dtype=str if c == "town" else None) for c in f}
    ),
    "structured.npz": lambda f, p: np.savez(
        p, rows=f.astype({"town": object}).to_records(index=False).astype(
            [("area", float), ("rooms", int), ("town", "U20"), ("garden", bool), ("price", float)]
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_formats_agree(tmp_path, name):
    frame, path = houses(), tmp_path / name
    WRITERS[name](frame, path)
    data, direct = load(path, target="price"), load(frame, target="price")
    assert data.task == "regression" and data.x_train.shape == (48, 6) and data.name == name
    np.testing.assert_allclose(data.x_train, direct.x_train)
    np.testing.assert_allclose(data.y_test, direct.y_test)
    np.testing.assert_allclose((data.x_train**2).mean(), 1)
    assert any("'town'" in note and "one-hot" in note for note in data.notes)
    assert any("guessed to be regression" in note for note in data.notes)
    # a file of new rows, with the target left out, is coded like the training rows
    new = tmp_path / f"new-{name}"
    WRITERS[name](frame.drop(columns="price").assign(more=1.0).astype({"more": float})
                  if name != "structured.npz" else frame, new)  # fmt: skip
    coded = data.encoder.transform(str(new))
    np.testing.assert_allclose(coded, direct.encoder.transform(frame))
    rows = {tuple(row) for row in coded.round(8).tolist()}
    assert {tuple(row) for row in data.x_test.round(8).tolist()} <= rows


def test_arff(tmp_path):
    frame = houses()
    write_arff(frame, tmp_path / "houses.arff")
    data = load(tmp_path / "houses.arff", target="price")
    assert data.x_train.shape == (48, 2 + 3 + 2)  # a nominal true or false has two levels
    assert load(tmp_path / "houses.arff", target="town").classes == ("Bonn, old", "Köln", "Ulm")
    assert data.encoder.transform(tmp_path / "houses.arff").shape == (ROWS, 7)


def test_numbers_in_nominal_attributes_are_words(tmp_path):
    path = tmp_path / "t.arff"
    rows = "".join(f"{i}.5,{i % 3 + 1}\n" for i in range(12))
    path.write_text(f"@relation t\n@attribute a real\n@attribute c {{1,2,3}}\n@data\n{rows}?,2\n")
    data = load(path)
    assert data.classes == ("1", "2", "3") and len(data.x_train) + len(data.x_test) == 13


def test_last_column_is_the_target_and_a_note_says_so(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,kind\n" + "".join(f"{i},{'xy'[i % 2]}\n" for i in range(10)))
    data = load(path)
    assert data.classes == ("x", "y") and any("last column, 'kind'" in n for n in data.notes)
    assert load(path, target="KIND").classes == ("x", "y")


def test_several_targets(tmp_path):
    houses().to_csv(tmp_path / "h.csv", index=False)
    data = load(tmp_path / "h.csv", target="price, area")
    assert data.n_outputs == 2 and data.x_train.shape[1] == 5
    assert load(tmp_path / "h.csv", target=["price", "area"]).fingerprint() == data.fingerprint()


def test_gaps_are_filled_and_noted(tmp_path):
    frame = houses().astype({"town": object})
    frame.loc[3, "area"] = frame.loc[4, "price"] = np.nan
    frame.loc[5, "town"] = None
    frame.to_csv(tmp_path / "h.csv", index=False)
    data = load(tmp_path / "h.csv", target="price", test=1)
    notes = " ".join(data.notes)
    assert "1 row was dropped" in notes and "'area' were filled with the median" in notes
    assert "Missing text in 'town'" in notes
    assert len(data.x_train) + len(data.x_test) == ROWS - 1
    gap = data.encoder.transform(frame.iloc[[3]])[0]
    middle = data.encoder.transform(frame.iloc[[3]].assign(area=np.nanmedian(frame["area"])))[0]
    assert abs(gap[0] - middle[0]) < 0.1


def test_unseen_levels_are_all_zeros():
    frame = houses()
    encoder = load(frame, target="price").encoder
    coded = encoder.transform(frame.assign(town="Rom"))
    towns = slice(2, 5)
    zeros = -encoder.numbers.shift[towns] / encoder.numbers.scale[towns]
    np.testing.assert_allclose(coded[:, towns], np.tile(zeros, (ROWS, 1)))


def test_new_rows_may_have_gaps_where_old_ones_had_none():
    frame = houses()
    assert np.isfinite(load(frame).encoder.transform(frame.assign(area=np.nan))).all()


def test_dates_are_days(tmp_path):
    days = pd.date_range("2024-01-01", periods=ROWS)
    frame = houses().assign(day=days.strftime("%Y-%m-%d"))
    data = load(frame, target="price")
    assert any("days since 1970" in note for note in data.notes)
    frame.assign(day=days).to_parquet(tmp_path / "d.parquet")
    again = load(tmp_path / "d.parquet", target="price")
    np.testing.assert_allclose(again.x_train, data.x_train)
    with pytest.raises(DataError, match="date is wanted"):
        data.encoder.transform(frame.assign(day="soon"))


def test_constant_and_naming_columns_are_left_out():
    frame = houses().assign(unit="m", name=[f"house {i}" for i in range(ROWS)], zero=0.0)
    data = load(frame, target="price")
    assert data.x_train.shape[1] == 6
    notes = " ".join(data.notes)
    assert "'unit=m', 'zero' were left out" in notes and "'name' was left out" in notes


@pytest.mark.parametrize(
    "values, task",
    [
        (["a", "b"] * 10, "classification"),
        ([True, False] * 10, "classification"),
        (["true", "false"] * 2, "classification"),
        ([0, 1, 2, 1] * 5, "classification"),
        ([0.0, 1.0, 2.0, 1.0] * 5, "classification"),
        (list(range(20)), "regression"),
        (list(range(21)) * 5, "regression"),
        ([0.5, 1.5] * 10, "regression"),
    ],
)
def test_task_is_guessed_from_the_target(values, task):
    frame = pd.DataFrame({"x": np.arange(len(values)), "y": values})
    data = load(frame)
    assert data.task == task and any(f"guessed to be {task}" in n for n in data.notes)


def test_task_can_be_forced():
    frame = pd.DataFrame({"x": np.arange(30.0), "y": [0, 1, 2] * 10})
    assert load(frame, task="regression").classes == ()
    fractions = frame.assign(y=[0.5, 1.5, 10] * 10)
    assert load(fractions, task="classification").classes == ("0.5", "1.5", "10")


def test_npz_arrays(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.integers(0, 3, 40)
    np.savez(tmp_path / "a.npz", X=x, y=y)
    data = load(tmp_path / "a.npz")
    assert data.task == "classification" and data.x_train.shape == (32, 3)
    assert data.encoder.transform(tmp_path / "a.npz").shape == (40, 3)
    x[2, 1] = np.nan
    np.savez(tmp_path / "b.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9].astype(float))
    data = load(tmp_path / "b.npz")
    assert data.x_train.shape == (40, 3) and data.x_test.shape == (9, 3)
    assert any("median" in note for note in data.notes)
    assert len(load(tmp_path / "b.npz", train=10, test=4).x_test) == 4
