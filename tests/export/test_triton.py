"""Model repositories for Triton: read by its own published schema, and the graph in it is the package's."""

import pytest
from google.protobuf import text_format

from assetgen.errors import OutputUnwritable, PackageInvalid
from assetgen.package import verify_package
from assetgen.store import bundled_models_folder
from export import cli
from export.triton import write_repository
from tests.helpers.tiny_package import OUTPUTS, tiny_feeds, tiny_inputs, write_tiny_package

schema = pytest.importorskip(
    "tritonclient.grpc.model_config_pb2", reason="TRITON'S SCHEMA NOT TESTED: pip install tritonclient"
)


@pytest.fixture
def package(tmp_path):
    write_tiny_package(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def repository(package, tmp_path):
    assert write_repository(package, tmp_path / "models") == ["tiny-fp32"]
    return tmp_path / "models"


def parsed(path):
    return text_format.Parse(path.read_text(encoding="utf-8"), schema.ModelConfig())


@pytest.mark.parametrize("file", ["config.pbtxt", "tensorrt.pbtxt"])
def test_the_configuration_is_one_by_tritons_schema(repository, file):
    config = parsed(repository / "tiny-fp32" / file)
    assert (config.name, config.max_batch_size) == ("tiny-fp32", 8)
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    feeds = tiny_feeds()
    assert [spec.name for spec in config.input] == list(feeds)
    for spec, told in zip(config.input, tiny_inputs(), strict=True):
        assert spec.data_type == schema.TYPE_FP32
        assert list(spec.dims) == [told.shape[1], *([-1, -1] if told.stride_px else [])]
    assert [(spec.name, list(spec.dims)) for spec in config.output] == [(name, [n, -1, -1]) for name, n in OUTPUTS]
    backend = "onnxruntime" if file == "config.pbtxt" else ""
    assert (config.backend, config.platform) == (backend, "" if backend else "tensorrt_plan")
    assert config.default_model_filename == ("model.onnx" if backend else "model.plan")


SHIPPED = sorted(path.parent for path in bundled_models_folder().glob("*/manifest.json"))


@pytest.mark.parametrize("folder", SHIPPED, ids=[path.name for path in SHIPPED])
def test_every_shipped_model_has_a_configuration_by_the_schema(folder, tmp_path):
    (name,) = write_repository(folder, tmp_path / "models")
    manifest = verify_package(folder, allow_hard_links=True).manifest
    for file in ("config.pbtxt", "tensorrt.pbtxt"):
        config = parsed(tmp_path / "models" / name / file)
        assert [spec.name for spec in config.input] == [spec.name for spec in manifest.inputs]
        assert [spec.dims[0] for spec in config.output] == [spec.channels for spec in manifest.outputs]


def test_warm_up_feeds_every_input_at_one_size(repository):
    config = parsed(repository / "tiny-fp32" / "config.pbtxt")
    assert [warm.batch_size for warm in config.model_warmup] == [1, 8]
    for warm in config.model_warmup:
        shapes = {name: tuple(value.dims) for name, value in warm.inputs.items()}
        assert shapes == {name: values.shape[1:] for name, values in tiny_feeds(cells=(16, 16)).items()}
        assert all(value.zero_data or value.random_data for value in warm.inputs.values())


def test_the_graph_is_the_packages(repository, package):
    model = repository / "tiny-fp32" / "1" / "model.onnx"
    assert model.read_bytes() == verify_package(package).read_graph()
    assert sorted(path.name for path in (repository / "tiny-fp32").iterdir()) == ["1", "config.pbtxt", "tensorrt.pbtxt"]


def test_the_command_writes_one_of_a_package(package, tmp_path, capsys):
    assert cli.main([str(package), "--triton", str(tmp_path / "models")]) == 0
    assert "model repository" in capsys.readouterr().out
    assert parsed(tmp_path / "models" / "tiny-fp32" / "config.pbtxt").name == "tiny-fp32"


def test_a_folder_in_use_is_refused_and_left_alone(package, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    write_repository(package, folder)  # an empty one will do
    before = sorted(folder.rglob("*"))
    with pytest.raises(OutputUnwritable, match="is not empty"):
        write_repository(package, folder)
    assert sorted(folder.rglob("*")) == before


def test_an_altered_package_is_refused(package, tmp_path):
    with (package / "generator.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(PackageInvalid):
        write_repository(package, tmp_path / "models")
    assert not (tmp_path / "models").exists()
