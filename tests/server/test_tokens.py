"""Tokens: who is let in, who is not, and what happens when the file changes."""

import hashlib
import logging
import os

import pytest

from assetgen.errors import ConfigInvalid, TokenInvalid
from assetgen.server import tokens
from assetgen.server.tokens import TokenTable

ANNA, BEN = "anna-0123456789abcdefgh", "ben-0123456789abcdefghi"


def write(path, text):
    path.write_text(text)
    path.chmod(0o600)
    return path


def hashed(token):
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "LOOK_AGAIN_S", 0.0)
    ben = f'[tokens.ben]\nsha256 = "{hashed(BEN)}"\nmpx_per_minute = 1.5\n'
    return TokenTable(write(tmp_path / "tokens.toml", f'[tokens.anna]\ntoken = "{ANNA}"\nmax_calls = 2\n{ben}'))


def test_plain_and_hashed_tokens_name_their_caller(table):
    anna, ben = table.caller(f"Bearer {ANNA}"), table.caller(f"bearer {BEN}")
    assert (anna.name, anna.max_calls, anna.mpx_per_minute) == ("anna", 2, 0.0)
    assert (ben.name, ben.max_calls, ben.mpx_per_minute) == ("ben", 0, 1.5)


@pytest.mark.parametrize(
    "given",
    [
        *(None, "", "Bearer", "Bearer ", "Bearer \udcff", ANNA),
        *(f"Basic {ANNA}", f"Bearer {ANNA}x", f"Bearer {ANNA[:-1]}", f"Bearer {hashed(BEN)}"),
    ],
)
def test_nobody_else_is_let_in(table, given):
    with pytest.raises(TokenInvalid) as caught:
        table.caller(given)
    assert ANNA not in caught.value.message


def test_a_changed_file_counts_at_once_and_a_wrong_one_changes_nothing(table, tmp_path, caplog):
    path = tmp_path / "tokens.toml"
    write(path, f'[tokens.ben]\nsha256 = "{hashed(BEN)}"\n')
    assert table.caller(f"Bearer {BEN}").mpx_per_minute == 0
    with pytest.raises(TokenInvalid):
        table.caller(f"Bearer {ANNA}")
    write(path, "[tokens.ben\n")
    with caplog.at_level(logging.ERROR):
        assert table.caller(f"Bearer {BEN}").name == "ben"
    assert "stay valid" in caplog.text
    path.unlink()
    assert table.caller(f"Bearer {BEN}").name == "ben"


WRONG = {
    "no TOML": "[tokens",
    "nothing": "",
    "no tokens": "[other.a]\n",
    "something else": f'[tokens.a]\ntoken = "{ANNA}"\n[more]\n',
    "neither": "[tokens.a]\n",
    "both": f'[tokens.a]\ntoken = "{ANNA}"\nsha256 = "{hashed(BEN)}"\n',
    "short": '[tokens.a]\ntoken = "short"\n',
    "no hash": '[tokens.a]\nsha256 = "12"\n',
    "an unknown key": f'[tokens.a]\ntoken = "{ANNA}"\nadmin = true\n',
    "a name with a line break": f'[tokens."a\\n"]\ntoken = "{ANNA}"\n',
    "a limit of nothing": f'[tokens.a]\ntoken = "{ANNA}"\nmax_calls = 0\n',
    "a limit below nothing": f'[tokens.a]\ntoken = "{ANNA}"\nmpx_per_minute = -1\n',
    "a limit that is none": f'[tokens.a]\ntoken = "{ANNA}"\nmpx_per_minute = inf\n',
    "the same token twice": f'[tokens.a]\ntoken = "{ANNA}"\n[tokens.b]\nsha256 = "{hashed(ANNA)}"\n',
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_refused_without_telling_tokens(tmp_path, text):
    with pytest.raises(ConfigInvalid, match=r"tokens\.toml") as caught:
        TokenTable(write(tmp_path / "tokens.toml", text))
    assert ANNA not in caught.value.message


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        TokenTable(tmp_path / "absent.toml")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_plain_tokens_that_everybody_may_read_are_refused(tmp_path):
    path = write(tmp_path / "tokens.toml", f'[tokens.a]\ntoken = "{ANNA}"\n')
    path.chmod(0o644)
    with pytest.raises(ConfigInvalid, match="everybody may read it"):
        TokenTable(path)
    write(path, f'[tokens.a]\nsha256 = "{hashed(ANNA)}"\n').chmod(0o644)
    assert TokenTable(path).caller(f"Bearer {ANNA}").name == "a"
