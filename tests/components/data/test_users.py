from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from components.data.readers import InputConfig
from components.data.users import UserTable, open_users, read_users
from components.errors import DataError

USERS = pl.DataFrame({"user": [1, 2, 3], "user_id": ["b", "7", "c"]}, schema_overrides={"user": pl.Int32})


def config(users: str | None = "users.csv", **changes: object) -> InputConfig:
    return InputConfig.model_validate({"interactions": "x.csv", "users": users, **changes})


def read(folder: Path, config: InputConfig, users: pl.DataFrame = USERS) -> UserTable:
    file = open_users(str(folder), config)
    assert file is not None
    return read_users(file, users)


def test_users_come_in_the_order_asked_for_and_gaps_are_counted(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": ["c", "a", "b", "c"], "age": [30, 20, 40, 31]}).write_csv(tmp_path / "users.csv")
    table = read(tmp_path, config())
    assert table.frame.columns == ["user", "user_id", "age"]
    assert table.frame.rows() == [(1, "b", "40"), (2, "7", None), (3, "c", "30")]
    assert table.counts == {
        "rows_in_user_file": 4,
        "repeated_rows_in_user_file": 1,
        "users_missing_from_user_file": 1,
    }


def test_ids_may_be_numbers_and_have_another_name(tmp_path: Path) -> None:
    own = {"uid": [7.0, None, 9.0], "city": [["Bern", "Rome"], [], []], "user": ["x", "y", "z"], "user_id": [1, 2, 3]}
    pl.DataFrame(own).write_parquet(tmp_path / "users.parquet")
    table = read(tmp_path, config("users.parquet", user_columns={"user_id": "uid"}))
    assert table.frame.columns == ["user", "user_id", "city"]  # columns of the prepared set are not overwritten
    assert table.frame["city"].to_list() == [None, ["Bern", "Rome"], None]


def test_several_files_are_one_table(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    for name, row in (("1", ("b", "x")), ("2", ("c", "y"))):
        pl.DataFrame([row], schema=["user_id", "city"], orient="row").write_csv(tmp_path / "users" / f"{name}.csv")
    assert read(tmp_path, config("users")).frame["city"].to_list() == ["x", None, "y"]


@pytest.mark.parametrize(
    ("preset", "name", "text"),
    [
        ("movielens-1m", "users.dat", "b::F::1::10::48067\n7::M::56::16::70072\n"),
        ("recbole", "shop.user", "user_id:token\tage:token\tgender:token\nb\t1\tF\n7\t56\tM\n"),
    ],
)
def test_public_data_sets_bring_their_users(tmp_path: Path, preset: str, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    frame = read(tmp_path, config(name, preset=preset)).frame
    assert frame["gender"].to_list() == ["F", "M", None]
    assert [str(age) for age in frame["age"].to_list()] == ["1", "56", "None"]


def test_no_user_file() -> None:
    assert open_users(".", config(None)) is None


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"input\.users: .*users\.csv does not exist"):
        open_users(str(tmp_path), config())


def test_an_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "users.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"users\.parquet"):
        open_users(str(tmp_path), config("users.parquet"))


def test_a_wrong_id_column(tmp_path: Path) -> None:
    pl.DataFrame({"userid": ["b"], "age": [1]}).write_csv(tmp_path / "users.csv")
    message = r"no column 'user_id' for input\.user_columns\.user_id; it has: userid, age; did you mean 'userid'"
    with pytest.raises(DataError, match=message):
        open_users(str(tmp_path), config())


def test_users_of_another_log(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": ["z"], "age": [1]}).write_csv(tmp_path / "users.csv")
    message = r"column 'user_id' holds none of the log's user ids \(such as 'b', '7', 'c'\); map input\.user_columns"
    with pytest.raises(DataError, match=message):
        read(tmp_path, config())


def test_only_the_id_can_be_mapped() -> None:
    with pytest.raises(ValidationError, match="unknown column 'age'; known: user_id"):
        config(user_columns={"age": "years"})
