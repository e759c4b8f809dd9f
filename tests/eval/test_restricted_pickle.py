"""Pickles and .npy files of data sets: plain data comes through, nothing that a pickle names is ever called."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.npy_files import read_npy, write_npy
from mmi_eval.formats.plain_pickle import dump_pickle
from mmi_eval.formats.restricted_pickle import load_pickle, parse_pickle

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5)
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


def objects(*values: object) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = list(values)
    return array


def box(value: object) -> np.ndarray:
    array = np.empty((), object)
    array[()] = value
    return array


ARRAYS = {
    "integers": np.arange(6, dtype=np.int64).reshape(2, 3),
    "big-endian": np.arange(3, dtype=">i4"),
    "fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "booleans": np.array([True, False]),
    "bytes": np.array([b"a/1.png", b"b.png"]),
    "texts": np.array([["ä", "bc"]]),
    "nothing": np.zeros((0, 3), np.float32),
    "a number": np.array(3),
    "arrays in an array": objects(np.arange(2), np.arange(3)),
    "a dictionary in an array": box({"a/1": ["one", "two"]}),
}


def assert_same(read: object, written: object) -> None:
    if isinstance(written, np.ndarray):
        assert isinstance(read, np.ndarray)
        assert read.shape == written.shape
        assert read.dtype.kind == written.dtype.kind
        for a, b in zip(read.ravel().tolist(), written.ravel().tolist(), strict=True):
            assert_same(a, b)
    else:
        assert type(read) is type(written)
        assert read == written


@settings(deadline=None, max_examples=60)
@given(trees, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_is_read_from_every_protocol(value, protocol):
    assert parse_pickle(pickle.dumps(value, protocol), "here") == value


@settings(deadline=None, max_examples=60)
@given(trees)
def test_written_pickles_are_read_back_by_this_reader_and_by_python(value):
    data = dump_pickle(value)
    assert parse_pickle(data, "here") == value == pickle.loads(data)


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays_come_through_every_protocol(array):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert_same(parse_pickle(pickle.dumps([array], protocol), "here")[0], array)
    assert_same(parse_pickle(dump_pickle(array), "here"), array)
    assert_same(pickle.loads(dump_pickle(array)), array)


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_npy_files_are_exchanged_with_numpy(tmp_path, array):
    np.save(tmp_path / "theirs.npy", array)
    write_npy(tmp_path / "ours.npy", array)
    assert_same(read_npy(tmp_path / "theirs.npy", "an array"), array)
    assert_same(read_npy(tmp_path / "ours.npy", "an array"), array)
    assert_same(np.load(tmp_path / "ours.npy", allow_pickle=True), array)


def test_numbers_of_numpy_become_plain_numbers():
    read = parse_pickle(pickle.dumps([np.int64(3), np.float32(0.5), np.str_("x")]), "here")
    assert read == [3, 0.5, "x"]
    assert [type(value) for value in read] == [int, float, str]


def test_python_2_texts_are_read_as_latin_1():
    # {'sent': 'caf\xe9', 'ids': [1L]} and a protocol 2 array, as Python 2 wrote them
    assert parse_pickle(b"(dp0\nS'sent'\np1\nS'caf\\xe9'\np2\nsS'ids'\np3\n(lp4\nL1L\nas.", "here") == {
        "sent": "café",
        "ids": [1],
    }
    array = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85"
        b"cnumpy\ndtype\nU\x02i2K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U\x04\x07\x00\xe9\x00tb."
    )
    assert parse_pickle(array, "here").tolist() == [7, 0xE9]


def test_the_bytes_do_not_depend_on_which_texts_are_one_object():
    text = "a b"
    assert dump_pickle([text, text]) == dump_pickle([text, " ".join(["a", "b"])])
    with pytest.raises(TypeError, match="cannot hold object"):
        dump_pickle([object()])


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def malicious(victim: Path) -> dict[str, tuple[bytes, str]]:
    touch = str(victim).encode()
    evil = Calls(os.system, f"touch {victim}")
    known = b"\x80\x03cnumpy\ndtype\n"
    named = "could run code"
    return {
        **{f"call, protocol {p}": (pickle.dumps([evil], p), named) for p in range(6)},
        "eval": (pickle.dumps(Calls(eval, f"open({str(victim)!r}, 'w')")), named),
        "built-in open": (b"c__builtin__\nopen\n(X" + struct.pack("<I", len(touch)) + touch + b"U\x01wtR.", named),
        "old class": (b"(S'touch " + touch + b"'\nios\nsystem\n.", named),
        "new class": (b"\x80\x02csubprocess\nPopen\n(X\x05\x00\x00\x00touch\x85t\x81.", named),
        "dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x09os.system\x93(t" + b"R.", named),
        "numpy function": (pickle.dumps(Calls(np.save, str(victim), 1)), named),
        "in an array": (pickle.dumps(objects(1, evil)), named),
        "in the state of an array": (
            pickle.dumps(ARRAYS["integers"], 2).replace(b"K\x01K\x02", b"cos\nsystem\nK\x02"),
            named,
        ),
        "object outside": (b"Pname\n.", "outside of it"),
        "extension": (b"\x80\x02\x82\x01.", "no pickle or a damaged one"),
        "attributes of a name": (known + b"N}X\x01\x00\x00\x00aK\x01s\x86b.", "changes a function"),
        "name as data": (known + b".", "which is no data"),
        "unknown encoding": (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R.", "unknown way"),
        "element type": (known + b"X\x02\x00\x00\x00V8\x85R.", "elements of type"),
        "path": (pickle.dumps(Path(victim)), named),
        "itself": (b"\x80\x02]q\x00h\x00a.", "nested more than"),
        "unfolds": (
            b"\x80\x02]q\x000" + b"".join(b"](" + b"h%c" % i * 9 + b"eq%c0" % (i + 1) for i in range(20)) + b"h\x14.",
            "far more than its size",
        ),
        "huge number": (pickle.dumps(10**40), "more than 64 bits"),
        "short array": (
            pickle.dumps(ARRAYS["bytes"], 3).replace(b"K\x02\x85", b"K\x09\x85"),
            "holds something else than",
        ),
        "cut": (pickle.dumps(["text" * 9])[:-9], "damaged one"),
        "text": (b"not a pickle", "damaged one"),
        "empty": (b"", "damaged one"),
    }


@pytest.mark.parametrize("name", malicious(Path("victim")))
def test_a_malicious_pickle_runs_nothing_and_is_one_sentence(tmp_path, name):
    victim = tmp_path / "victim"
    data, said = malicious(victim)[name]
    (tmp_path / "refs.p").write_bytes(data)
    with pytest.raises(FormatError) as error:
        load_pickle(tmp_path / "refs.p", "references")
    assert not victim.exists()
    assert "refs.p" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_dangerous_samples_are_dangerous(tmp_path):
    victim = tmp_path / "victim"
    pickle.loads(malicious(victim)["call, protocol 2"][0])
    assert victim.exists()


def test_no_pickle_changes_what_the_next_one_meets():
    with pytest.raises(FormatError):
        parse_pickle(malicious(Path("victim"))["attributes of a name"][0], "here")
    assert_same(parse_pickle(pickle.dumps(ARRAYS["integers"]), "here"), ARRAYS["integers"])


def npy(header: str, content: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + content


BAD_NPY = {
    "no array": (b"PK\x03\x04 something else", "no .npy file"),
    "empty": (b"", "no .npy file"),
    "header is code": (npy("{'descr': __import__('os')}"), "header that cannot be read"),
    "header is cut": (npy("{'descr': '<i4'"), "header that cannot be read"),
    "header of another": (npy("{'descr': '<i4', 'shape': (1,)}"), "header that cannot be read"),
    "fields": (npy("{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (1,)}"), "expected numbers"),
    "dates": (npy("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,)}"), "expected numbers"),
    "negative": (npy("{'descr': '<i4', 'fortran_order': False, 'shape': (-1,)}"), "expected numbers"),
    "too short": (npy("{'descr': '<i4', 'fortran_order': False, 'shape': (3,)}", b"1234"), "announces 12"),
    "another pickle": (
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (3,)}", pickle.dumps([1])),
        "something else",
    ),
}


@pytest.mark.parametrize(("data", "said"), BAD_NPY.values(), ids=BAD_NPY.keys())
def test_a_damaged_array_file_is_one_sentence(tmp_path, data, said):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(FormatError) as error:
        read_npy(tmp_path / "a.npy", "an array")
    assert "a.npy" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_malicious_array_file_runs_nothing(tmp_path):
    victim = tmp_path / "victim"
    np.save(tmp_path / "a.npy", objects(1, Calls(os.system, f"touch {victim}")))
    with pytest.raises(FormatError, match="could run code"):
        read_npy(tmp_path / "a.npy", "an array")
    assert not victim.exists()
    with pytest.raises(FileNotFoundError, match="expected an array"):
        read_npy(tmp_path / "b.npy", "an array")
