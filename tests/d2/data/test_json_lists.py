"""A JSON file read in pieces equals the same file read whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swinv2_backbone.d2.data.storage import json_lists
from swinv2_backbone.d2.data.storage.json_lists import JsonLists, NotJsonError

TEXTS = st.text(alphabet='ab"\\[]{},:\n é', max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**6) | st.floats(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


@pytest.fixture(params=[(1 << 22, 1 << 20), (7, 5), (1, 1)], ids=["large", "small", "single"])
def pieces(request, monkeypatch):
    monkeypatch.setattr(json_lists, "BLOCK", request.param[0])
    monkeypatch.setattr(json_lists, "PIECE", request.param[1])


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_any_object_is_read_as_json_reads_it(tmp_path, indent, ascii_only):
    @settings(max_examples=25, deadline=None)
    @given(st.dictionaries(TEXTS, VALUES, max_size=4))
    def check(content):
        path = tmp_path / "file.json"
        path.write_text(json.dumps(content, indent=indent, ensure_ascii=ascii_only), "utf-8")
        found = JsonLists(path)
        lists = {key: value for key, value in content.items() if isinstance(value, list)}
        assert found.values == {key: content[key] for key in content.keys() - lists.keys()}
        assert {key: found[key] for key in lists} == lists
        assert all(key in found for key in lists)

    check()


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"a": [1, 2}',
        '{"a": [1, 2,]}',
        '{"a": [{"b": 1},, {"b": 2}]}',
        '{"a": [{"b": 1}, ]}',
        '{"a": [{"b": 1} {"b": 2}]}',
        '{"a": [, {"b": 1}]}',
        '{"a": [{"b": 01}]}',
        '{"a": ["b]}',
        '{"a": [1]} x',
        '{"a": [1]]}',
        "{'a': [1]}",
    ],
)
def test_a_damaged_file_is_refused_as_json_refuses_it(tmp_path, text):
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(ValueError) as expected:
        json.loads(text)
    with pytest.raises(ValueError) as found:
        JsonLists(path)["a"]
    assert str(found.value) == str(expected.value)


def test_another_encoding_is_named(tmp_path):
    path = tmp_path / "file.json"
    path.write_text('{"a": [{"b": "\u00e9"}]}', "utf-16")
    with pytest.raises(NotJsonError, match="it is not UTF-8 text, save it as that"):
        JsonLists(path)["a"]


def test_what_python_writes_beyond_json_is_read(tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": [{"b": Infinity}], "c": 1, "c": [2]}')
    found = JsonLists(path)
    assert found["a"] == [{"b": float("inf")}] and found["c"] == [2]


def test_a_long_list_comes_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lists, "PIECE", 1000)
    entries = [{"id": number, "text": "}],{["} for number in range(1000)]
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"info": {"a": {"b": []}}, "a": entries, "z": 0}))
    found = list(JsonLists(path).pieces("a"))
    assert len(found) > 20 and max(map(len, found)) < 60
    assert [entry for piece in found for entry in piece] == entries


def test_a_root_that_is_no_object_has_no_lists(tmp_path):
    path = tmp_path / "file.json"
    path.write_text('[["a"], 3]')
    found = JsonLists(path)
    assert not found.values and "a" not in found
