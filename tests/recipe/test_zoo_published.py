"""Nothing local and no secret is published."""

from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_cif_hkd.recipe.share.published import publishable, publishable_config


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
    ],
)
def test_what_stays(text: str) -> None:
    assert publishable(text) == text


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
