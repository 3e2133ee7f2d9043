"""Nothing local and no secret is published."""

from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_cif_hkd.recipe.share.published import (
    has_credentials,
    publishable,
    publishable_config,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "./asr.sh --lang 'zh a' --asr_args '--model_conf x.teacher=/home/me/b/t'",
            "./asr.sh --lang 'zh a' --asr_args '--model_conf x.teacher=LOCAL_PATH/t'",
        ),
        ("/home/alice", "LOCAL_PATH"),
        ("/root", "LOCAL_PATH"),
        ("~/data/x", "LOCAL_PATH/x"),
        ("['/data/a','/data/b/c']", "['LOCAL_PATH/a','LOCAL_PATH/c']"),
        ("of `/home/me/x/egs3`, `~/y/z`", "of `LOCAL_PATH/egs3`, `LOCAL_PATH/z`"),
        ("C:\\Users\\me\\x.bin", "LOCAL_PATH/x.bin"),
        ("file:///home/me/x/y.z", "LOCAL_PATH/y.z"),
        ("https://u:p@host/x?sig=1#z a/b", "https://host/x a/b"),
        ("git+https://TOKEN@host/x@v1", "git+https://host/x@v1"),
        ("--hf_token abcdef --nj 4", "--hf_token HIDDEN --nj 4"),
        ("HF_TOKEN=abc x", "HF_TOKEN=HIDDEN x"),
        ("password: 'x y'", "password: HIDDEN"),
        ("say hf_abcdefghijklmnop", "say HIDDEN"),
        ("Authorization: Bearer abcdef12345", "Authorization: Bearer HIDDEN"),
        ("-H 'authorization: Basic YTpi'", "-H 'authorization: Basic HIDDEN'"),
        ("Bearer abc.def-123 x", "Bearer HIDDEN x"),
        ('{"api_key": "abc", "n": 1}', '{"api_key": HIDDEN, "n": 1}'),
        ("a 2>/home/me/x.log", "a 2>LOCAL_PATH/x.log"),
        ("cat|/home/me/a/b|", "cat|LOCAL_PATH/b|"),
        ("-d @/home/me/y/z", "-d @LOCAL_PATH/z"),
    ],
)
def test_what_is_removed(text: str, expected: str) -> None:
    assert publishable(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("a / b", "/", "and/or 1/2", "conf/x.yaml", "downloads/bert", "http://a.b/c"),
        *("pkg://dist/folder/model", "user/name", "--token_type bpe", "~", "exp/asr"),
        *("--token_list data/token_list/tokens.txt", "5e-3", "--lang zh --nj 4"),
        *("a vocabulary of 500 tokens and more", "token error rate", "--max_tokens 5"),
        *("10 tokens per second", "WER of tokens: 12.3", "tokens\n\n| a |", "<s></s>"),
        *("a token\nb", "| / | </s> |", "Basic training", "the Bearer of bad news"),
        *("unk_token: <unk>", "pad_token=<pad>", "secretary: Ann", "|/|"),
    ],
)
def test_what_stays(text: str) -> None:
    assert publishable(text) == text


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("git+https://TOKEN12345@github.com/a/b", True),
        ("https://user:secret@host/a", True),
        ("git+ssh://git@github.com/a/b@v1", False),
        ("git+ssh://git:word@github.com/a/b@v1", True),
        ("git+https://github.com/a/b@v1", False),
        ("https://host/a?access_token=12", True),
    ],
)
def test_credentials_of_an_address(url: str, expected: bool) -> None:
    assert has_credentials(url) == expected


def test_secrets_of_a_configuration() -> None:
    config = {
        "teacher_conf": {"api_key": "abcdef12345", "password": "hunter2", "n": 2},
        "auth_token": 123456,
        "unk_token": "<unk>",
        "use_token": True,
        "credentials": {"user": "b", "key": "c"},
        "token": "",
        "none": [],
        "cmd": ["--password", "hunter2", "--nj", "2", "password", "x"],
        "/home/me/x/y": 1,
    }
    assert publishable_config(config) == {
        "teacher_conf": {"api_key": "HIDDEN", "password": "HIDDEN", "n": 2},
        "auth_token": "HIDDEN",
        "unk_token": "<unk>",
        "use_token": True,
        "credentials": "HIDDEN",
        "token": "",
        "none": [],
        "cmd": ["--password", "HIDDEN", "--nj", "2", "password", "x"],
        "LOCAL_PATH/y": 1,
    }


@given(st.lists(st.text(ascii_lowercase, min_size=1, max_size=8), min_size=2))
def test_no_parent_folder_is_left(names: list[str]) -> None:
    cleaned = publishable("--x /" + "/".join(names))
    assert cleaned in ("--x LOCAL_PATH", f"--x LOCAL_PATH/{names[-1]}")


@given(st.text())
def test_twice_is_once(text: str) -> None:
    once = publishable(text)
    assert publishable(once) == once


def test_a_configuration_keeps_its_tokens_and_types() -> None:
    config = {
        "token_list": ["/", "/a/b", "<eos>"],
        "output_dir": "/home/me/exp/asr",
        "conf": {"teacher": "/data/bert/base", "layers": (1, 2.5, None, True)},
    }
    assert publishable_config(config) == {
        "token_list": ["/", "/a/b", "<eos>"],
        "output_dir": "LOCAL_PATH/asr",
        "conf": {"teacher": "LOCAL_PATH/base", "layers": [1, 2.5, None, True]},
    }
