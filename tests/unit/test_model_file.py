import contextlib
import hashlib
import json
import os
import time

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from weedseg.edge import onnx_wire
from weedseg.edge.model_file import read_model_file
from weedseg.edge.onnx_wire import inspect_onnx
from weedseg.edge.segmenter import Segmenter
from weedseg.errors import ModelFileError


def external(name="w"):
    tensor = TensorProto(name=name, dims=[1], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def constant(tensor, output="c"):
    return helper.make_node("Constant", [], [output], value=tensor)


def small_graph(nodes=(), initializers=()):
    output = helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])
    return helper.make_graph(list(nodes), "g", [], [output], list(initializers))


FINE = constant(numpy_helper.from_array(np.zeros(1, np.float32)))
BODY = small_graph([constant(external())])
BRANCH = helper.make_node("If", ["b"], ["c"], then_branch=small_graph([FINE]), else_branch=BODY)


def model_of(nodes=(FINE,), initializers=()):
    return helper.make_model(small_graph(nodes, initializers))


def in_default_of_a_function():
    model = model_of()
    function = model.functions.add(name="F", domain="own")
    function.attribute_proto.append(helper.make_attribute("a", external()))
    return model


def in_a_function():
    opset = helper.make_opsetid("", 18)
    function = helper.make_function("own", "F", [], ["c"], [constant(external())], [opset])
    return helper.make_model(small_graph([FINE]), functions=[function])


def in_a_sparse_initializer():
    model = model_of()
    model.graph.sparse_initializer.add().values.CopyFrom(external())
    return model


def in_a_list_of_tensors():
    node = helper.make_node("Other", [], ["c"])
    node.attribute.append(helper.make_attribute("many", [external()]))
    return model_of([node])


def in_a_sparse_attribute():
    node = helper.make_node("Constant", [], ["c"])
    attribute = node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR)
    attribute.sparse_tensor.indices.CopyFrom(external())
    return model_of([node])


def in_a_training_graph():
    model = model_of()
    model.training_info.add().algorithm.initializer.append(external())
    return model


def entry_without_location():
    tensor = TensorProto(name="w")
    tensor.external_data.add(key="location", value="x")
    return model_of(initializers=[tensor])


def in_a_branch_of_a_branch():
    graph = small_graph([BRANCH])
    return model_of(
        [helper.make_node("If", ["b"], ["c"], then_branch=graph, else_branch=small_graph([FINE]))]
    )


HIDING_PLACES = {
    "initializer": lambda: model_of(initializers=[external()]),
    "constant": lambda: helper.make_model(BODY),
    "branch": lambda: model_of([BRANCH]),
    "branch of a branch": in_a_branch_of_a_branch,
    "initializer of a branch": lambda: model_of(
        [helper.make_node("Loop", [], ["c"], body=small_graph([FINE], [external()]))]
    ),
    "function": in_a_function,
    "default of a function": in_default_of_a_function,
    "sparse initializer": in_a_sparse_initializer,
    "list of tensors": in_a_list_of_tensors,
    "sparse attribute": in_a_sparse_attribute,
    "training graph": in_a_training_graph,
    "entry without location": entry_without_location,
    "location without entry": lambda: model_of(
        initializers=[TensorProto(name="w", data_location=TensorProto.EXTERNAL)]
    ),
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_external_data_are_refused_wherever_they_hide(place):
    with pytest.raises(ModelFileError, match="external data"):
        read_model_file(HIDING_PLACES[place]().SerializeToString())


@pytest.mark.parametrize("domain", ["com.microsoft", "evil", "ai.onnx.ml"])
@pytest.mark.parametrize("place", ["node", "opset", "branch", "function"])
def test_other_domains_are_refused(colour_model, domain, place):
    model = onnx.load_from_string(colour_model)
    if place == "node":
        model.graph.node[0].domain = domain
    elif place == "opset":
        model.opset_import.add(domain=domain, version=1)
    elif place == "function":
        model.functions.add(name="F", domain=domain)
    else:
        inner = helper.make_node("Odd", [], ["c"], domain=domain)
        model.graph.node.append(
            helper.make_node("If", ["b"], ["z"], then_branch=small_graph([inner]))
        )
    with pytest.raises(ModelFileError, match=f"custom operators of domain '{domain}'"):
        read_model_file(model.SerializeToString())


def test_field_numbers_are_those_of_onnx():
    for message, children in onnx_wire.MESSAGES.items():
        fields = {f.number: f for f in getattr(onnx, message).DESCRIPTOR.fields}
        for number, child in children.items():
            assert fields[number].message_type.name == child
        # Nothing that can hold a tensor, graph or operator is left out.
        holders = {
            n
            for n, f in fields.items()
            if f.message_type and f.message_type.name in onnx_wire.MESSAGES
        }
        passed_over = {
            n
            for n in holders - set(children)
            if fields[n].message_type.name == "StringStringEntryProto"
        }
        assert holders - passed_over == set(children)
    assert onnx.NodeProto.DESCRIPTOR.fields_by_name["domain"].number == 7
    assert onnx.OperatorSetIdProto.DESCRIPTOR.fields_by_name["domain"].number == 1
    assert onnx.FunctionProto.DESCRIPTOR.fields_by_name["domain"].number == 10
    assert onnx.TensorProto.DESCRIPTOR.fields_by_name["external_data"].number == 13
    assert onnx.TensorProto.DESCRIPTOR.fields_by_name["data_location"].number == 14


def test_metadata_come_back(colour_model, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(colour_model)
    for model in (path, str(path), colour_model):
        file = read_model_file(model)
        assert file.sha256 == hashlib.sha256(colour_model).hexdigest()
        assert file.metadata.classes.names == ("background", "crop", "weed")
        assert (file.metadata.tile_px, file.metadata.overlap_px, file.metadata.scale) == (64, 16, 1)
        assert file.metadata.temperature == 1
        assert file.metadata.mm_per_px is None


@pytest.fixture
def with_metadata(colour_model):
    def change(edit):
        model = onnx.load_from_string(colour_model)
        entries = {p.key: p.value for p in model.metadata_props}
        del entries[onnx_wire.CHECKSUM_KEY]
        edit(entries)
        del model.metadata_props[:]
        helper.set_model_props(model, entries)
        found = onnx_wire.inspect_onnx(model.SerializeToString(), "model").content_sha256
        model.metadata_props.add(key=onnx_wire.CHECKSUM_KEY, value=f'"{found}"')
        return model.SerializeToString()

    return change


def changed(**values):
    def edit(entries):
        decoded = json.loads(entries["weedseg"]) | values
        entries["weedseg"] = json.dumps({k: v for k, v in decoded.items() if v is not None})

    return edit


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda e: e.pop("weedseg"), "not a weedseg model"),
        (lambda e: e.update(weedseg="{"), "no JSON"),
        (lambda e: e.update(weedseg="[1]"), "'weedseg' is"),
        (lambda e: e.update(weedseg="[" * 100_000), "no JSON"),
        (lambda e: e.update(weedseg="9" * 10_000), "weedseg"),
        (lambda e: e.pop("imgsz"), "'imgsz' is missing"),
        (lambda e: e.update(imgsz="[64, 32]"), "imgsz"),
        (lambda e: e.update(imgsz="[1e9, 1e9]"), "imgsz"),
        (lambda e: e.update(imgsz="[100000, 100000]"), "imgsz"),
        (changed(schema=2), "schema version 2; expected version 1; update weedseg"),
        (changed(schema="1"), "schema"),
        (changed(schema=None), "schema"),
        (changed(classes=[]), "0 classes"),
        (
            changed(
                classes=[{"name": "a\ud800", "role": "background"}, {"name": "b", "role": "weed"}]
            ),
            "classes",
        ),
        (changed(resize={"kind": "stretch"}), "resize"),
        (changed(resize={"kind": "scale", "scale": 1e9}), "scale"),
        (changed(resize={"kind": "scale", "scale": float("nan")}), "no JSON"),
        (changed(overlap_px=33), "overlap_px"),
        (changed(temperature=0), "temperature"),
        (changed(temperature=True), "temperature"),
        (changed(mm_per_px=[1]), "mm_per_px"),
    ],
)
def test_odd_metadata_are_refused(with_metadata, edit, sentence):
    with pytest.raises(ModelFileError, match=sentence):
        read_model_file(with_metadata(edit))


def test_a_newer_minor_schema_and_unknown_keys_are_fine(with_metadata):
    file = read_model_file(with_metadata(changed(schema=1.3, novelty={"a": 1}, mm_per_px=[0.5, 2])))
    assert file.metadata.mm_per_px == (0.5, 2.0)
    assert file.metadata.properties["novelty"] == {"a": 1}


def test_metadata_twice_are_refused(colour_model):
    model = onnx.load_from_string(colour_model)
    model.metadata_props.add(key="weedseg", value="{}")
    with pytest.raises(ModelFileError, match="twice"):
        read_model_file(model.SerializeToString())


def test_files_that_are_none(tmp_path):
    for path in (tmp_path / "missing.onnx", tmp_path, tmp_path / "nul\0byte"):
        with pytest.raises(ModelFileError):
            read_model_file(path)
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ModelFileError, match="not a file"):
        read_model_file(tmp_path / "pipe.onnx")


def test_oversize_is_refused(colour_model, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(colour_model)
    for model in (path, colour_model):
        assert read_model_file(model, max_bytes=len(colour_model))
        with pytest.raises(ModelFileError, match="at most"):
            read_model_file(model, max_bytes=len(colour_model) - 1)
    with path.open("r+b") as file:
        file.truncate(600 << 20)  # a hole, no disk space
    with pytest.raises(ModelFileError, match="at most"):
        read_model_file(path)


@pytest.mark.parametrize("form", ["{} *model.onnx", "{}  model.onnx", "{}  ./model.onnx"])
def test_checksums_are_kept(colour_model, tmp_path, form):
    path, good = tmp_path / "model.onnx", hashlib.sha256(colour_model).hexdigest()
    path.write_bytes(colour_model)
    sums = tmp_path / "SHA256SUMS"
    sums.write_text("0" * 64 + "  other.onnx\n" + form.format(good.upper()) + "\n")
    assert read_model_file(path).sha256 == good
    assert read_model_file(path, sha256=good)
    with pytest.raises(ModelFileError, match="differs from the caller"):
        read_model_file(path, sha256="1" * 64)
    sums.write_text(form.format("0" * 64) + "\n")
    with pytest.raises(ModelFileError, match="differs from SHA256SUMS"):
        read_model_file(path)
    sums.write_text(form.format("damaged") + "\n")
    with pytest.raises(ModelFileError, match="no sha256"):
        read_model_file(path)
    sums.write_bytes(b"\xff\xfe")
    with pytest.raises(ModelFileError, match="no sha256"):
        read_model_file(path)


def test_sidecar_is_kept(colour_model, tmp_path):
    path, side = tmp_path / "model.onnx", tmp_path / "model.onnx.sha256"
    path.write_bytes(colour_model)
    side.write_text(hashlib.sha256(colour_model).hexdigest() + "  model.onnx\n")
    assert read_model_file(path)
    side.write_text("0" * 64)
    with pytest.raises(ModelFileError, match=r"differs from model\.onnx\.sha256"):
        read_model_file(path)
    side.write_text("")
    with pytest.raises(ModelFileError, match="no sha256"):
        read_model_file(path)


def test_one_flipped_byte_is_noticed_with_a_checksum(colour_model, tmp_path):
    path = tmp_path / "model.onnx"
    (tmp_path / "SHA256SUMS").write_text(
        hashlib.sha256(colour_model).hexdigest() + "  model.onnx\n"
    )
    damaged = bytearray(colour_model)
    damaged[len(damaged) // 3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ModelFileError, match="differs"):
        Segmenter(path)


def test_every_truncation_is_refused(colour_model):
    for length in range(0, len(colour_model), 3):
        with pytest.raises(ModelFileError):
            read_model_file(colour_model[:length])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_files_give_only_model_file_errors(colour_model, data):
    damaged = bytearray(colour_model)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        kind = data.draw(st.sampled_from(["set", "insert", "delete"]))
        if kind == "set":
            damaged[at] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            damaged[at:at] = data.draw(st.binary(max_size=12))
        else:
            del damaged[at : at + data.draw(st.integers(1, 40))]
    with contextlib.suppress(ModelFileError):
        read_model_file(bytes(damaged))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_give_only_model_file_errors(data):
    with pytest.raises(ModelFileError):
        read_model_file(data)


def test_hostile_files_cost_little():
    def varint(value):
        parts = bytearray()
        while value >= 0x80:
            parts.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes(parts) + bytes([value])

    def field(number, content):
        return varint(number << 3 | 2) + varint(len(content)) + content

    deep = b""
    for _ in range(200):
        deep = (
            field(7, field(1, field(5, field(6, deep))))
            if not deep
            else field(1, field(5, field(6, deep)))
        )
    hostile = [
        field(7, deep),
        b"\x3a" + varint((1 << 64) - 1),  # a graph of 2**64 bytes
        b"\x3a" + b"\xff" * 11,
        b"\x3b\x3c",  # groups
        b"\x00\x00",
        b"\x08\x01" * 2_000_000,
        field(7, b"\x0a\x00" * 2_000_000),
        field(7, b"".join(field(1, field(7, str(i).encode())) for i in range(5000))),
        b"".join(
            field(14, field(1, str(i).encode()) + field(2, b"x" * 1000)) for i in range(20_000)
        ),
    ]
    start = time.perf_counter()
    for data in hostile:
        with pytest.raises(ModelFileError):
            inspect_onnx(data, "hostile")
    assert time.perf_counter() - start < 20


def test_data_of_tensors_are_not_mistaken_for_fields():
    """Weights whose bytes look like an external tensor are weights."""
    looks_bad = external().SerializeToString()
    raw = TensorProto(
        name="w", dims=[len(looks_bad)], data_type=TensorProto.UINT8, raw_data=looks_bad
    )
    model = helper.make_model(small_graph([constant(raw)]))
    assert inspect_onnx(model.SerializeToString(), "fine").num_graphs == 1


def test_the_runtime_never_gets_a_path(colour_model, tmp_path, monkeypatch):
    import onnxruntime

    seen = []
    real = onnxruntime.InferenceSession

    def spy(model, *args, **kwargs):
        seen.append(model)
        return real(model, *args, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    path = tmp_path / "model.onnx"
    path.write_bytes(colour_model)
    Segmenter(path)
    assert seen == [colour_model]


def test_every_changed_byte_is_noticed(colour_model):
    rng = np.random.default_rng(0)
    for place in rng.choice(len(colour_model), 400, replace=False).tolist():
        damaged = bytearray(colour_model)
        damaged[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(ModelFileError):
            read_model_file(bytes(damaged))


def test_the_checksum_does_not_depend_on_the_order_of_the_metadata(colour_model):
    model = onnx.load_from_string(colour_model)
    entries = {p.key: p.value for p in model.metadata_props}
    del model.metadata_props[:]
    helper.set_model_props(model, dict(sorted(entries.items(), reverse=True)))
    assert read_model_file(model.SerializeToString()).metadata.tile_px == 64
